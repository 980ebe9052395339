"""The smooth network under DDP, FSDP2 (`fully_shard`) and HSDP, on ranks of `tests.ranks`."""

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from addertrain.optim import AdderOptimizer, load_whole_state, whole_parameters, whole_state
from addertrain.optim.shards import local
from tests.optim.smooth_net import (
    NUM_STEPS,
    Rule,
    loss_of,
    named_parameters,
    new_optimizer,
    share,
    smooth_net,
)


def sharded_net(dtype: torch.dtype, mesh: DeviceMesh, *, batch_norm: bool = False) -> nn.Sequential:
    net = smooth_net(dtype, batch_norm=batch_norm)
    for layer in (3, 6, 11):
        fully_shard(net[layer], mesh=mesh)
    return fully_shard(net, mesh=mesh)


def train_steps(net: nn.Module, optimizer: AdderOptimizer, dtype: torch.dtype, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(net, *share(step, dist.get_rank(), dist.get_world_size(), dtype)).backward()
        optimizer.step()


def named_whole(net: nn.Module, optimizer: AdderOptimizer) -> dict[str, Tensor]:
    names = {id(param): name for name, param in net.named_parameters()}
    order = [names[id(original.param)] for group in optimizer.originals for original in group]
    return dict(zip(order, whole_parameters(optimizer, keep=True), strict=True))


def train_fsdp(
    dtype: torch.dtype, shape: tuple[int, ...], batch_norm: bool = False, rule: Rule = "sgd"
) -> dict[str, Tensor]:
    """On a mesh of `shape`: (ranks,) for FSDP2, (replicas, shards) for HSDP."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replica", "shard")[-len(shape) :])
    net = sharded_net(dtype, mesh, batch_norm=batch_norm)
    optimizer = new_optimizer(net, rule)
    train_steps(net, optimizer, dtype, range(NUM_STEPS))
    return named_whole(net, optimizer)


def train_ddp(dtype: torch.dtype, batch_norm: bool, rule: Rule = "sgd") -> dict[str, Tensor]:
    net = smooth_net(dtype, batch_norm=batch_norm)
    optimizer = new_optimizer(net, rule)
    train_steps(DistributedDataParallel(net), optimizer, dtype, range(NUM_STEPS))
    return named_parameters(net)


def train_and_save(num_steps: int, rule: Rule = "sgd") -> dict[str, Any]:
    net = sharded_net(torch.float64, init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = new_optimizer(net, rule)
    train_steps(net, optimizer, torch.float64, range(num_steps))
    live = [*net.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
    before = [local(tensor).detach().clone() for tensor in live]
    state = copy.deepcopy(whole_state(optimizer, keep=dist.get_rank() == 0))
    assert all(torch.equal(local(tensor), old) for tensor, old in zip(live, before, strict=True))
    return {"params": named_whole(net, optimizer), "state": state}


def load_and_train(saved: dict[str, Any], num_steps: int, rule: Rule = "sgd") -> dict[str, Tensor]:
    """Goes on from what another number of ranks saved."""
    net = smooth_net(torch.float64)
    net.load_state_dict(saved["params"])
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (3, 6):
        fully_shard(net[layer], mesh=mesh)
    fully_shard(net, mesh=mesh)
    optimizer = new_optimizer(net, rule)
    load_whole_state(optimizer, saved["state"])
    train_steps(net, optimizer, torch.float64, range(num_steps, NUM_STEPS))
    return named_whole(net, optimizer)


def collectives_of_a_step() -> int:
    """All-reduces of one `optimizer.step`."""
    net = sharded_net(torch.float32, init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = new_optimizer(net)
    loss_of(net, *share(0, dist.get_rank(), dist.get_world_size(), torch.float32)).backward()
    calls = []
    plain = dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: calls.append(plain(*args, **kwargs))
    optimizer.step()
    dist.all_reduce = plain
    return len(calls)
