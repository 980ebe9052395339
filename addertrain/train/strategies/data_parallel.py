"""DistributedDataParallel with the same order of summation over ranks from the first step of a process on.

An all-reduce over three or more ranks adds an element in an order that follows from its place in its bucket.
torch fills the buckets again after the first backward pass of a process, in the order in which its gradients
were ready, so the first step after a resumption would sum in another order than the same step of an
uninterrupted process. Here the first backward pass computes nothing, and its order depends only on the model.
"""

from collections.abc import Callable

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from addertrain.train.strategies.portable import NamedState


class DataParallel(NamedState, DDPStrategy):
    """DistributedDataParallel: gradients are averaged over ranks, BatchNorm's buffers differ between
    ranks.
    """

    def configure_ddp(self) -> None:
        """Wraps the module; every rank has to call it."""
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        settle_buckets(self.model)
        for parameter in _reduced(self.model):
            if parameter.dim() > 1 and 1 in parameter.shape:
                parameter.register_hook(in_strides_of(parameter))


@torch.enable_grad()
def settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Makes `wrapped` fill its buckets from the last parameter to the first, from the next forward pass on.

    Backward passes have gradients ready in about that order, so communication still overlaps with them. A
    collective: one all-reduce of all gradients. It comes before `wrapped`'s first backward pass, and leaves
    parameters and buffers as they are and no gradients.
    """
    network, reduced = wrapped.module, _reduced(wrapped)
    wrapped.module = _Total(reduced)
    try:
        # Through the wrapper, or it would not prepare to reduce; on GPUs it wants an argument to move.
        wrapped(None).backward()
    finally:
        wrapped.module = network
    for parameter in reduced:
        parameter.grad = None


def in_strides_of(parameter: Tensor) -> Callable[[Tensor], Tensor | None]:
    """A hook that gives a gradient its parameter's strides where they differ in dimensions of size 1 only.

    Memory is the same under both. torch's 1x1 convolutions, of channels-last images, return such gradients,
    and DistributedDataParallel warns of a slow copy that there is not.
    """
    shape, strides = parameter.shape, parameter.stride()
    wide = [k for k, size in enumerate(shape) if size > 1]

    def restride(gradient: Tensor) -> Tensor | None:
        found = gradient.stride()
        if found == strides or any(found[k] != strides[k] for k in wide):
            return None  # as it is; autograd copies what lies otherwise
        return gradient.as_strided(shape, strides)

    return restride


class _Total(nn.Module):
    """The sum over tensors of another module, whose gradients come from the last tensor to the first."""

    def __init__(self, tensors: list[nn.Parameter]) -> None:
        super().__init__()
        self._tensors = tuple(tensors)

    def forward(self, _: None) -> Tensor:
        total = self._tensors[0].sum()
        for tensor in self._tensors[1:]:
            total = total + tensor.sum()
        return total


def _reduced(wrapped: DistributedDataParallel) -> list[nn.Parameter]:
    return [parameter for parameter in wrapped.module.parameters() if parameter.requires_grad]
