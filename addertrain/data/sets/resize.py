"""Resizes a complete data set once, when it is loaded."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_CHUNK = 4096  # images in float at a time: 16 MB of 32x32


def resize_bilinear(images_nchw: Tensor, size: int) -> Tensor:
    """uint8 images (N, C, H, W) as uint8 (N, C, size, size), channels-last; antialiased when they shrink.

    In float32 and rounded: torch's own uint8 path differs with the processor's instruction set.
    """
    resized = [
        interpolate(chunk.float(), size=(size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for chunk in images_nchw.split(_CHUNK)
    ]
    return torch.cat(resized).contiguous(memory_format=torch.channels_last)
