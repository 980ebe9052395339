"""The operands on which a layer's kernels are compared; they are drawn from the layer's name, so always the
same.

A batch repeats a few different images, channels and filters, so that the reference has little work for a wide
layer: a sum over channels becomes a weighted sum over the few. The numbers of different ones are primes, so
that they never align with tiles, registers and words, which are powers of two: a value from the wrong image,
row, channel or filter is a wrong value. A layer in groups has little
work for each of its filters and only repeats images.
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
    """x_nchw, w_ocrs and dy_nopq of the few, and which of them each image, channel and filter repeats."""

    x: Tensor
    w: Tensor
    dy: Tensor
    images: Tensor
    channels: Tensor
    filters: Tensor
    layout: torch.memory_format

    @property
    def whole_x(self) -> Tensor:
        """The complete input of the layer, in its layout."""
        return self._laid_out(self.x[:, self.channels][self.images])

    @property
    def whole_w(self) -> Tensor:
        """The complete filters of the layer."""
        return self.of_filters(self.w).contiguous()

    @property
    def whole_dy(self) -> Tensor:
        """The complete gradient of the response."""
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
    """For a batch of `num_images`; after a ReLU a fraction of x is 0, which varies from image to image."""
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
    w = 2.0 * torch.randn(o, c // layer.groups, layer.R, layer.S, generator=few_filters)  # the same for any x
    dy = torch.randn(n, o, p, q, generator=generator)
    places = (torch.arange(whole) % few for whole, few in ((num_images, n), (layer.C, c), (layer.O, o)))
    layout = torch.channels_last if layer.is_channels_last else torch.contiguous_format
    x, w, dy = (t.to(device, dtype) for t in (x, w, dy))
    images, channels, filters = (place.to(device) for place in places)
    return Operands(x, w, dy, images, channels, filters, layout)


def counts(places: Tensor) -> Tensor:
    """How often each of the few occurs, in float64."""
    return places.bincount().double()
