"""Trains torchvision's Faster R-CNN with a backbone of adder layers to detect digits on photographs.

    python -m docs.examples.detection DATA --picture docs/pictures/detection.webp
    python -m docs.examples.detection DATA --kind conv

docs/detection-and-segmentation.md says what DATA holds and how to train on images of your own.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import box_iou

from addertrain.nn import convert, param_groups, recalibrated
from addertrain.optim import AdderSGD, cosine
from docs.examples.digits_on_photographs import (
    DIGITS,
    NUM_CLASSES,
    Sample,
    for_pictures,
    load_digits_on_photographs,
)
from docs.examples.vision_pictures import draw_boxes

SIZE, BATCH_SIZE, NUM_STEPS, LR = 96, 8, 600, 0.05
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def backbone(kind: Literal["adder", "conv"]) -> nn.Module:
    """The first three stages of ResNet-18 and a feature pyramid on them.

    The pyramid and the detector's heads have no norms, which adder layers need, and stay convolutions.
    """
    resnet: nn.Module = resnet18()
    if kind == "adder":
        resnet = convert(resnet, keep=("conv1", "fc"), example=torch.zeros(2, 3, 64, 64))
    stages = {"layer1": "0", "layer2": "1", "layer3": "2"}
    return BackboneWithFPN(resnet, stages, [64, 128, 256], out_channels=64)


def network(kind: Literal["adder", "conv"], num_classes: int, size: int = SIZE) -> nn.Module:
    """Faster R-CNN for images and objects that are small."""
    return FasterRCNN(
        backbone(kind),
        min_size=size,
        max_size=size,
        rpn_anchor_generator=AnchorGenerator(((16,), (24,), (32,), (48,)), ((0.5, 1.0, 2.0),) * 4),
        rpn_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=50,
        box_batch_size_per_image=32,
        box_head=TwoMLPHead(64 * 7**2, 128),
        box_predictor=FastRCNNPredictor(128, num_classes),
    )


def train(model: nn.Module, batches: Iterable[Batch], num_steps: int, *, lr: float = LR) -> list[float]:
    """Trains on batches; returns the sum of the detector's losses at every step."""
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=lr)
    losses = []
    model.train()
    for step, (images, targets) in zip(range(num_steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, num_steps) * min(1.0, (step + 1) / 50)
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}", flush=True)
    return losses


@torch.no_grad()
def detect(
    model: nn.Module, images: Iterable[list[Tensor]], training: Iterable[list[Tensor]], score: float = 0.5
) -> list[dict[str, Tensor]]:
    """Detections of at least this score, with statistics recomputed on some batches of training."""
    model.eval()
    with recalibrated(model, training):
        found = [each for batch in images for each in model(batch)]
    return [{key: value[each["scores"] >= score] for key, value in each.items()} for each in found]


def f1(found: Sequence[dict[str, Tensor]], true: Sequence[dict[str, Tensor]]) -> float:
    """2 · hits / (detections + objects).

    A detection is a hit if its class is that of an object whose box it covers with an IoU of 0.5 or more.
    Each object counts once, for the detection of the highest score.
    """
    num_hits, num_all = 0, 0
    for detections, objects in zip(found, true, strict=True):
        num_all += len(detections["boxes"]) + len(objects["boxes"])
        fits = box_iou(detections["boxes"], objects["boxes"]) >= 0.5
        fits &= detections["labels"][:, None] == objects["labels"]
        is_free = torch.ones(len(objects["boxes"]), dtype=torch.bool)
        for index in detections["scores"].argsort(descending=True):
            hits = (fits[index] & is_free).nonzero()
            if len(hits):
                is_free[hits[0]] = False
                num_hits += 1
    return 2 * num_hits / max(1, num_all)


def batches_of(dataset: Dataset[Sample], *, batch_size: int = BATCH_SIZE) -> DataLoader[Batch]:
    """Batches as detectors take them, lists of images and of targets, in the set's order."""

    def collate(samples: list[Sample]) -> Batch:
        return [image for image, _ in samples], [target for _, target in samples]

    return DataLoader(dataset, batch_size, collate_fn=collate)


def main(arguments: Sequence[str] | None = None) -> float:
    """Trains, prints the F1 score on test images, and draws detections where --picture says so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="holds MNIST/raw and imagenette/**/*.JPEG")
    parser.add_argument("--kind", choices=("adder", "conv"), default="adder", help="of the layers")
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--picture", type=Path, help="where detections are drawn: .png or .webp")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    train_set, test_set = load_digits_on_photographs(
        options.data, num_train=options.steps * BATCH_SIZE, num_test=256, size=SIZE
    )
    model = network(options.kind, NUM_CLASSES)
    train(model, batches_of(train_set), options.steps)
    some = batches_of(Subset(train_set, range(min(len(train_set), 40 * BATCH_SIZE))))
    training = [images for images, _ in some]
    tests = list(batches_of(test_set))
    found = detect(model, [images for images, _ in tests], training)
    score = f1(found, [target for _, targets in tests for target in targets])
    print(f"{options.kind}: F1 {score:.3f} at IoU 0.5 and score 0.5 on {len(test_set)} images")
    if options.picture:
        ((images, targets),) = batches_of(for_pictures(options.data, count=8, size=SIZE))
        names = [str(digit) for digit in DIGITS]
        draw_boxes(torch.stack(images), targets, detect(model, [images], training), names, options.picture)
    return score


if __name__ == "__main__":
    main()
