"""Trains torchvision's FCN with a backbone of adder layers to segment digits on photographs.

    python -m docs.examples.segmentation DATA --picture docs/pictures/segmentation.webp
    python -m docs.examples.segmentation DATA --kind conv

docs/detection-and-segmentation.md says what DATA holds and how to train on images of your own.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead

from addertrain.nn import convert, param_groups, recalibrated
from addertrain.optim import AdderSGD, cosine
from docs.examples.digits_on_photographs import (
    NUM_CLASSES,
    Sample,
    class_map,
    for_pictures,
    load_digits_on_photographs,
)
from docs.examples.vision_pictures import draw_class_maps

SIZE, BATCH_SIZE, NUM_STEPS, LR = 96, 16, 600, 0.1
BACKGROUND_WEIGHT = 0.05
"""Of the loss: nineteen pixels of twenty are background."""
Pair = tuple[Tensor, Tensor]
"""Images float32 [N, 3, H, W] from 0 to 1, and their class maps int64 [N, H, W]; 255 is ignored."""


def network(kind: Literal["adder", "conv"], num_classes: int) -> nn.Module:
    """FCN on the first two stages of ResNet-18; the second keeps the resolution, a quarter of the image's.

    The first layer and the one to the classes stay convolutions. Every other has a norm behind it, which an
    adder layer needs.
    """
    resnet = resnet18()
    for module in resnet.layer2.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)
    model: nn.Module = FCN(IntermediateLayerGetter(resnet, {"layer2": "out"}), FCNHead(128, num_classes))
    if kind == "adder":
        model = convert(model, keep=("backbone.conv1", "classifier.4"), example=torch.zeros(2, 3, 64, 64))
    return model.to(memory_format=torch.channels_last)


def train(model: nn.Module, batches: Iterable[Pair], num_steps: int, *, lr: float = LR) -> list[float]:
    """Trains on batches; returns the loss of every step."""
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=lr)
    losses = []
    model.train()
    for step, (images, classes) in zip(range(num_steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, num_steps)
        optimizer.zero_grad()
        logits = model(normalised(images))["out"]
        weight = torch.ones(logits.shape[1])
        weight[0] = BACKGROUND_WEIGHT
        loss = cross_entropy(logits, classes, weight, ignore_index=255)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}", flush=True)
    return losses


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[Pair], training: Iterable[Pair]) -> list[Pair]:
    """(predicted, true) class maps, with statistics recomputed on some batches of training."""
    model.eval()
    with recalibrated(model, [normalised(images) for images, _ in training]):
        return [(model(normalised(images))["out"].argmax(1), classes) for images, classes in batches]


def mean_iou(predictions: Iterable[Pair], num_classes: int) -> float:
    """The mean over classes of |predicted and true| / |predicted or true|, in pixels of all images."""
    counts = torch.zeros(num_classes, num_classes)
    for predicted, true in predictions:
        is_known = true != 255
        cells = true[is_known] * num_classes + predicted[is_known]
        counts += torch.bincount(cells, minlength=num_classes**2).view(num_classes, -1)
    both = counts.diag()
    return float((both / (counts.sum(0) + counts.sum(1) - both)).nanmean())


def normalised(images: Tensor) -> Tensor:
    """Pixels of mean 0 and standard deviation 1, roughly."""
    return ((images - 0.45) / 0.25).contiguous(memory_format=torch.channels_last)


def batches_of(dataset: Dataset[Sample], *, batch_size: int = BATCH_SIZE) -> DataLoader[Pair]:
    """Batches of images and class maps, in the set's order."""

    def collate(samples: list[Sample]) -> Pair:
        images, targets = zip(*samples, strict=True)
        return torch.stack(images), torch.stack([class_map(target) for target in targets])

    return DataLoader(dataset, batch_size, collate_fn=collate)


def main(arguments: Sequence[str] | None = None) -> float:
    """Trains, prints the mean IoU on test images, and draws predictions where --picture says so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="holds MNIST/raw and imagenette/**/*.JPEG")
    parser.add_argument("--kind", choices=("adder", "conv"), default="adder", help="of the layers")
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--picture", type=Path, help="where predictions are drawn: .png or .webp")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    train_set, test_set = load_digits_on_photographs(
        options.data, num_train=options.steps * BATCH_SIZE, num_test=256, size=SIZE
    )
    model = network(options.kind, NUM_CLASSES)
    train(model, batches_of(train_set), options.steps)
    some = batches_of(Subset(train_set, range(min(len(train_set), 20 * BATCH_SIZE))))
    iou = mean_iou(predict(model, batches_of(test_set), some), NUM_CLASSES)
    print(f"{options.kind}: mean IoU {iou:.3f} over {NUM_CLASSES} classes on {len(test_set)} images")
    if options.picture:
        (shown,) = batches_of(for_pictures(options.data, count=8, size=SIZE))
        ((predicted, true),) = predict(model, [shown], some)
        draw_class_maps(shown[0], true, predicted, options.picture)
    return iou


if __name__ == "__main__":
    main()
