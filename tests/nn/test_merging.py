"""Converted networks refuse to have their adder layers merged into convolutions."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, convert
from tests.optional import needs_timm


class Branches(nn.Module):
    """A block that can be merged into one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        merged = nn.Conv2d(4, 4, 3, padding=1)
        merged.weight.copy_(self.conv.weight * self.norm.weight[:, None, None, None])
        return merged


class Joins(Branches):
    """A block with a step of its forward pass under the same name."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(super().forward(x), x)

    def fuse(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return y + x


def test_the_method_is_refused_in_the_copy_alone() -> None:
    model = nn.Sequential(Branches())
    network = convert(model, example=torch.randn(2, 4, 6, 6))

    for each in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with pytest.raises(
            RuntimeError, match="got a call of fuse of 0, which would multiply by their filters"
        ):
            each[0].fuse()
    assert isinstance(model[0].fuse(), nn.Conv2d)
    assert isinstance(network[0].conv, AdderConv2d)


def test_methods_of_the_forward_pass_and_of_kept_modules_stay() -> None:
    network = convert(nn.ModuleDict({"joins": Joins(), "kept": Branches()}), keep=("kept",))

    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(
        network["joins"].eval()(x), network["joins"].norm(network["joins"].conv(x)) + x
    )
    assert isinstance(network["kept"].fuse(), nn.Conv2d)


@needs_timm
def test_timm_does_not_make_a_convolution_of_an_adder_layer() -> None:
    from timm.utils.model import reparameterize_model

    from tests.nn.zoo import build, converted

    network = converted(build("timm:mobileone_s1"), torch.randn(2, 3, 64, 64))

    with pytest.raises(RuntimeError, match="got a call of reparameterize"):
        reparameterize_model(network)
