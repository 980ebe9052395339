"""The emulator in a GPU's place: `Operators` of addertrain.proof over the GPU kernels' own source."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, BatchNorm2d
from addertrain.ops import schemas
from addertrain.proof import ProvenLayer, layers_of
from addertrain.proof.layers import merged
from tests.kernels.emulated import EmulatedKernels, Fused
from tests.ops.layers import Layer


class SmallNet(nn.Module):
    """Adder layers that meet every kind of tile path: K = 27, strides of 2 and 3, k in several slabs, cut."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"stem": (3, 16, 1), "halved": (16, 20, 2), "whole": (20, 40, 1), "thirds": (40, 72, 3)}
        for name, (channels, filters, stride) in sizes.items():
            layer = AdderConv2d(channels, filters, 3, stride, 1, offset_free=True, rectified=name != "stem")
            self.add_module(name, layer)
            self.add_module(f"{name}_norm", BatchNorm2d(filters, relu=True))

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


def small_layers(
    *, dtypes: Sequence[torch.dtype | None] = (None,), layouts: Sequence[bool] = (True,)
) -> dict[ProvenLayer, list[str]]:
    """SmallNet's under autocast to each type (None: float32); channels-last or not."""
    return merged(
        *(
            layers_of(
                SmallNet(), (3, 11, 10), images=2, autocast=dtype, channels_last=last, device_type="cuda"
            )
            for dtype in dtypes
            for last in layouts
        )
    )


def grouped_layers(dtype: torch.dtype | None) -> dict[ProvenLayer, list[str]]:
    """A depthwise layer for its own kernel, small groups for the direct one, large groups for the tiles."""
    sizes = ((12, 12, 3, 1, 12), (12, 24, 3, 2, 12), (24, 20, 3, 1, 4), (20, 64, 1, 1, 1), (64, 96, 3, 1, 2))
    modules: list[nn.Module] = []
    for channels, filters, kernel, stride, groups in sizes:
        layer = AdderConv2d(
            channels, filters, kernel, stride, kernel // 2, groups=groups, offset_free=True, rectified=True
        )
        modules += [layer, BatchNorm2d(filters, relu=True)]
    network = nn.Sequential(*modules)
    return layers_of(network, (12, 9, 8), images=2, autocast=dtype, channels_last=True, device_type="cuda")


class EmulatedOperators:
    """What a GPU computes, on this processor; filter gradients are torch's, as they are cuDNN's there."""

    device = torch.device("cpu")
    saturates = has_sums = True
    leaves_out_zeros = False

    def __init__(self, emulator: EmulatedKernels) -> None:
        self.emulator = emulator

    def forward(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        return self.emulator.forward(_of(layer, x), x, w, layer.is_offset_free)

    def grad_input(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return self.emulator.grad_input(_of(layer, x), dy, x, w)

    def grad_weight(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        dw: Tensor = schemas.GRAD_WEIGHT(dy, x, w, *layer.sizes)
        return dw

    def rectified_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        raise AssertionError("GPUs compute each gradient alone")

    def power(self, layer: ProvenLayer, x: Tensor, w: Tensor, p: float) -> Tensor:
        return self.emulator.forward(_of(layer, x), x, w, layer.is_offset_free, power=p)

    def power_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor, p: float
    ) -> tuple[Tensor, Tensor]:
        of_x = self.emulator.grad_input(_of(layer, x), dy, x, w, power=p)
        return of_x, self.emulator.power_grad_weight(_of(layer, x), dy, x, w, p)

    def with_sums(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        sums = torch.full((2, layer.O), torch.nan, dtype=torch.float64)
        return self.emulator.forward(_of(layer, x), x, w, True, Fused(sums=sums)), sums

    def affine(
        self, layer: ProvenLayer, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, residual: Tensor
    ) -> Tensor:
        return self.emulator.forward(_of(layer, x), x, w, True, Fused(scale, shift, residual, relu=True))

    def norm(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        assert residual is None, "GPUs add residuals apart"
        sums = torch.stack([x.double().pow(power).sum((0, 2, 3)) for power in (1, 2)])
        return self.emulator.norm(x, sums, weight, bias, eps=eps, relu=True)

    def norm_backward(
        self, dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
        eps: float, residual: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return self.emulator.norm_backward(dy, x, weight, bias, mean, var, eps=eps, relu=True)

    def distances(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        return self.emulator.distances(_of(layer, x), x, w)

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> Tensor:
        return self.emulator.sums_of_squares(tensors)

    def wait(self) -> None:
        pass


def _of(layer: ProvenLayer, x: Tensor) -> Layer:
    n, c, h, w = x.shape
    sizes = (layer.R, layer.S, layer.stride, layer.padding, layer.dilation, layer.groups)
    return Layer(n, c, layer.O, h, w, *sizes)
