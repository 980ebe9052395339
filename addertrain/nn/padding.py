"""How an image is padded before a layer sees it: what torch's Conv2d calls padding="same" and padding_mode.

Operators pad zeros of their own, as many on either side. Everything else is torch.nn.functional.pad in front
of them: other modes, and the odd pixel of "same", which torch puts on the right and at the bottom. With a
stride, which torch refuses, "same" is TensorFlow's: the padding depends on the size of the image.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.layout import memory_format

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Edges = tuple[int, int, int, int]
"""Pixels on the left, on the right, at the top and at the bottom."""
Pair = tuple[int, int]


@dataclass(frozen=True)
class StridedEdges:
    """What "same" pads in front of a layer with a stride u: of H rows it makes ceil(H / u). u may be 1."""

    kernel: Pair
    stride: Pair
    dilation: Pair

    def at(self, size: Pair) -> Edges:
        """The edges of an image of `size`, (H, W); the odd pixel is on the right and at the bottom."""
        vertical, horizontal = (
            max((-(-pixels // step) - 1) * step + spread * (taps - 1) + 1 - pixels, 0)
            for pixels, taps, step, spread in zip(size, self.kernel, self.stride, self.dilation, strict=True)
        )
        left, top = horizontal // 2, vertical // 2
        return left, horizontal - left, top, vertical - top


def check_mode(layer: str, mode: Any) -> PaddingMode:
    """`mode`, if it is one.

    Raises:
        ValueError: naming those that there are.
    """
    modes: tuple[PaddingMode, ...] = get_args(PaddingMode)
    if mode not in modes:
        raise ValueError(f"{layer}: expected padding_mode as one of {', '.join(modes)}, got {mode!r}.")
    found: PaddingMode = mode
    return found


def split_padding(padding: Pair, mode: PaddingMode) -> tuple[Pair, Edges | None]:
    """What the operator pads, and what is padded in front of it."""
    if mode == "zeros" or padding == (0, 0):
        return padding, None
    vertical, horizontal = padding
    return (0, 0), (horizontal, horizontal, vertical, vertical)


def same_padding(
    kernel: Pair, stride: Pair, dilation: Pair, mode: PaddingMode
) -> tuple[Pair, Edges | StridedEdges | None]:
    """As `split_padding`, so that a layer gives as many positions as it gets, over its stride."""
    if stride != (1, 1):
        return (0, 0), StridedEdges(kernel, stride, dilation)
    vertical, horizontal = (tap_step * (taps - 1) for taps, tap_step in zip(kernel, dilation, strict=True))
    if vertical % 2 == 0 and horizontal % 2 == 0:
        return split_padding((vertical // 2, horizontal // 2), mode)
    left, top = horizontal // 2, vertical // 2
    return (0, 0), (left, horizontal - left, top, vertical - top)


def edges_at(edges: Edges | StridedEdges | None, size: Pair) -> Edges:
    """The edges of an image of `size`, (H, W)."""
    if isinstance(edges, StridedEdges):
        return edges.at(size)
    return edges or (0, 0, 0, 0)


def padded(x: Tensor, edges: Edges | StridedEdges | None, mode: PaddingMode) -> Tensor:
    """x_nchw with its edges, in its layout."""
    edges = edges_at(edges, (x.shape[-2], x.shape[-1]))
    if not any(edges):
        return x
    wider = F.pad(x, edges) if mode == "zeros" else F.pad(x, edges, mode)
    return wider.contiguous(memory_format=memory_format(x))  # of the modes, "circular" loses it
