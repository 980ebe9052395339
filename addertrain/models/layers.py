"""The layers of the three kinds of network; everything else about a network is the same for all kinds."""

from typing import Literal

from torch import Tensor, nn

from addertrain.nn import (
    AdderConv2d,
    BatchNorm2d,
    BinaryConv2d,
    Conv2d,
    OrderedConv2d,
    OrderedLinear,
    adder_norm,
    adder_norm_residual,
)

Kind = Literal["adder", "conv", "binary"]
"""adder: AdderConv2d. conv: a convolution, for the baseline. binary: XNOR-Net's layer."""

Head = Literal["norm", "linear"]
"""norm: a convolution to the classes and a norm on the logits, the authors'. linear: torchvision's."""


def layer(
    kind: Kind,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    *,
    rectified: bool = True,
) -> nn.Module:
    """One layer without bias, to be followed by a norm; an adder layer starts from N(0, 1), others as in
    torch.

    `rectified`: its input comes from a ReLU (see AdderConv2d).

    Raises:
        ValueError: for another kind.
    """
    if kind == "adder":
        sizes = (in_channels, out_channels, kernel_size, stride, padding)
        return AdderConv2d(*sizes, offset_free=True, rectified=rectified)
    if kind == "conv":
        return Conv2d(in_channels, out_channels, kernel_size, stride, padding)
    if kind == "binary":
        return BinaryConv2d(in_channels, out_channels, kernel_size, stride, padding)
    raise ValueError(f"build_model: expected kind to be adder, conv or binary, got {kind!r}.")


def norm(kind: Kind, num_features: int) -> BatchNorm2d:
    """A norm and its activation: ReLU, or none before binary layers, whose sign is the activation."""
    return BatchNorm2d(num_features, relu=kind != "binary")


def end_of_block(
    kind: Kind, layer_: nn.Module, norm_behind: nn.Module, x: Tensor, identity: Tensor
) -> Tensor:
    """A residual block's last layer and norm, the sum with `identity`, and the block's activation."""
    if kind == "binary":
        return adder_norm(layer_, norm_behind, x) + identity
    return adder_norm_residual(layer_, norm_behind, x, identity)


def last_layers(head: Head, num_features: int, num_classes: int) -> tuple[nn.Module, nn.Module]:
    """The last layer, which is never an adder or binary layer here, and the norm after it.

    Raises:
        ValueError: for another head.
    """
    if head == "norm":
        return OrderedConv2d(num_features, num_classes), BatchNorm2d(num_classes)
    if head == "linear":
        return OrderedLinear(num_features, num_classes), nn.Identity()
    raise ValueError(f"build_model: expected head to be norm or linear, got {head!r}.")


def logits(last: nn.Module, norm_behind: nn.Module, features: Tensor) -> Tensor:
    """Logits (N, classes) of features (N, C, 1, 1)."""
    y: Tensor = last(features.flatten(1) if isinstance(last, nn.Linear) else features)
    return norm_behind(y).flatten(1)
