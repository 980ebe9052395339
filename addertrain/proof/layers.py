"""The adder layers that a network calls, and the small batch on which each is compared.

Kernels are chosen by a layer's channels, filters, stride, type and layout, which stay as they are. An image
keeps its width, which decides how rows fill registers, and a few rows of the height. On GPUs the number of
rows of the contraction decides whether k is split: if the real batch has enough rows that it is not, the
small batch has just enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.models.operations import watch_one_image
from addertrain.nn import AdderConv2d, AdderConvTranspose2d, AdderLinear
from addertrain.nn.padding import edges_at
from addertrain.ops.geometry import output_size

Pair = tuple[int, int]

_ROWS = 5
"""Rows of outputs that stay: a border on either side, and one more than a band has of many channels."""
_CPU_IMAGES = 2
_ENOUGH_BLOCKS = 264  # of kernels/csrc/cuda/plan.h
_WIDE_TILE, _THIN_TILE, _THIN_COLUMNS = (128, 128), (256, 16), 32
"""(rows, columns): no tile of kernels/csrc/cuda/tile_policy.h has more rows, or serves more columns."""


@dataclass(frozen=True, kw_only=True)
class ProvenLayer:
    """An adder layer on a small batch, with all properties that decide which kernels are used; `str` names
    it.

    `forward_images` and `gradient_images` are the batches of the two passes.
    """

    C: int
    O: int  # noqa: E741  the house's letter for filters
    H: int
    W: int
    R: int
    S: int
    stride: Pair
    padding: Pair
    dilation: Pair
    dtype: torch.dtype
    is_channels_last: bool
    is_offset_free: bool
    is_rectified: bool
    forward_images: int
    gradient_images: int
    groups: int = 1

    @property
    def sizes(self) -> tuple[list[int], list[int], list[int]]:
        """Stride, padding and dilation as arguments of the operators."""
        return list(self.stride), list(self.padding), list(self.dilation)

    @property
    def output(self) -> Pair:
        """(P, Q)."""
        return _output(self.H, self.W, (self.R, self.S), self.stride, self.padding, self.dilation)

    @property
    def record(self) -> dict[str, Any]:
        """Plain values, for a report and as the key of a proof."""
        return asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}

    def __str__(self) -> str:
        flags = {
            "channels-last": self.is_channels_last, "NCHW": not self.is_channels_last,
            "offset-free": self.is_offset_free, "rectified": self.is_rectified,
        }  # fmt: skip
        words = [name for name, holds in flags.items() if holds]
        return (
            f"{self.R}x{self.S} {self.C}->{self.O} on {self.H}x{self.W}, stride {self.stride}, padding "
            f"{self.padding}, dilation {self.dilation}, {str(self.dtype).removeprefix('torch.')}, "
            + (f"{self.groups} groups, " if self.groups > 1 else "")
            + ", ".join(words)
        )


def layers_of(
    model: nn.Module,
    image_chw: Sequence[int],
    *,
    images: int,
    autocast: torch.dtype | None,
    channels_last: bool,
    device_type: str,
) -> dict[ProvenLayer, list[str]]:
    """Every distinct adder layer of a forward pass over a batch, with the names of identical layers.

    Args:
        images: of the real batch.
        autocast: the data type that autocast gives to responses before a norm; None if it is off.
    """
    found: dict[ProvenLayer, list[str]] = {}
    for name, layer, shape in _calls(model, image_chw):
        has_norm = layer.offset_free  # networks ask for it wherever a norm follows
        proven = _small(
            layer, shape, images, device_type,
            dtype=autocast if autocast is not None and has_norm else layer.weight.dtype,
            is_channels_last=channels_last,
        )  # fmt: skip
        found.setdefault(proven, []).append(name)
    return found


def merged(*found: Mapping[ProvenLayer, list[str]]) -> dict[ProvenLayer, list[str]]:
    """The distinct layers of several forward passes."""
    together: dict[ProvenLayer, list[str]] = {}
    for layers in found:
        for layer, names in layers.items():
            known = together.setdefault(layer, [])
            known += [name for name in names if name not in known]
    return together


def _calls(
    model: nn.Module, image_chw: Sequence[int]
) -> list[tuple[str, AdderConv2d | AdderLinear, tuple[int, int, int, int]]]:
    """(name, layer, its input as N, C, H, W) of every call in a pass over one image."""
    calls: list[tuple[str, AdderConv2d | AdderLinear, tuple[int, int, int, int]]] = []

    def note(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        if isinstance(module, AdderLinear):
            calls.append((name, module, (x.numel() // module.in_features, module.in_features, 1, 1)))
        elif isinstance(module, AdderConvTranspose2d):
            calls.extend((name, layer, (*x.shape,)) for layer in module.ordinary_layers())
        elif isinstance(module, AdderConv2d):
            n, c, h, w = x.shape
            left, right, top, bottom = edges_at(module.edges, (h, w))  # the operator sees them in x
            calls.append((name, module, (n, c, h + top + bottom, w + left + right)))

    watch_one_image(model, image_chw, note)
    return calls


def _small(
    layer: AdderConv2d | AdderLinear,
    shape: tuple[int, int, int, int],
    images: int,
    device_type: str,
    *,
    dtype: torch.dtype,
    is_channels_last: bool,
) -> ProvenLayer:
    n, c, h, w = shape
    one: Pair = (1, 1)
    kernel, stride, padding, dilation = one, one, (0, 0), one
    if isinstance(layer, AdderConv2d):
        kernel, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    filters = len(layer.weight)
    rows = _few_rows(h, kernel[0], stride[0], padding[0], dilation[0])
    whole, cut = (_output(height, w, kernel, stride, padding, dilation) for height in (h, rows))
    n *= images
    if device_type == "cpu":
        batches = [min(n, _CPU_IMAGES)] * 2
    else:
        batches = [
            _enough_images(n * whole[0] * whole[1], cut[0] * cut[1], filters),
            _enough_images(n * h * w, rows * w, c),
        ]
    return ProvenLayer(
        C=c, O=filters, H=rows, W=w, R=kernel[0], S=kernel[1], stride=stride, padding=padding,
        dilation=dilation, dtype=dtype, is_channels_last=is_channels_last,
        is_offset_free=layer.offset_free, is_rectified=isinstance(layer, AdderConv2d) and layer.rectified,
        forward_images=batches[0], gradient_images=batches[1],
        groups=layer.groups if isinstance(layer, AdderConv2d) else 1,
    )  # fmt: skip


def _few_rows(height: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The height that leaves _ROWS rows of outputs, and as many unseen rows of inputs at the end."""
    if output_size(height, kernel, stride, padding, dilation) <= _ROWS:
        return height
    reach = dilation * (kernel - 1) + 1
    rest = (height + 2 * padding - reach) % stride
    few = (_ROWS - 1) * stride + reach - 2 * padding + rest
    return few if 1 <= few <= height else height


def _enough_images(rows: int, rows_an_image: int, columns: int) -> int:
    """Images of a contraction as large as a real one of `rows`, or as one that a GPU does not split in k."""
    tile_rows, tile_columns = _THIN_TILE if columns <= _THIN_COLUMNS else _WIDE_TILE
    enough = _ENOUGH_BLOCKS * tile_rows // -(-columns // tile_columns)
    return max(1, -(-min(rows, enough) // rows_an_image))


def _output(height: int, width: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    p, q = (
        output_size(size, *numbers)
        for size, *numbers in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    return p, q
