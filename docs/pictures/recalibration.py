"""Measures what a picture of docs/method.md shows: `python -m docs.pictures.recalibration`, some seconds.

LeNet-5-BN on the digits, twice with the same seed and the same batches: with the response of Eq. 2 and with
the offset-free one. After every epoch both are evaluated with batch norm's statistics as training left them,
and with statistics recomputed on training images.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain import AdderConv2d, AdderSGD, build_model, param_groups, recalibrated
from addertrain.data import ImageArrays, load_data
from addertrain.optim import cosine
from addertrain.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).with_suffix(".json")
NUM_EPOCHS = 10
BATCH_SIZE = 64


def curves(num_epochs: int) -> dict[str, list[float]]:
    """Top-1 in percent after each epoch of a training of `num_epochs`."""
    raw, offset_free = (trained(num_epochs, offset_free=each) for each in (False, True))
    return {
        "uncalibrated, Eq. 2": raw["uncalibrated"],
        "uncalibrated, offset-free": offset_free["uncalibrated"],
        "recalibrated": offset_free["recalibrated"],
    }


def trained(num_epochs: int, *, offset_free: bool) -> dict[str, list[float]]:
    """Both accuracies of one training after each epoch."""
    recipe = load_recipe(ROOT / "recipes" / "digits" / "lenet5bn.yaml", [])
    data = load_data(recipe.data)
    assert isinstance(data.train, ImageArrays)
    assert isinstance(data.test, ImageArrays)
    images, tests = (_normalised(part.images_nchw, data.mean, data.std) for part in (data.train, data.test))
    torch.manual_seed(0)
    model = build_model("lenet5bn", kind="adder", num_classes=data.num_classes)
    for module in model.modules():
        if isinstance(module, AdderConv2d):
            module.offset_free = offset_free
    optimizer = AdderSGD(param_groups(model, weight_decay=recipe.optim.weight_decay), lr=recipe.optim.lr)
    steps_per_epoch = len(images) // BATCH_SIZE
    accuracies: dict[str, list[float]] = {"uncalibrated": [], "recalibrated": []}
    for epoch in range(num_epochs):
        order = torch.randperm(len(images))
        for step in range(steps_per_epoch):
            factor = cosine(epoch * steps_per_epoch + step, num_epochs * steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = recipe.optim.lr * factor
            batch = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            loss = nn.functional.cross_entropy(model(images[batch]), data.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        accuracies["uncalibrated"].append(_top1(model, tests, data.test.labels))
        with recalibrated(model, images[: 10 * BATCH_SIZE].split(BATCH_SIZE)):
            accuracies["recalibrated"].append(_top1(model, tests, data.test.labels))
        model.train()
    return accuracies


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@torch.no_grad()
def _top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return round(100 * float((model(images).argmax(1) == labels).float().mean()), 2)


if __name__ == "__main__":
    RESULT.write_text(json.dumps(curves(NUM_EPOCHS), indent=1) + "\n", encoding="utf-8")
