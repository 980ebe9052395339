"""Draws what the networks of segmentation.py and detection.py find, a column for each image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import draw_bounding_boxes, make_grid

COLORS = ("#000000", "#e69f00", "#56b4e9", "#d55e00", "#009e73")
"""Of the classes: Okabe and Ito's, which color-blind readers can tell apart."""
SCALE = 2


def draw_class_maps(images: Tensor, true: Tensor, predicted: Tensor, path: Path) -> None:
    """Three rows: images [N, 3, S, S], true class maps [N, S, S] and predicted ones on dimmed images."""
    palette = torch.tensor([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in COLORS]) / 255
    rows = [images]
    for classes in (true, predicted):
        colored = palette[classes].permute(0, 3, 1, 2)
        rows.append(torch.where(classes[:, None] == 0, 0.35 * images, colored))
    _save(torch.cat(rows), len(images), path)


def draw_boxes(
    images: Tensor,
    true: Sequence[dict[str, Tensor]],
    found: Sequence[dict[str, Tensor]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Two rows: images [N, 3, S, S] with their true boxes, and with those that were found.

    Args:
        names: of the classes from 1 on.
    """
    large = interpolate(images, scale_factor=SCALE, mode="bilinear")
    rows = [
        draw_bounding_boxes(
            image, SCALE * target["boxes"], [names[label - 1] for label in target["labels"]],
            colors=[COLORS[label] for label in target["labels"]], width=2,
        )
        for targets in (true, found)
        for image, target in zip(large, targets, strict=True)
    ]  # fmt: skip
    _save(torch.stack(rows), len(images), path, scale=1)


def _save(tiles: Tensor, columns: int, path: Path, *, scale: int = SCALE) -> None:
    grid = (make_grid(tiles, columns, pad_value=1.0) * 255).round().clamp(0, 255).to(torch.uint8)
    image = Image.fromarray(grid.permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.BILINEAR).save(
        path, quality=80
    )
