"""Batch normalisation with an optional ReLU; every adder layer needs a norm after it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn.tracing import is_watched, leaf_of_fx
from addertrain.ops.fusion import norm_pays
from addertrain.ops.norm import batch_norm_relu, batch_norm_relu_of_sums
from addertrain.ops.norm_residual import batch_norm_residual_relu
from addertrain.ops.precision import needs_float32


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d, followed by a ReLU if `relu`; the same parameters, buffers and state_dict.

    In training on a CPU, channels-last, norm and ReLU are one pass (`ops.norm`), whose sums are right where
    torch's are not: torch 2.14.1 adds a channel up in plain float32 there, and of 3.2 million values about
    100 reads a variance of 0.6 for 1.0. 16 bits go through float32.
    """

    then: tuple[str, ...] = ()
    """Submodules that a call runs on the result, in this order: activations that `convert` found in norms of
    other classes."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, *, relu: bool = False
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.relu = relu

    @leaf_of_fx
    def forward(self, input: Tensor) -> Tensor:
        return self.activated(self.normalised(input, relu=self.relu))

    def activated(self, y: Tensor) -> Tensor:
        """What the submodules in `then` make of a normalised y."""
        for name in self.then:
            y = self.get_submodule(name)(y)
        return y

    def normalised(self, input: Tensor, *, relu: bool) -> Tensor:
        """What a call computes before `then`, followed by a ReLU or not."""
        wide = input.float() if self.training and needs_float32(input) else input
        if self.training and norm_pays(wide):
            weight, bias = self._weight_and_bias_in(wide.dtype)
            y, mean, var = batch_norm_relu(wide, weight, bias, eps=self.eps, relu=relu)
            self._track(mean, var, input.numel() // input.shape[1], self.momentum)
            return y.to(input.dtype)
        y = nn.BatchNorm2d.forward(self, input)
        # In place: neither backward needs the norm's own output.
        return F.relu(y, inplace=True) if relu else y

    def of_sums(self, x: Tensor, sums: Tensor, *, relu: bool) -> Tensor:
        """A training step's `normalised`, with the sums [2, C] of x and x^2 that came with x."""
        assert self.training
        assert self.momentum is not None
        y, mean, var = batch_norm_relu_of_sums(x, sums, self.weight, self.bias, eps=self.eps, relu=relu)
        self._track(mean, var, x.numel() // x.shape[1], self.momentum)
        return y

    def with_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """A training step's relu(forward(x) + residual), if `ops.fusion.end_path` finds it faster."""
        assert self.training
        assert self.momentum is not None
        weight, bias = self._weight_and_bias_in(x.dtype)
        y, mean, var = batch_norm_residual_relu(x, residual, weight, bias, eps=self.eps)
        self._track(mean, var, x.numel() // x.shape[1], self.momentum)
        return y

    def _weight_and_bias_in(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The norm's parameters in the data type of its input, which may be another one than theirs."""
        return self.weight.to(dtype), self.bias.to(dtype)

    @torch.no_grad()
    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The factor and the offset of each channel in evaluation, [C] each."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, torch.addcmul(self.bias, self.running_mean, scale, value=-1.0)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int, momentum: float | None) -> None:
        """Running mean and unbiased variance as torch keeps them: exponential, with None of all batches."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        if count < 2:
            raise ValueError(
                f"BatchNorm2d: expected more than 1 value per channel when training, got {count}; "
                "use a larger batch or evaluation mode."
            )
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), momentum)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


class FrozenBatchNorm2d(BatchNorm2d):
    """BatchNorm2d that is always in evaluation, y = weight * (x - mean) / sqrt(var + eps) + bias.

    All four are constants. `addertrain.nn.freeze_norms` makes these norms. Names in the state dict are
    BatchNorm2d's, so that checkpoints load into either, and into torchvision's `FrozenBatchNorm2d`.
    """

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stays in evaluation, whatever `mode` is."""
        super().train(False)
        return self


def take_over(norm: nn.BatchNorm2d, behind: tuple[str, ...] = ()) -> None:
    """Makes another norm a BatchNorm2d, in place; its parameters, buffers and names stay.

    Args:
        behind: submodules that its code calls behind the norm, first to last. Identities and a ReLU in front
            become part of the norm and leave it; others, and those with hooks, are called as before.
    """
    modules = {name: norm.get_submodule(name) for name in behind}
    rest = [name for name, module in modules.items() if type(module) is not nn.Identity or is_watched(module)]
    relu = bool(rest) and type(modules[rest[0]]) is nn.ReLU and not is_watched(modules[rest[0]])
    norm.__class__ = BatchNorm2d
    norm.relu = relu  # type: ignore[assignment]
    norm.then = tuple(rest[1:] if relu else rest)  # type: ignore[assignment]
    for name in set(behind) - set(rest[int(relu) :]):
        delattr(norm, name)
