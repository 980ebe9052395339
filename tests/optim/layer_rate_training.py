"""AdamW and Lion under AdaptiveLayerRate on ranks of `tests.ranks`, many cases in one set of processes."""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from addertrain.nn import param_groups
from addertrain.optim import AdaptiveLayerRate, bind
from addertrain.train.strategies.zero import import_deepspeed
from tests.optim.deepspeed_scripts import resumed
from tests.optim.deepspeed_training import BASE, config, finds_state, train_engine
from tests.optim.fsdp_training import load_and_train, sharded_net, train_and_save, train_ddp, train_fsdp
from tests.optim.smooth_net import NUM_STEPS, Rule, smooth_net

SAVED_AT = 7


def by_torch(rule: Rule) -> dict[str, dict[str, Tensor]]:
    """Parameters after training in float64: DDP, FSDP2, and FSDP2 from what other ranks' FSDP2 saved."""
    shape = (dist.get_world_size(),)
    saved = [train_and_save(SAVED_AT, rule)]
    dist.broadcast_object_list(saved, src=0)  # the first rank has it whole
    return {
        "ddp": train_ddp(torch.float64, False, rule),
        "fsdp": train_fsdp(torch.float64, shape, False, rule),
        "fsdp, resumed": load_and_train(copy.deepcopy(saved[0]), SAVED_AT, rule),
    }


def by_engines(rule: Rule) -> dict[str, dict[str, Tensor]]:
    """Parameters after training in float32: DDP, FSDP2 and DeepSpeed's stages."""
    shape = (dist.get_world_size(),)
    found = {f"stage {stage}": train_engine(config(stage), NUM_STEPS, rule) for stage in (0, 1, 2, 3)}
    found["ddp"] = train_ddp(torch.float32, False, rule)
    found["fsdp"] = train_fsdp(torch.float32, shape, False, rule)
    return found


def refusals() -> dict[str, str]:
    """What is said of Adafactor, which needs whole layers, over FSDP2's shards and in an engine."""
    said = {}
    net = sharded_net(torch.float32, init_device_mesh("cpu", (dist.get_world_size(),)))
    try:
        AdaptiveLayerRate(param_groups(net, weight_decay=0.0), torch.optim.Adafactor)
    except ValueError as error:
        said["fsdp"] = str(error)
    model = smooth_net(torch.float32)
    optimizer = AdaptiveLayerRate(param_groups(model, weight_decay=0.0), torch.optim.Adafactor)
    engine, *_ = import_deepspeed("cpu").initialize(
        model=model, optimizer=optimizer, dist_init_required=False,
        config={**copy.deepcopy(BASE), "zero_optimization": {"stage": 2}},
    )  # fmt: skip
    try:
        bind(engine)
    except ValueError as error:
        said["stage 2"] = str(error)
    engine.destroy()
    return said


def answers(folder: Path) -> dict[str, Any]:
    """All questions on two ranks."""
    return {
        "adamw": by_torch("adamw"),
        "engines": by_engines("adamw"),
        "resumed": {stage: resumed(config(stage), folder / f"stage_{stage}", "adamw") for stage in (2,)},
        "found": finds_state("adamw", "exp_avg"),
        "refused": refusals(),
    }
