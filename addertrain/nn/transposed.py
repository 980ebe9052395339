"""The transposed adder layer, which decoders and segmentation heads use to enlarge an image."""

import math
from dataclasses import asdict

import torch
from torch import Tensor, nn

from addertrain.nn.adder import AdderConv2d, AdderFilters, Size2d
from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops import functional
from addertrain.ops.transposed import Run, Transposition


class AdderConvTranspose2d(AdderFilters):
    """Y[n,o,p] = -sum |X[n,c,i] - F[c,o,r]| over all c, i, r with `i*u + r*e - a = p`, along both axes.

    It has the shapes of torch's ConvTranspose2d with -|x - w| for each product. The positions between pixels
    for a stride u are no pixels and take no part; zeros outside the image do, as in every adder layer. It is
    computed by ordinary layers of stride 1 (`addertrain.ops.transposed`), whose gradients it has (Chen et al.
    2020, Eq. 5 and 6); the adaptive learning rate is one for the layer, `k = C * O/G * R * S`. With
    `offset_free` an output gets + |F| for each of its terms: without it, outputs that see fewer rows of the
    filter than their neighbours (a kernel that the stride does not divide) have another mean.

    Shapes: x_nchw (N, in_channels, H, W) to (N, out_channels, P, Q) with
    `P = (H - 1)*u - 2*a + e*(R - 1) + output_padding + 1`, in the layout of x. Filters: (C, O/G, R, S).

    Raises:
        ValueError, TypeError: as AdderConv2d, and an output_padding that is not less than stride or dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d = 0,
        output_padding: Size2d = 0,
        dilation: Size2d = 1,
        *,
        bias: bool = False,
        offset_free: bool = False,
        rectified: bool = False,
        groups: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checked = AdderConv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups=groups, device="meta"
        )
        self.in_channels, self.out_channels = checked.in_channels, checked.out_channels
        self.groups = checked.groups
        more = (output_padding,) * 2 if isinstance(output_padding, int) else tuple(output_padding)
        limits = [max(pair) for pair in zip(checked.stride, checked.dilation, strict=True)]
        if len(more) != 2 or not all(0 <= n < limit for n, limit in zip(more, limits, strict=True)):
            raise ValueError(
                "AdderConvTranspose2d: expected output_padding from 0 to less than stride or dilation, "
                f"{tuple(limits)}, got {output_padding!r}."
            )
        self.geometry = Transposition(
            checked.kernel_size, checked.stride, checked.padding, (more[0], more[1]), checked.dilation
        )
        self.offset_free = offset_free
        self.rectified = rectified
        shape = (self.in_channels, self.out_channels // self.groups, *checked.kernel_size)
        self._create_parameters(shape, self.out_channels, bias=bias, device=device, dtype=dtype)

    @property
    def filter_numel(self) -> int:
        """Elements of the unsharded filter, even if `weight` is sharded or not initialised yet."""
        return self.in_channels * (self.out_channels // self.groups) * math.prod(self.geometry.kernel)

    @leaf_of_fx
    def forward(self, x: Tensor) -> Tensor:
        self.was_called = True
        if x.dim() != 4 or x.shape[1] != self.in_channels or min(self.geometry.output(x.shape[2:])) < 1:
            raise ValueError(
                f"AdderConvTranspose2d: expected x of shape (N, {self.in_channels}, H, W) with an output of "
                f"at least one pixel, got {tuple(x.shape)}; correct the layer's channels, or lower its "
                "padding."
            )
        responses = [self._response(x, run) for run in self.geometry.runs]
        y = self.geometry.assembled(responses, x, self.groups)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1)

    def _response(self, x: Tensor, run: Run) -> Tensor:
        filters = run.filters(self.weight, self.groups)
        arguments = (x, filters, (1, 1), run.padding, run.dilation, self.offset_free)
        if self.variant is None:
            return functional.adder2d(*arguments, rectified=self.rectified, groups=self.groups)
        return self.variant.adder2d(*arguments, groups=self.groups)

    @torch.no_grad()
    def ordinary_layers(self) -> list[AdderConv2d]:
        """The layers of stride 1 that compute it, with copies of its filters; one for each run."""
        layers = []
        for run in self.geometry.runs:
            filters = run.filters(self.weight, self.groups)
            layer = AdderConv2d(
                self.in_channels, len(filters), (filters.shape[2], filters.shape[3]), 1, run.padding,
                run.dilation, offset_free=self.offset_free, rectified=self.rectified, groups=self.groups,
                device="meta", dtype=filters.dtype,
            )  # fmt: skip
            layer.weight = nn.Parameter(filters.clone(), requires_grad=False)
            layer.variant = self.variant
            layers.append(layer.train(self.training))
        return layers

    def extra_repr(self) -> str:
        text = ", ".join(f"{name}={value}" for name, value in asdict(self.geometry).items())
        rest = f"groups={self.groups}, bias={self.bias is not None}, offset_free={self.offset_free}"
        return f"{self.in_channels}, {self.out_channels}, {text}, {rest}, rectified={self.rectified}"
