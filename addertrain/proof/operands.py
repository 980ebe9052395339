"""The numbers that a layer's kernels are tried on: drawn from the layer's name, so always the same ones.

A batch repeats a few different images, channels and filters, so that the reference has little to do for a
wide layer: a sum over channels is one over the few, each as often as it is there. The numbers of different
ones are primes, so that tiles, registers and words, powers of two, never meet the same ones twice: a number
from another image, row, channel or filter is a number that is wrong. A layer in groups has little to do for
each of its filters and repeats images alone.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from addertrain.proof.layers import ProvenLayer

_IMAGES, _CHANNELS, _FILTERS = 3, 31, 37


@dataclass(frozen=True)
class Operands:
    """x_nchw, w_ocrs and dy_nopq of the few, and which of them each image, channel and filter is."""

    x: Tensor
    w: Tensor
    dy: Tensor
    images: Tensor
    channels: Tensor
    filters: Tensor
    layout: torch.memory_format

    @property
    def whole_x(self) -> Tensor:
        """The input of the layer, in its layout."""
        return self._laid_out(self.x[:, self.channels][self.images])

    @property
    def whole_w(self) -> Tensor:
        """The filters of the layer."""
        return self.of_filters(self.w).contiguous()

    @property
    def whole_dy(self) -> Tensor:
        """The gradient of the response."""
        return self._laid_out(self.dy[:, self.filters][self.images])

    def of_response(self, few: Tensor) -> Tensor:
        """A number for each of [few images, few filters, P, Q], for all of them."""
        return few[:, self.filters][self.images]

    def of_input(self, few: Tensor) -> Tensor:
        """A number for each of [few images, few channels, H, W], for all of them."""
        return few[:, self.channels][self.images]

    def of_filters(self, few: Tensor) -> Tensor:
        """A number for each of [few filters, few channels, R, S], for all of them."""
        seen = few.shape[1] < self.x.shape[1]  # a group's channels, none of them repeated
        return few[self.filters] if seen else few[self.filters][:, self.channels]

    def _laid_out(self, t: Tensor) -> Tensor:
        """By strides, also where sizes of one would allow either layout."""
        return torch.empty_like(t, memory_format=self.layout).copy_(t)


def operands(
    layer: ProvenLayer, num_images: int, device: torch.device, *, zeros: Sequence[float] = (0.5, 0.05)
) -> Operands:
    """For a batch of `num_images`; behind a ReLU so large a share of x is 0, image by image in turn."""
    generator = torch.Generator().manual_seed(zlib.crc32(str(layer).encode()))
    few_filters = torch.Generator().manual_seed(zlib.crc32(str(layer).encode()) + 1)
    n, c, o = min(num_images, _IMAGES), min(layer.C, _CHANNELS), min(layer.O, _FILTERS)
    if layer.groups > 1:
        c, o = layer.C, layer.O
    (p, q), dtype = layer.output, layer.dtype
    x = 1.5 * torch.randn(n, c, layer.H, layer.W, generator=generator)
    if layer.is_rectified:
        shares = torch.tensor(zeros)[torch.arange(n) % len(zeros)].view(-1, 1, 1, 1)
        x = x.abs() * (torch.rand(x.shape, generator=generator) >= shares)
    w = 2.0 * torch.randn(
        o, c // layer.groups, layer.R, layer.S, generator=few_filters
    )  # the same beside any x
    dy = torch.randn(n, o, p, q, generator=generator)
    places = (torch.arange(whole) % few for whole, few in ((num_images, n), (layer.C, c), (layer.O, o)))
    layout = torch.channels_last if layer.is_channels_last else torch.contiguous_format
    x, w, dy = (t.to(device, dtype) for t in (x, w, dy))
    images, channels, filters = (place.to(device) for place in places)
    return Operands(x, w, dy, images, channels, filters, layout)


def counts(places: Tensor) -> Tensor:
    """How often each of the few is there, in float64."""
    return places.bincount().double()
