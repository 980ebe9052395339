"""A small residual network of each kind learns 1000 real images."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from addertrain.data import ImageArrays, load_data
from addertrain.models.blocks import BasicBlock
from addertrain.models.resnet import ResNet
from addertrain.nn import param_groups
from addertrain.optim import AdderSGD
from addertrain.recipe import DataRecipe

NUM_IMAGES, BATCH_SIZE = 1000, 50
DATA = os.environ.get("ADDERTRAIN_DATA")


@pytest.fixture(scope="module")
def images_and_labels() -> tuple[Tensor, Tensor]:
    """The first 1000 training images of CIFAR-10, normalised."""
    if not DATA or not any((Path(DATA) / f"cifar-10-batches-{kind}").is_dir() for kind in ("py", "bin")):
        pytest.skip("needs CIFAR-10 in ADDERTRAIN_DATA")
    data = load_data(DataRecipe(name="cifar10", global_batch_size=BATCH_SIZE))
    assert isinstance(data.train, ImageArrays)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    images = (data.train.images_nchw[:NUM_IMAGES] / 255 - mean) / std
    return images.contiguous(), data.train.labels[:NUM_IMAGES]


@pytest.mark.parametrize(("kind", "num_epochs"), [("adder", 14), ("conv", 8), ("binary", 24)])
def test_a_thousand_real_images_are_learnt(
    kind: str, num_epochs: int, images_and_labels: tuple[Tensor, Tensor]
) -> None:
    images, labels = images_and_labels
    model = ResNet(BasicBlock, (1, 1, 1), (32, 64, 128), num_classes=10, stem="imagenet", kind=kind)
    optimizer = AdderSGD(param_groups(model, weight_decay=5e-4), lr=0.1)
    num_steps = num_epochs * NUM_IMAGES // BATCH_SIZE
    order = torch.cat([torch.randperm(NUM_IMAGES) for _ in range(num_epochs)])
    for step, chosen in enumerate(order.split(BATCH_SIZE)):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * step / num_steps))
        optimizer.zero_grad()
        cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in images.split(250)])

    accuracy = float((predicted == labels).float().mean())
    assert accuracy >= 0.8
