"""Freezes norms: from then on a constant factor and offset for each channel, whatever the batch is.

Detection and segmentation networks are often trained with one or two large images per rank, whose statistics
say little; convolutions then keep the statistics of an earlier training. An adder layer needs statistics of
its present filters: its response has a standard deviation of tens to hundreds, and moves with every step.
"""

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from addertrain.nn.fusing.equivalents import modules_behind
from addertrain.nn.norm import BatchNorm2d, FrozenBatchNorm2d, take_over
from addertrain.nn.recalibrate import recomputed


def freeze_norms(model: nn.Module, batches: Iterable[Any], *, group: dist.ProcessGroup | None = None) -> None:
    """Recomputes the statistics of every BatchNorm2d of `model` on `batches` and freezes the norms, in place.

    Statistics, weights and biases are constants from then on, in training too, so that a step with one image
    computes what a step with many does. The norms become `FrozenBatchNorm2d`, also those of torchvision's
    class of that name; norms that were frozen get statistics of the present filters. Call it after a training
    with batch statistics, and before DDP wraps the network and the optimizer is made.

    Args:
        batches: inputs as the model takes them in evaluation (lists of images for a detector); they pass
            through once.
        group: pool the statistics over its ranks, each giving its own batches; all of them must call this.

    Raises:
        ValueError: if the model has no such norms, or other batch norms too, or if no rank gave a batch. The
            network then computes what it did before.
    """
    _take_over_others(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    others = {type(module).__name__ for module in model.modules() if isinstance(module, _BatchNorm)} - {
        type(norm).__name__ for norm in norms
    }
    behind = {norm: _behind(norm) for norm in norms}
    others |= {type(norm).__name__ for norm, names in behind.items() if names is None}
    if others or not norms or any(norm.running_mean is None or not norm.affine for norm in norms):
        found = ", ".join(sorted(others)) or ("others" if norms else "none")
        raise ValueError(
            "freeze_norms: expected BatchNorm2d layers with weights and running statistics only, got "
            f"{found}; use BatchNorm2d(channels)."
        )
    for norm, names in behind.items():
        if names is not None and not isinstance(norm, BatchNorm2d):
            take_over(norm, names)
    with recomputed(model, list(norms), batches, group):
        statistics = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    for norm, buffers in zip(norms, statistics, strict=True):
        norm.__class__ = FrozenBatchNorm2d
        norm.load_state_dict(buffers, strict=False)
        norm.requires_grad_(False).eval()


def _behind(norm: nn.BatchNorm2d) -> tuple[str, ...] | None:
    """What a norm calls behind itself; None for a class whose code is not only that."""
    is_known = type(norm) is nn.BatchNorm2d or isinstance(norm, BatchNorm2d)
    return () if is_known else modules_behind(norm)


def _take_over_others(model: nn.Module) -> None:
    """Puts our frozen norm in the place of each of torchvision's, with its numbers."""
    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if _is_anothers(norm):
                own = FrozenBatchNorm2d(len(norm.weight), norm.eps).to(norm.weight)
                own.load_state_dict(norm.state_dict(), strict=False)
                setattr(module, name, own.requires_grad_(False).eval())


def _is_anothers(norm: nn.Module) -> TypeGuard[Any]:
    """Whether it is a frozen norm of torchvision, which nothing here imports, or of a copy of that class."""
    buffers = {"weight", "bias", "running_mean", "running_var"}
    return type(norm).__name__ == "FrozenBatchNorm2d" and buffers == set(norm._buffers)
