"""The layout of sharded parameters: which slice of which tensor on this rank holds which parameter.

An engine that shards training puts other tensors into the optimizer's groups than the parameters it was
built with. `Shards` says where each parameter's elements are on this rank, and over which process groups all
of them are. This file handles unsharded parameters, copies in another precision and FSDP2's DTensors;
`zero_layout` handles DeepSpeed's flat partitions. It knows neither norms nor rates, and refuses tensors that
it does not recognise.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Original:
    """A parameter as the optimizer was built with it: engines empty it, replace it or leave it."""

    param: Tensor
    shape: torch.Size
    numel: int

    @classmethod
    def of(cls, param: Tensor) -> "Original":
        """True sizes, of a parameter too that DeepSpeed's `zero.Init` has emptied."""
        shape = torch.Size(getattr(param, "ds_shape", param.shape))
        return cls(param, shape, shape.numel())


@dataclass(frozen=True)
class Slice:
    """`numel` elements of parameter `index`, from its element `offset` on, in `tensor` from `start` on.

    `is_whole` if this rank's shard of `tensor` holds nothing else, so that it may have any memory layout.
    """

    index: int
    offset: int
    tensor: Tensor
    start: int
    numel: int
    is_whole: bool

    def of(self, values: Tensor) -> Tensor:
        """The slice of `values`, which have the layout of this rank's shard of `tensor`; shares their
        memory.
        """
        return values if self.is_whole else values.narrow(0, self.start, self.numel)


@dataclass(frozen=True)
class Shards:
    """The slices of one optimizer group on this rank.

    Attributes:
        tensors: the tensors in the group; momentum is kept for each of them.
        slices: at most one per parameter; a rank may hold none.
        covered: the parameters that `tensors` hold over all ranks, which are all of the group unless it is
            split.
        groups: processes over which every parameter is sharded; none if each rank holds it unsharded.
    """

    tensors: tuple[Tensor, ...]
    slices: tuple[Slice, ...]
    covered: tuple[int, ...]
    groups: tuple[dist.ProcessGroup, ...] = ()

    def by_index(self, values: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Parameter number -> its slice of `values`, which go by the id of a tensor and may lack some."""
        return {s.index: s.of(values[id(s.tensor)]) for s in self.slices if id(s.tensor) in values}

    def scaled(self, values: Mapping[int, Tensor], factors: Sequence[Tensor]) -> dict[int, Tensor]:
        """Copies of `values` in which parameter number i is multiplied by the 0-dim tensor `factors[i]`."""
        is_whole = all(s.is_whole for s in self.slices)
        copies = dict(values) if is_whole else {key: value.clone() for key, value in values.items()}
        slices = self.by_index(copies)
        if not slices:
            return copies
        factors = [factors[index] for index in slices]
        if not is_whole:
            torch._foreach_mul_(list(slices.values()), factors)
            return copies
        products = torch._foreach_mul(list(slices.values()), factors)
        tensors = [s.tensor for s in self.slices if s.index in slices]
        return copies | {id(tensor): product for tensor, product in zip(tensors, products, strict=True)}


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a DTensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, dtensors()) else tensor


def dtensors() -> "tuple[type[DTensor], ...]":
    """The class of FSDP2's tensors, for `isinstance`; none where nobody has imported it, as fully_shard does.

    Its import takes a third of the time that torch's takes, and training on unsharded parameters does not
    need it.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return (module.DTensor,) if module is not None else ()


def summed(values: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over `group`; tensors that were offloaded to the host are summed on the group's device."""
    device = torch.device("cuda") if dist.get_backend(group) == "nccl" else values.device
    travelling = values.to(device)
    dist.all_reduce(travelling, group=group)
    return travelling.to(values.device)


def find_shards(originals: Sequence[Original], tensors: Sequence[Tensor]) -> Shards:
    """The shards of a group that was built with `originals` and holds `tensors` now.

    Raises:
        ValueError: if the tensors are not recognised, naming the first.
    """
    if len(originals) == len(tensors):
        pairs = list(zip(originals, tensors, strict=True))
        if all(original.param is tensor for original, tensor in pairs):
            if any(isinstance(tensor, dtensors()) for tensor in tensors):
                return _dtensors(tensors)
            if all(original.shape == tensor.shape for original, tensor in pairs):
                return _whole(tensors)
        elif all(_is_copy(original.param, tensor) for original, tensor in pairs):
            return _whole(tensors)
    strangers = [tensor for tensor in tensors if not any(tensor is original.param for original in originals)]
    resized = [o.param for o in originals if o.param.shape != o.shape]
    stranger = next(iter([*strangers, *resized]), None)
    what = "none" if stranger is None else f"a {type(stranger).__name__} of shape {tuple(stranger.shape)}"
    raise ValueError(
        f"optimizer: expected the {len(originals)} parameters it was built with, got {len(tensors)} other or "
        f"resized tensors in their group ({what}); call addertrain.optim.bind(engine) after "
        "deepspeed.initialize, build the optimizer after fully_shard, or use DDP."
    )


def _whole(tensors: Sequence[Tensor]) -> Shards:
    slices = tuple(
        Slice(index, 0, tensor, 0, tensor.numel(), is_whole=True) for index, tensor in enumerate(tensors)
    )
    return Shards(tuple(tensors), slices, tuple(range(len(tensors))))


def _is_copy(param: Tensor, tensor: Tensor) -> bool:
    """Whether `tensor` is a copy of `param` in another precision; reads the values, once, so it may wait."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.shape == param.shape
        and torch.equal(tensor.detach().to(param), param.detach())
    )


def _dtensors(tensors: Sequence[Tensor]) -> Shards:
    """FSDP2: every parameter is sharded along its first dimension, into equal shards except the last ones."""
    from torch.distributed.tensor import Replicate, Shard

    meshes = {(t.device_mesh, t.placements) for t in tensors if isinstance(t, dtensors())}
    if len(meshes) != 1 or not all(isinstance(tensor, dtensors()) for tensor in tensors):
        raise ValueError(
            "optimizer: expected all parameters of a group to be sharded in the same way, got different "
            "meshes or placements, or unsharded tensors among them; apply fully_shard to the whole model "
            "with one mesh."
        )
    mesh, placements = meshes.pop()
    if not all(type(p) is Replicate or (type(p) is Shard and p.dim == 0) for p in placements):
        raise ValueError(
            f"optimizer: expected parameters sharded along dimension 0 or replicated, got {placements}; "
            "tensor parallelism is not supported; use fully_shard only."
        )
    dims = [dim for dim, placement in enumerate(placements) if type(placement) is Shard]
    if len(dims) > 1:
        raise ValueError(
            f"optimizer: expected one sharded mesh dimension, got {placements}; use a mesh of one or two "
            "dimensions."
        )
    slices = []
    for index, tensor in enumerate(tensors):
        part, num_parts = (mesh.get_local_rank(dims[0]), mesh.size(dims[0])) if dims else (0, 1)
        rows = tensor.shape[0] if tensor.dim() else 1
        rows_a_part = -(-rows // num_parts)
        offset = min(part * rows_a_part, rows) * (tensor.numel() // max(rows, 1))
        numel = local(tensor).numel()
        end = min((part + 1) * rows_a_part, rows) * (tensor.numel() // max(rows, 1))
        if offset + numel != end:
            raise ValueError(
                f"optimizer: expected elements {offset} to {end} of {tuple(tensor.shape)} on this rank, got "
                f"{numel}; shard with torch's fully_shard."
            )
        if numel:
            slices.append(Slice(index, offset, tensor, 0, numel, is_whole=True))
    groups = tuple(mesh.get_group(dim) for dim in dims if mesh.size(dim) > 1)
    return Shards(tuple(tensors), tuple(slices), tuple(range(len(tensors))), groups)
