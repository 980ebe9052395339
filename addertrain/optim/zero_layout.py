"""DeepSpeed's flat partitions read as `Shards`; attributes only, DeepSpeed itself is not imported.

Stages 1, 2 and BF16_Optimizer: a group's parameters one after the other, padded, split into equal partitions:
rank r holds [r P, (r + 1) P) of the concatenation, so a layer can be split anywhere. Stage 3: every parameter
split into equal shards, the last one padded; rank r holds shard r of all of them one after the other.

Every slice is compared with the parameter's own values before it is used.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim.shards import Original, Shards, Slice

_CAUSE = "set zero_optimization.round_robin_gradients to false, or use a DeepSpeed that addertrain knows"


def partition_shards(originals: Sequence[Original], flat: Tensor, group: dist.ProcessGroup) -> Shards:
    """Stages 1 and 2 and BF16_Optimizer: the shards of a group whose partition on this rank is `flat`.

    Raises:
        ValueError: the partition does not hold what DeepSpeed's own tables say.
    """
    slices = []
    for index, original in enumerate(originals):
        mapping: Any = getattr(original.param, "_hp_mapping", None)
        if mapping is None:  # this rank's partition holds nothing of it
            continue
        place, offset = mapping.hp_fragment_address, mapping.lp_fragment_address.start
        values = original.param.detach().reshape(-1)[offset : offset + place.numel]
        slices.append(_checked(Slice(index, offset, flat, place.start, place.numel, is_whole=False), values))
    return Shards((flat,), tuple(slices), tuple(range(len(originals))), _spread(group))


def partitioned_parameters(originals: Sequence[Original], engine_optimizer: Any) -> list[Shards]:
    """Stage 3: the shards of a group, one for each sub-group into which DeepSpeed has split it.

    Raises:
        ValueError: a partition does not hold what DeepSpeed's own tables say.
    """
    flats: Sequence[Tensor] = engine_optimizer.fp32_partitioned_groups_flat
    slices: dict[int, list[Slice]] = {}
    covered: dict[int, list[int]] = {}
    group_of: dict[int, dist.ProcessGroup] = {}
    for index, original in enumerate(originals):
        param: Any = original.param
        if not param.requires_grad:
            continue
        sub_group, start, part = engine_optimizer.grad_position[engine_optimizer.get_param_id(param)]
        covered.setdefault(sub_group, []).append(index)
        group_of[sub_group] = param.ds_process_group
        offset = part * dist.get_rank(param.ds_process_group)
        if (numel := min(part, original.numel - offset)) > 0:
            found = Slice(index, offset, flats[sub_group], start, numel, is_whole=False)
            slices.setdefault(sub_group, []).append(_checked(found, param.ds_tensor.detach()[:numel]))
    return [
        Shards(
            (flats[sub_group],),
            tuple(slices.get(sub_group, [])),
            tuple(indices),
            _spread(group_of[sub_group]),
        )
        for sub_group, indices in covered.items()
    ]


def _checked(found: Slice, values: Tensor) -> Slice:
    """`found`, if the partition holds the parameter's own values there; reads both, once."""
    in_partition = found.of(found.tensor.detach()).to(dtype=values.dtype, device=values.device)
    if not torch.equal(in_partition, values):
        raise ValueError(
            f"optimizer: expected elements {found.offset} to {found.offset + found.numel} of parameter "
            f"{found.index} at {found.start} of DeepSpeed's flat partition, got other values; {_CAUSE}."
        )
    return found


def _spread(group: dist.ProcessGroup) -> tuple[dist.ProcessGroup, ...]:
    return (group,) if dist.get_world_size(group) > 1 else ()
