"""Batch normalisation over the images of all ranks: N ranks normalise as one process with the whole batch.

    y = relu(weight * (x - mean) / sqrt(var + eps) + bias),  mean and biased var over N, H, W of every rank

Each rank takes its mean, then the squares about that mean (two passes: nothing large is subtracted from
anything large, however far the mean is from zero), and the ranks' results are merged in float64 by
M = sum_r M_r + n_r (mean_r - mean)^2 (Chan, Golub, LeVeque 1979). One collective forward, one backward; gloo
or NCCL. torch's SyncBatchNorm refuses CPUs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from addertrain.nn.norm import BatchNorm2d, FrozenBatchNorm2d

_Moments = tuple[Tensor, Tensor, Tensor]


class SyncBatchNorm2d(BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all ranks; the same on every rank, bit for bit.

    With one process, in evaluation, or while `is_synchronised` is False it is `BatchNorm2d`.
    """

    is_synchronised = True

    def normalised(self, input: Tensor, *, relu: bool) -> Tensor:
        """What a call computes, followed by a ReLU or not."""
        is_alone = not dist.is_initialized() or dist.get_world_size() == 1
        if not self.training or not self.is_synchronised or is_alone or self.momentum is None:
            return super().normalised(input, relu=relu)
        y, moments = _normalise(input, self.weight, self.bias, self.eps, relu)
        self._track_all(moments, self.momentum)
        return y

    @torch.no_grad()
    def _track_all(self, moments: _Moments, momentum: float) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        count, mean, var = moments
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), momentum)


def synchronise_norms(model: nn.Module) -> None:
    """Make every BatchNorm2d of `model` a SyncBatchNorm2d, in place: parameters, hooks and names stay.

    Frozen norms stay frozen.

    Raises:
        ValueError: if it has other batch norms, which would keep to their rank.
    """
    for name, module in model.named_modules():
        if type(module) in (nn.BatchNorm2d, BatchNorm2d):
            module.relu = getattr(module, "relu", False)
            module.__class__ = SyncBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(
            module, SyncBatchNorm2d | FrozenBatchNorm2d
        ):
            raise ValueError(
                f"synchronise_norms: expected BatchNorm2d layers only, got a {type(module).__name__} at "
                f"{name}; use BatchNorm2d on [N, C, 1, 1], or do not synchronise norms."
            )


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> tuple[Tensor, _Moments]:
    y, count, mean, var = _SyncNorm.apply(x, weight, bias, eps, relu)
    return y, (count, mean, var)


class _SyncNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count, mean, var = _merged(_own_moments(wide))
        inverse_std = (var + eps).rsqrt()
        y = (wide - _per_channel(mean, wide)) * _per_channel(inverse_std * weight, wide)
        y = y.add_(_per_channel(bias, wide)).to(x.dtype)
        y = y.clamp_min_(0) if relu else y
        ctx.save_for_backward(x, weight, count, mean, inverse_std, y if relu else None)
        ctx.mark_non_differentiable(count, mean, var)
        return y, count, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, inverse_std, y = ctx.saved_tensors
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        g = gradients[0].to(wide.dtype)
        g = g if y is None else torch.where(y > 0, g, torch.zeros_like(g))
        x_hat = (wide - _per_channel(mean, wide)) * _per_channel(inverse_std, wide)
        dbias, dweight = g.sum((0, 2, 3)), (g * x_hat).sum((0, 2, 3))
        sums = torch.cat([dbias, dweight]).double()
        dist.all_reduce(sums)
        mean_g, mean_gx = (sums / count).chunk(2)
        dx = g - _per_channel(mean_g, wide) - x_hat * _per_channel(mean_gx, wide)
        dx = dx * _per_channel(inverse_std * weight, wide)
        return dx.to(x.dtype), dweight.to(weight.dtype), dbias.to(weight.dtype), None, None


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, 1, 1)


def _own_moments(x: Tensor) -> Tensor:
    """[1 + 2 C] in float64: this rank's count, means, and sums of squares about them."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    count = x.numel() // x.shape[1]
    return torch.cat([mean.new_full((1,), count), mean, var * count]).double()


def _merged(own: Tensor) -> _Moments:
    """Count, mean and biased variance over all ranks, summed in the ranks' order."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    of_ranks = torch.stack(parts)
    counts = of_ranks[:, :1]
    means, squares = of_ranks[:, 1:].chunk(2, dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    squares = (squares + counts * (means - mean).square()).sum(0)
    return count, mean, squares / count
