"""The operators that a proof compares: those of this process, compiled or not, on one device."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from addertrain import libraries
from addertrain.ops import fused, schemas, variants_power
from addertrain.ops.int8 import adder2d_int8
from addertrain.optim.squares import sums_of_squares
from addertrain.proof.layers import ProvenLayer


class Operators(Protocol):
    """The operators of a layer, on tensors of `device`."""

    @property
    def device(self) -> torch.device: ...

    @property
    def saturates(self) -> bool:
        """Whether HT is formed from (w + 1)/2 and x/2 (docs/cuda.md)."""

    @property
    def has_sums(self) -> bool:
        """Whether norms use sums that were computed with the response, as on GPUs."""

    @property
    def leaves_out_zeros(self) -> bool:
        """Whether a layer behind a ReLU may compute both gradients where x is not 0 alone, as on CPUs."""

    def forward(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor: ...

    def grad_input(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor: ...

    def grad_weight(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor: ...

    def rectified_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both gradients of a layer behind a ReLU."""

    def power(self, layer: ProvenLayer, x: Tensor, w: Tensor, p: float) -> Tensor:
        """The response with the p-th power of the distance, 1 < p < 2."""

    def power_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor, p: float
    ) -> tuple[Tensor, Tensor]:
        """dX and dF of `power`."""

    def with_sums(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]: ...

    def affine(
        self, layer: ProvenLayer, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, residual: Tensor
    ) -> Tensor: ...

    def norm(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        """relu(norm(x) + residual), mean and biased variance."""

    def norm_backward(
        self, dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
        eps: float, residual: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """dx, dweight and dbias; followed by the gradient of a residual."""

    def distances(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor: ...

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> Tensor: ...

    def wait(self) -> None:
        """Returns when everything is computed; raises errors of the device."""


class CompiledOperators:
    """`Operators` of a device, as a network calls them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.saturates = self.has_sums = device.type == "cuda"
        self.leaves_out_zeros = device.type == "cpu"

    def forward(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        """The response of the layer's variant."""
        operator = schemas.RECTIFIED if layer.is_rectified else schemas.ADDER2D
        y: Tensor = operator(x, w, *layer.sizes, layer.is_offset_free)
        return y

    def grad_input(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Eq. 6; after a ReLU only where x is not 0."""
        operator = schemas.RECTIFIED_GRAD_INPUT if layer.is_rectified else schemas.GRAD_INPUT
        dx: Tensor = operator(dy, x, w, *layer.sizes)
        return dx

    def grad_weight(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Eq. 5."""
        dw: Tensor = schemas.GRAD_WEIGHT(dy, x, w, *layer.sizes)
        return dw

    def rectified_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eq. 6 only where x is not 0, and Eq. 5."""
        gradients: tuple[Tensor, Tensor] = schemas.RECTIFIED_GRADIENTS(dy, x, w, *layer.sizes)
        return gradients

    def power(self, layer: ProvenLayer, x: Tensor, w: Tensor, p: float) -> Tensor:
        """The response with the p-th power of the distance."""
        y: Tensor = variants_power.POWER(x, w, *layer.sizes, layer.is_offset_free, p)
        return y

    def power_gradients(
        self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor, p: float
    ) -> tuple[Tensor, Tensor]:
        """dX and dF of `power`."""
        dx: Tensor = variants_power.POWER_GRAD_INPUT(dy, x, w, *layer.sizes, p)
        dw: Tensor = variants_power.POWER_GRAD_WEIGHT(dy, x, w, *layer.sizes, p)
        return dx, dw

    def with_sums(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The offset-free response and its sums."""
        return fused.adder2d_with_sums(x, w, *layer.sizes)

    def affine(
        self, layer: ProvenLayer, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, residual: Tensor
    ) -> Tensor:
        """relu(y * scale + shift + residual)."""
        return fused.adder2d_affine(
            x, w, *layer.sizes, scale=scale, shift=shift, residual=residual, relu=True
        )

    def norm(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        """relu(norm(x) + residual), mean and biased variance."""
        operators = torch.ops.addertrain
        if residual is not None:
            y: tuple[Tensor, ...] = operators.batch_norm_residual_relu(x, residual, weight, bias, eps)
        elif self.has_sums:
            wide = x.double()
            sums = torch.stack((wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))))
            y = operators.batch_norm_relu_of_sums(x, sums, weight, bias, eps, True)
        else:
            y = operators.batch_norm_relu(x, weight, bias, eps, True)
        return y

    def norm_backward(
        self, dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
        eps: float, residual: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """dx, dweight and dbias; followed by the gradient of a residual."""
        operators = torch.ops.addertrain
        if residual is None:
            gradients: tuple[Tensor, ...] = operators.batch_norm_relu_backward(
                dy, x, weight, bias, mean, var, eps, True
            )
            return gradients
        dx, dresidual, dweight, dbias = operators.batch_norm_residual_relu_backward(
            dy, y, x, weight, mean, var, eps
        )
        return dx, dweight, dbias, dresidual

    def distances(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        """sum |x - w| of bytes."""
        return adder2d_int8(x, w, *layer.sizes)

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """In float64, one per tensor."""
        return sums_of_squares(tensors)

    def wait(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def library_of(device_type: str) -> str:
    """The compiled library that serves a device."""
    return "_C_cuda" if device_type == "cuda" else "_C"


def is_compiled(device_type: str) -> bool:
    """Whether there are compiled kernels to compare."""
    return libraries.is_loaded(library_of(device_type))
