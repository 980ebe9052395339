"""Images per second of this machine, measured on a few training steps on noise."""

import time

import torch

from addertrain.data import Batch, ImageData
from addertrain.recipe import Recipe
from addertrain.train.network import build_classifier

_NUM_STEPS = 3
_MAX_IMAGES = 32  # a step of ImageNet's networks takes a second for each ten of them on a CPU


def measure_rate(
    recipe: Recipe, data: ImageData, *, image_shape: tuple[int, int, int], batch_size: int
) -> float:
    """Images per second of one process; the loader, other ranks and their communication are left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = batch_size if device.type == "cuda" else min(batch_size, _MAX_IMAGES)
    module = build_classifier(recipe, data, steps_per_epoch=_NUM_STEPS).to(device)
    optimizer = module.configure_optimizers()["optimizer"]
    images = torch.randint(0, 256, (batch_size, *image_shape), dtype=torch.uint8, device=device)
    labels = torch.randint(0, data.num_classes, (batch_size,), device=device)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels, labels)
    seconds = []
    for _ in range(_NUM_STEPS + 1):
        started = time.perf_counter()
        _, loss = module.learn(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return batch_size / min(seconds[1:])  # the first step also allocates
