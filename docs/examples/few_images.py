"""Measures which norms a segmentation network of adder layers trains with on one or two images at a time.

    python -m docs.examples.few_images DATA

A network that was trained on batches of 16 continues on 800 other images, one or two per step, with norms of
the batch, norms frozen after recalibration, norms frozen with their running statistics, and norms frozen at
mean 0 and variance 1, as torchvision's frozen norms start.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from addertrain.nn import FrozenBatchNorm2d, freeze_norms
from docs.examples.digits_on_photographs import NUM_CLASSES, load_digits_on_photographs
from docs.examples.segmentation import SIZE, batches_of, mean_iou, network, normalised, predict, train

FIRST_STEPS, NUM_MORE, NUM_TEST = 250, 800, 128
Norms = Literal["of the batch", "recalibrated", "running", "fresh"]


def prepare(model: nn.Module, norms: Norms, batches: Sequence[Tensor]) -> None:
    """Sets how the norms of the model normalise from now on."""
    if norms == "recalibrated":
        freeze_norms(model, batches)
    elif norms != "of the batch":
        for module in list(model.modules()):
            if isinstance(module, nn.BatchNorm2d):
                if norms == "fresh":
                    module.reset_running_stats()
                module.__class__ = FrozenBatchNorm2d
                module.requires_grad_(False).eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the mean IoU of every case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="holds MNIST/raw and imagenette/**/*.JPEG")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    num_first = 16 * FIRST_STEPS
    images, test_images = load_digits_on_photographs(
        options.data, num_train=num_first + NUM_MORE, num_test=NUM_TEST, size=SIZE
    )
    more = Subset(images, range(num_first, num_first + NUM_MORE))
    some, tests = list(batches_of(Subset(images, range(160)))), list(batches_of(test_images))
    trained = network("adder", NUM_CLASSES)
    train(trained, batches_of(Subset(images, range(num_first))), FIRST_STEPS)
    before = mean_iou(predict(trained, tests, some), NUM_CLASSES)
    print(f"after {FIRST_STEPS} steps of 16 images: mean IoU {before:.3f}")
    for lr in (0.01, 0.03):
        for batch_size in (1, 2):
            for norms in get_args(Norms):
                torch.manual_seed(1)
                model = copy.deepcopy(trained)
                prepare(model, norms, [normalised(batch) for batch, _ in some])
                train(model, batches_of(more, batch_size=batch_size), NUM_MORE // batch_size, lr=lr)
                iou = mean_iou(predict(model, tests, some), NUM_CLASSES)
                print(f"rate {lr}, {batch_size} images per step, norms {norms}: mean IoU {iou:.3f}")


if __name__ == "__main__":
    main()
