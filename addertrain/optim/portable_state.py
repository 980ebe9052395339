"""Sharded parameters and momentum as whole tensors, and back: what a checkpoint holds under any sharding.

    {"state": {number: {"momentum_buffer": tensor}}, "param_groups": [...]}

the form of torch's `state_dict`, with the groups and parameters that the optimizer was built with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.shards import Original, Shards, Slice, local, summed
from addertrain.optim.validation import check_saved_groups

_MOMENTUM = "momentum_buffer"


def whole_parameters(optimizer: AdderSGD, *, keep: bool) -> list[Tensor]:
    """Every parameter as the optimizer steps on it (an engine's fp32 master copy), in the groups' order.

    A collective where parameters are sharded. Ranks with keep=False take part and get empty tensors.
    """
    found = _whole(optimizer, local, keep=keep)
    return [found[number] for number in sorted(found)]


def parts(optimizer: AdderSGD) -> list[Tensor]:
    """The tensors that the optimizer steps on: on this rank, the parts of all parameters, once each."""
    return [tensor for _, _, shards in _walk(optimizer) for tensor in shards.tensors]


def joined(optimizer: AdderSGD, values: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
    """As `whole_parameters`, of other values that lie as this rank's `parts` do."""
    by_id = {id(tensor): value for tensor, value in zip(parts(optimizer), values, strict=True)}
    found = _whole(optimizer, lambda tensor: by_id[id(tensor)], keep=keep)
    return [found[number] for number in sorted(found)]


@torch.no_grad()
def split_(optimizer: AdderSGD, values: Sequence[Tensor], whole: Sequence[Tensor]) -> None:
    """The inverse of `joined`: fills this rank's `values` from every parameter's whole tensor."""
    by_id = {id(tensor): value for tensor, value in zip(parts(optimizer), values, strict=True)}
    for first, _, shards in _walk(optimizer):
        for each in shards.slices:
            _copy_slice(each, by_id[id(each.tensor)], whole[first + each.index])


@dataclass(frozen=True)
class Piece:
    """Flat elements of parameter `number` from its element `offset` on; shares memory where it can."""

    number: int
    offset: int
    values: Tensor


@dataclass(frozen=True)
class OwnPieces:
    """This rank's pieces, and number -> shape of all that the pieces of all ranks make up."""

    pieces: list[Piece]
    shapes: dict[int, torch.Size]


def own_parameters(optimizer: AdderSGD) -> OwnPieces:
    """What this rank has of the parameters; all ranks together have each element once. No collective."""
    return _own_pieces(optimizer, local)


def own_momentum(optimizer: AdderSGD) -> OwnPieces:
    """The same of the momentum, as far as there is any yet."""
    return _own_pieces(optimizer, lambda tensor: _momentum(optimizer, tensor))


def _own_pieces(optimizer: AdderSGD, part_of: Callable[[Tensor], Tensor | None]) -> OwnPieces:
    found = OwnPieces([], {})
    is_first_rank = not dist.is_initialized() or dist.get_rank() == 0
    for first, originals, shards in _walk(optimizer):
        if part_of(shards.tensors[0]) is None:
            continue
        found.shapes.update({first + i: originals[i].shape for i in shards.covered})
        if not shards.groups and not is_first_rank:
            continue  # every rank has all of them
        for each in shards.slices:
            part = part_of(each.tensor)
            assert part is not None, "momentum comes to all tensors of a group in one step"
            found.pieces.append(Piece(first + each.index, each.offset, each.of(part).reshape(-1)))
    return found


def _momentum(optimizer: AdderSGD, tensor: Tensor) -> Tensor | None:
    buffer = optimizer.state.get(tensor, {}).get(_MOMENTUM)
    return None if buffer is None else local(buffer)


def group_settings(optimizer: AdderSGD) -> list[dict[str, Any]]:
    """The `param_groups` of a state: settings, and the numbers of the parameters."""
    number, groups = 0, []
    for group, originals in zip(optimizer.built_groups, optimizer.originals, strict=True):
        numbers = list(range(number, number + len(originals)))
        groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": numbers})
        number += len(originals)
    return groups


def whole_state(optimizer: AdderSGD, *, keep: bool) -> dict[str, Any]:
    """Momentum of every parameter and the groups' settings; a collective where parameters are sharded.

    Ranks with keep=False take part and get empty tensors.
    """
    found = _whole(optimizer, lambda tensor: _momentum(optimizer, tensor), keep=keep)
    return {
        "state": {number: {_MOMENTUM: buffer} for number, buffer in found.items()},
        "param_groups": group_settings(optimizer),
    }


@torch.no_grad()
def load_whole_state(optimizer: AdderSGD, state: Mapping[str, Any]) -> None:
    """Give every rank its part of a state of `whole_state`, saved under any sharding.

    Raises:
        ValueError: the state is of other layers or of another rule; nothing is changed then.
    """
    check_saved_groups(state, optimizer.built_groups)
    _check_shapes(optimizer, state["state"])
    for group, saved in zip(optimizer.built_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "params"})
    for first, _, shards in _walk(optimizer):
        if any(first + i in state["state"] for i in shards.covered):
            for tensor in shards.tensors:
                optimizer.state[tensor].setdefault(_MOMENTUM, torch.zeros_like(tensor))
        _scatter(optimizer, shards, state["state"], first)


def _scatter(optimizer: AdderSGD, shards: Shards, saved: Mapping[int, Any], first: int) -> None:
    for each in shards.slices:
        if (values := saved.get(first + each.index)) is not None:
            _copy_slice(each, local(optimizer.state[each.tensor][_MOMENTUM]), values[_MOMENTUM])


def _copy_slice(each: Slice, part: Tensor, whole: Tensor) -> None:
    """Fills the slice's place in `part` from the whole tensor that it belongs to."""
    target = each.of(part)
    target.copy_(whole.reshape(-1)[each.offset : each.offset + each.numel].view(target.shape))


def _check_shapes(optimizer: AdderSGD, saved: Mapping[int, Any]) -> None:
    originals = [original for group in optimizer.originals for original in group]
    for number, values in saved.items():
        if values[_MOMENTUM].shape != originals[number].shape:
            raise ValueError(
                f"AdderSGD: expected momentum of shape {tuple(originals[number].shape)} for parameter "
                f"{number}, got {tuple(values[_MOMENTUM].shape)}; load a checkpoint of the same model and "
                "recipe."
            )


@torch.no_grad()
def _whole(
    optimizer: AdderSGD, part_of: Callable[[Tensor], Tensor | None], *, keep: bool
) -> dict[int, Tensor]:
    """Number of a parameter -> its whole tensor, of this rank's parts that lie as those it steps on do."""
    found: dict[int, Tensor] = {}
    for first, originals, shards in _walk(optimizer):
        slices = {each.index: each for each in shards.slices}
        for covered in shards.covered:
            each = slices.get(covered)
            part = part_of(shards.tensors[0] if each is None else each.tensor)
            if part is None:
                continue
            if each is not None and each.is_whole and not shards.groups:
                found[first + covered] = part
                continue
            whole = part.new_zeros(originals[covered].numel)
            if each is not None:
                whole[each.offset : each.offset + each.numel] = each.of(part).reshape(-1)
            for group in shards.groups:
                # Bytes, of which all ranks but one have zero: exact, down to the sign of a zero.
                whole = summed(whole.view(torch.uint8), group).view(part.dtype)
            found[first + covered] = whole.view(originals[covered].shape) if keep else part.new_empty(0)
    return found


def _walk(optimizer: AdderSGD) -> Iterator[tuple[int, Sequence[Original], Shards]]:
    """Every Shards of every group, behind the number of the group's first parameter and its parameters."""
    first = 0
    for index, originals in enumerate(optimizer.originals):
        for shards in optimizer.shards_of(index) if originals else ():
            yield first, originals, shards
        first += len(originals)
