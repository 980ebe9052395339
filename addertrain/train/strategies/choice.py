"""The strategies by name: one process, data parallel, or sharded.

ddp     unsharded on every rank; gradients are averaged
zero1   momentum is sharded (DeepSpeed)
zero2   momentum and gradients
zero3   momentum, gradients and parameters
fsdp    the same by torch's fully_shard
"""

from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy

from addertrain.recipe import TrainRecipe
from addertrain.train.processes import World
from addertrain.train.strategies.data_parallel import DataParallel
from addertrain.train.strategies.fsdp import FullySharded
from addertrain.train.strategies.portable import NamedState
from addertrain.train.strategies.precision import precision_settings
from addertrain.train.strategies.zero import Zero, Zero3


class SingleProcess(NamedState, SingleDeviceStrategy):
    """One process on one device."""


def make_strategy(name: str, world: World, checkpoint_io: CheckpointIO | None = None) -> Strategy:
    """Builds the strategy that `train.strategy` names; "auto" is ddp under a launcher, otherwise one
    process.
    """
    if name == "auto" and not world.is_launched:
        device = torch.device("cuda", 0) if world.device_type == "cuda" else torch.device("cpu")
        return SingleProcess(device=device, checkpoint_io=checkpoint_io)
    common: dict[str, Any] = {
        "checkpoint_io": checkpoint_io,
        # Named, not detected: on a Slurm node Lightning would otherwise start processes of its own.
        "cluster_environment": TorchElasticEnvironment() if world.is_launched else LightningEnvironment(),
        "process_group_backend": "nccl" if world.device_type == "cuda" else "gloo",
    }
    match name:
        case "zero1" | "zero2":
            return Zero(stage=int(name[-1]), **common)
        case "zero3":
            return Zero3(stage=3, **common)
        case "fsdp":
            return FullySharded(**common)
    return DataParallel(
        **common,
        broadcast_buffers=False,  # BatchNorm per rank, as in the papers
        gradient_as_bucket_view=True,
    )


def trainer_settings(
    train: TrainRecipe, world: World, checkpoint_io: CheckpointIO | None = None
) -> dict[str, Any]:
    """The arguments of Lightning's Trainer that say where and how a recipe runs."""
    return {
        "strategy": make_strategy(train.strategy, world, checkpoint_io),
        "accelerator": world.device_type,
        "devices": world.local_size,
        "num_nodes": world.num_nodes,
        **precision_settings(train.precision, train.strategy, world),
    }
