"""Matching of intermediate features through kernels, following the outline of PKKD (arXiv 2009.13044).

An adder layer's responses spread like a Laplace distribution, a convolution's like a Gaussian, so features
are not compared directly: a kernel maps both to (0, inf), and a 1x1 convolution and a norm for each network
map them to a common space, where the distance is a mean square.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

_MAX_WIDTH = 256  # of the common space: at 2048 channels the projections would outweigh the network


def kernel(features: Tensor, width: float) -> Tensor:
    """exp(-z / (2 width^2)), in float32: of an l1 distance z its Laplace kernel."""
    return torch.exp(features.float() / (-2.0 * width * width))


class FeatureMatching(nn.Module):
    """The distance between a student's and a teacher's features, with projections that learn to reduce it.

    Args:
        widths: channels of each pair of features, by the name of the layer.
        kernel_width: see `kernel`.
    """

    def __init__(self, widths: dict[str, int], *, kernel_width: float) -> None:
        super().__init__()
        self.names = list(widths)
        self.kernel_width = kernel_width
        self.student = nn.ModuleList(_projection(width) for width in widths.values())
        self.teacher = nn.ModuleList(_projection(width) for width in widths.values())

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
        """Mean over the layers of the mean square distance; the teacher's features get no gradient."""
        distances = []
        for name, ours, theirs in zip(self.names, self.student, self.teacher, strict=True):
            s = ours(kernel(student[name], self.kernel_width))
            t = theirs(kernel(teacher[name].detach(), self.kernel_width))
            distances.append(functional.mse_loss(s, t))
        return torch.stack(distances).mean()


def _projection(width: int) -> nn.Module:
    common = min(width, _MAX_WIDTH)
    return nn.Sequential(nn.Conv2d(width, common, 1, bias=False), nn.BatchNorm2d(common))


def matched_layers(student: nn.Module, teacher: nn.Module, *, num_classes: int) -> dict[str, int]:
    """The layers to match and their channels: for each width the last norm with the same name in both
    networks. The norm on the logits is excluded, because logits have a loss of their own.

    Raises:
        ValueError: the networks have no common norm.
    """
    theirs = dict(teacher.named_modules())
    last_of: dict[int, str] = {}
    for name, module in student.named_modules():
        partner = theirs.get(name)
        if not isinstance(module, _BatchNorm) or not isinstance(partner, _BatchNorm):
            continue
        if module.num_features == partner.num_features != num_classes:
            last_of[module.num_features] = name
    if not last_of:
        raise ValueError(
            "distillation: expected two networks with batch norms of the same name and width, got none; "
            "set distill.feature_weight to 0, or choose a teacher of the same architecture"
        )
    return {name: width for width, name in last_of.items()}


class Recorder:
    """Keeps the outputs of a network's named layers while it is `recording`."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        self._is_on = False
        self._features: dict[str, Tensor] = {}
        for name in names:
            network.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: self._keep(name, output)
            )

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """The features, filled by a forward pass within the block and released after it."""
        self._is_on, self._features = True, {}
        try:
            yield self._features
        finally:
            self._is_on, self._features = False, {}

    def _keep(self, name: str, output: Tensor) -> None:
        if self._is_on:
            self._features[name] = output
