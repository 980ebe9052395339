"""Converts sharded parameters and optimizer state to unsharded tensors and back, for checkpoints.

    {"state": {number: {"momentum_buffer": tensor}}, "param_groups": [...]}

the structure of torch's `state_dict`, with the groups and parameters that the optimizer was built with. Of a
parameter's state, what has its shape (momentum, AdamW's moments) is cut as it is; the rest (the number of
steps) is the same on every rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.shards import Original, Shards, Slice, local, summed
from addertrain.optim.validation import check_saved_groups, misshapen


def whole_parameters(optimizer: AdderOptimizer, *, keep: bool) -> list[Tensor]:
    """Every parameter as the optimizer steps on it (an engine's fp32 master copy), in the groups' order.

    It is a collective if parameters are sharded; ranks with keep=False take part and get empty tensors.
    """
    found = _whole(optimizer, local, keep=keep)
    return [found[number] for number in sorted(found)]


def parts(optimizer: AdderOptimizer) -> list[Tensor]:
    """The tensors that the optimizer steps on: this rank's shards of all parameters, once each."""
    return [tensor for _, _, shards in _walk(optimizer) for tensor in shards.tensors]


def joined(optimizer: AdderOptimizer, values: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
    """As `whole_parameters`, for other values with the layout of this rank's `parts`."""
    by_id = {id(tensor): value for tensor, value in zip(parts(optimizer), values, strict=True)}
    found = _whole(optimizer, lambda tensor: by_id[id(tensor)], keep=keep)
    return [found[number] for number in sorted(found)]


@torch.no_grad()
def split_(optimizer: AdderOptimizer, values: Sequence[Tensor], whole: Sequence[Tensor]) -> None:
    """The inverse of `joined`: fills this rank's `values` from the unsharded tensor of every parameter."""
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
    """This rank's pieces, and number -> shape of the tensors that the pieces of all ranks form."""

    pieces: list[Piece]
    shapes: dict[int, torch.Size]


def own_parameters(optimizer: AdderOptimizer) -> OwnPieces:
    """What this rank has of the parameters; all ranks together have each element once. No collective."""
    return _own_pieces(optimizer, local)


def own_state(optimizer: AdderOptimizer) -> dict[str, OwnPieces]:
    """The same of the state, by its keys ("momentum_buffer"), as far as there is any yet."""
    return {key: _own_pieces(optimizer, _part_of(optimizer, key)) for key in _element_keys(optimizer)}


def shared_state(optimizer: AdderOptimizer) -> dict[int, dict[str, Any]]:
    """What no rank has a part of, by a parameter's number: AdamW's number of steps."""
    found: dict[int, dict[str, Any]] = {}
    for first, _, shards in _walk(optimizer):
        for tensor, indices in _held(shards):
            state = optimizer.state.get(tensor, {})
            if shared := {key: value for key, value in state.items() if not _is_cut(tensor, value)}:
                found |= {first + index: shared for index in indices}
    return found


def _own_pieces(optimizer: AdderOptimizer, part_of: Callable[[Tensor], Tensor | None]) -> OwnPieces:
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


def _is_cut(tensor: Tensor, value: object) -> bool:
    """Whether a value of a tensor's state lies as the tensor does."""
    return isinstance(value, Tensor) and (value.dim() > 0 or tensor.dim() == 0)


def _element_keys(optimizer: AdderOptimizer) -> list[str]:
    """The keys of all state that is cut as parameters are, in one order on all ranks."""
    tensors = [tensor for _, _, shards in _walk(optimizer) for tensor in shards.tensors]
    return sorted(
        {
            key
            for tensor in tensors
            for key, value in optimizer.state.get(tensor, {}).items()
            if _is_cut(tensor, value)
        }
    )


def _part_of(optimizer: AdderOptimizer, key: str) -> Callable[[Tensor], Tensor | None]:
    def part(tensor: Tensor) -> Tensor | None:
        value = optimizer.state.get(tensor, {}).get(key)
        return None if value is None else local(value)

    return part


def group_settings(optimizer: AdderOptimizer) -> list[dict[str, Any]]:
    """The `param_groups` of a state: settings, and the numbers of the parameters."""
    number, groups = 0, []
    for group, originals in zip(optimizer.built_groups, optimizer.originals, strict=True):
        numbers = list(range(number, number + len(originals)))
        groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": numbers})
        number += len(originals)
    return groups


def whole_state(optimizer: AdderOptimizer, *, keep: bool) -> dict[str, Any]:
    """State of every parameter and the groups' settings; a collective if parameters are sharded.

    Ranks with keep=False take part and get empty tensors.
    """
    state: dict[int, dict[str, Any]] = {}
    for key in _element_keys(optimizer):
        for number, value in _whole(optimizer, _part_of(optimizer, key), keep=keep).items():
            state.setdefault(number, {})[key] = value
    for number, shared in shared_state(optimizer).items():
        state.setdefault(number, {}).update(shared)
    return {"state": state, "param_groups": group_settings(optimizer)}


@torch.no_grad()
def load_whole_state(optimizer: AdderOptimizer, state: Mapping[str, Any]) -> None:
    """Gives every rank its shards of a state of `whole_state`, saved under any sharding.

    Raises:
        ValueError: the state is of other layers or of another rule; nothing is changed then.
    """
    check_saved_groups(state, optimizer.built_groups)
    saved: Mapping[int, Mapping[str, Any]] = state["state"]
    _check_shapes(optimizer, saved)
    for first, _, shards in _walk(optimizer):
        _check_shared(first, shards, saved)
    for group, theirs in zip(optimizer.built_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in theirs.items() if key != "params"})
    for first, _, shards in _walk(optimizer):
        _scatter(optimizer, shards, saved, first)


def _scatter(
    optimizer: AdderOptimizer, shards: Shards, saved: Mapping[int, Mapping[str, Any]], first: int
) -> None:
    for tensor, indices in _held(shards):
        for key, value in _merged(saved, first, indices).items():
            if _is_cut(tensor, value):
                optimizer.state[tensor].setdefault(key, torch.zeros_like(tensor))
            else:
                optimizer.state[tensor][key] = value.clone() if isinstance(value, Tensor) else value
    for each in shards.slices:
        for key, value in saved.get(first + each.index, {}).items():
            if _is_cut(each.tensor, value):
                _copy_slice(each, local(optimizer.state[each.tensor][key]), value)


def _held(shards: Shards) -> list[tuple[Tensor, Sequence[int]]]:
    """Every tensor, and the numbers of the parameters that it holds over all ranks."""
    if len(shards.tensors) == 1:
        return [(shards.tensors[0], shards.covered)]
    return [(tensor, [index]) for tensor, index in zip(shards.tensors, shards.covered, strict=True)]


def _merged(saved: Mapping[int, Mapping[str, Any]], first: int, indices: Sequence[int]) -> dict[str, Any]:
    return {key: value for index in indices for key, value in saved.get(first + index, {}).items()}


def _check_shared(first: int, shards: Shards, saved: Mapping[int, Mapping[str, Any]]) -> None:
    """Parameters that lie in one tensor share its number of steps."""
    for tensor, indices in _held(shards):
        merged = _merged(saved, first, indices)
        for index in indices:
            for key, value in saved.get(first + index, {}).items():
                if not _is_cut(tensor, value) and value != merged[key]:
                    raise ValueError(
                        f"optimizer: expected one {key} for all parameters of a flat partition, got {value} "
                        f"for parameter {first + index} and {merged[key]} for another; some have been "
                        "trained for fewer steps: resume with train.strategy ddp or fsdp."
                    )


def _copy_slice(each: Slice, part: Tensor, whole: Tensor) -> None:
    """Fills the slice's place in `part` from its unsharded tensor."""
    target = each.of(part)
    target.copy_(whole.reshape(-1)[each.offset : each.offset + each.numel].view(target.shape))


def _check_shapes(optimizer: AdderOptimizer, saved: Mapping[int, Mapping[str, Any]]) -> None:
    originals = [original for group in optimizer.originals for original in group]
    for number, values in saved.items():
        shape = originals[number].shape
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape != shape:
                raise misshapen(key, shape, number, value)


@torch.no_grad()
def _whole(
    optimizer: AdderOptimizer, part_of: Callable[[Tensor], Tensor | None], *, keep: bool
) -> dict[int, Tensor]:
    """Number of a parameter -> its unsharded tensor, from this rank's shards."""
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


def _walk(optimizer: AdderOptimizer) -> Iterator[tuple[int, Sequence[Original], Shards]]:
    """Every Shards of every group, behind the number of the group's first parameter and its parameters."""
    first = 0
    for index, originals in enumerate(optimizer.originals):
        for shards in optimizer.shards_of(index) if originals else ():
            yield first, originals, shards
        first += len(originals)
