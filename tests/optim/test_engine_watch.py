"""Outputs of a forward pass that are made of each other, found in the graph."""

from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.optim.engine_watch import path_between_outputs


def _root() -> Tensor:
    return torch.ones(4, requires_grad=True)


def _chain(x: Tensor) -> tuple[Tensor, Tensor]:
    first = x * 2
    return first, (first + 1).exp().sum()


def test_one_output_alone_has_no_path() -> None:
    assert not path_between_outputs((), _root().exp())


def test_heads_side_by_side_have_no_path() -> None:
    trunk = _root() * 3
    assert not path_between_outputs((), {"a": trunk.exp(), "b": [trunk.sin()]})
    assert not path_between_outputs((), (_root() * 3).chunk(2))


@pytest.mark.parametrize("wrap", [tuple, list, lambda pair: {"features": pair[0], "more": [pair[1]]}])
def test_an_output_behind_another_is_found(wrap: Any) -> None:
    assert path_between_outputs((), wrap(_chain(_root())))


def test_a_tensor_returned_twice_and_a_view_of_one() -> None:
    y = _root().exp()
    assert path_between_outputs((), (y, y))
    z = _root().exp()
    assert path_between_outputs((), (z, z.view(2, 2)))


def test_what_carries_no_gradient_is_no_output() -> None:
    first, last = _chain(_root())
    assert not path_between_outputs((), (first.detach(), last, 3, None))


def test_an_output_that_goes_in_again_is_found() -> None:
    first = _root().exp()
    assert not path_between_outputs((torch.ones(3),), first)
    assert path_between_outputs(({"x": first * 2},), (first * 2).sin())
