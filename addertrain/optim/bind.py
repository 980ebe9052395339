"""`bind(engine)`: makes our optimizers exact under a DeepSpeed engine, or says why they cannot be.

Reads the engine by its attributes; DeepSpeed itself is not imported. Facts are of DeepSpeed 0.19.
"""

from typing import Any

import torch
from torch import Tensor

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.engine_watch import BackwardWatch
from addertrain.optim.shards import Shards
from addertrain.optim.zero_layout import partition_shards, partitioned_parameters

_FLAT = ("DeepSpeedZeroOptimizer", "BF16_Optimizer")
_PARTITIONED = "DeepSpeedZeroOptimizer_Stage3"
_COPIES = "FP16_UnfusedOptimizer"
_WHOLE = ("AdderSGD", "AdaptiveLayerRate", _COPIES)
_WATCH = "_addertrain_watch"


def bind(engine: Any) -> AdderOptimizer:
    """Tell the optimizer of `engine` where its layers lie; call it after `deepspeed.initialize`.

    Works out which slice of DeepSpeed's flat partitions belongs to which layer, compares each with the
    layer's values, makes the momentum and lets DeepSpeed link it for its own checkpoints. Existing momentum
    stays: `engine.load_checkpoint` may come before or after, and a second call changes nothing. Later steps
    cost one all-reduce of the vector of squared norms, and none at stage 0; one whose gradients DeepSpeed has
    lost or divided twice raises ValueError. Returns the optimizer.

    Raises:
        TypeError: `engine` is no DeepSpeed engine, or its optimizer no AdderSGD or
            AdaptiveLayerRate.
        ValueError: a setting under which the result would be wrong, by its name in the configuration.
    """
    if not hasattr(engine, "basic_optimizer") or not hasattr(engine, "zero_optimization_stage"):
        raise TypeError(
            f"bind: expected the engine that deepspeed.initialize returned, got {type(engine).__name__}; "
            "models under DDP or fully_shard need no bind."
        )
    optimizer = engine.basic_optimizer
    if not isinstance(optimizer, AdderOptimizer):
        raise TypeError(
            f"bind: expected an engine with AdderSGD, got {type(optimizer).__name__}; pass "
            "optimizer=AdderSGD(param_groups(model)) to deepspeed.initialize."
        )
    _check_settings(engine, optimizer)
    kind = type(engine.optimizer).__name__
    if kind == _COPIES and not (optimizer.is_bound or optimizer.is_loaded):
        _restore_copies(optimizer)
    for index, shards in _shards(engine.optimizer, optimizer, kind).items():
        optimizer.install(index, shards)
    if kind in _FLAT or kind == _PARTITIONED:
        optimizer.prepare_state()
        if not hasattr(engine, _WATCH):
            setattr(engine, _WATCH, BackwardWatch(engine))
    if kind in _FLAT:
        _link_state(engine.optimizer, optimizer)
    return optimizer


def _shards(engine_optimizer: Any, optimizer: AdderOptimizer, kind: str) -> dict[int, list[Shards]]:
    """The shards of every group that is not empty, by its number."""
    present = [index for index, originals in enumerate(optimizer.originals) if originals]
    if kind in _WHOLE:
        return {index: optimizer.shards_of(index) for index in present}
    if kind == _PARTITIONED:
        return {
            index: partitioned_parameters(optimizer.originals[index], engine_optimizer) for index in present
        }
    flats: list[Tensor] = (
        engine_optimizer.single_partition_of_fp32_groups
        if hasattr(engine_optimizer, "single_partition_of_fp32_groups")
        else engine_optimizer.fp32_groups_flat_partition
    )
    groups = engine_optimizer.real_dp_process_group
    return {
        index: [partition_shards(optimizer.originals[index], flat, group)]
        for index, flat, group in zip(present, flats, groups, strict=True)
    }


def _link_state(engine_optimizer: Any, optimizer: AdderOptimizer) -> None:
    """Let DeepSpeed find the state of all groups: what is there now, and what their first steps make.

    It links once, after the first group's first step, when the other groups have none yet, and
    safe_get_full_optimizer_state would not find theirs.
    """
    num_steps = len(engine_optimizer.optimizer.param_groups)  # DeepSpeed steps one group at a time

    def link_again(*_: Any) -> None:
        nonlocal num_steps
        if num_steps > 0:
            num_steps -= 1
            engine_optimizer._hp_optimizer_states_linked = False

    optimizer.register_step_post_hook(link_again)
    engine_optimizer._hp_optimizer_states_linked = False
    engine_optimizer._lazy_init_hp_params_optimizer_state()


@torch.no_grad()
def _restore_copies(optimizer: AdderOptimizer) -> None:
    """Undo the step with zero gradients with which DeepSpeed made the state: it decays the weights."""
    for group, originals in zip(optimizer.param_groups, filter(None, optimizer.originals), strict=True):
        for copy, original in zip(group["params"], originals, strict=True):
            copy.copy_(original.param)
    optimizer.state.clear()


def _check_settings(engine: Any, optimizer: AdderOptimizer) -> None:
    """Refuses settings that would silently give wrong results, by their name in DeepSpeed's configuration."""
    config, stage = engine._config, engine.zero_optimization_stage()
    zero = config.zero_config
    kind = type(engine.optimizer).__name__
    offload = [getattr(zero, f"offload_{what}", None) for what in ("optimizer", "param")]
    is_nvme = any(str(getattr(each, "device", "")).endswith("nvme") for each in offload)
    alr = optimizer.built_groups[optimizer.adder_index]["alr"]
    rules = [
        (
            kind not in (*_FLAT, _PARTITIONED, *_WHOLE),
            f"an optimizer wrapper among {', '.join((*_FLAT, _PARTITIONED, *_WHOLE))}, got {kind}",
            "use plain ZeRO stages 0 to 3",
        ),
        (
            engine.gradient_clipping() > 0,
            f"gradient_clipping 0.0, got {engine.gradient_clipping()} (1.0 is DeepSpeed's default)",
            'set "gradient_clipping": 0.0: adder gradients, whose size means nothing, would clip the others',
        ),
        (
            config.gradient_allreduce_op != "mean",
            f'"gradient_allreduce_op" "mean", got "{config.gradient_allreduce_op}"',
            "remove it: a sum makes all other layers' steps longer with every rank, and adder layers' not",
        ),
        (
            stage in (1, 2) and zero.round_robin_gradients,
            "round_robin_gradients false, got true",
            "remove it: DeepSpeed's own tables ignore the order it makes",
        ),
        (
            stage == 0 and engine.fp16_enabled(),
            "a ZeRO stage of 1 to 3 with fp16, got stage 0",
            "stage 0 divides by a loss scale that was never applied; use stage 1, or DDP",
        ),
        (
            bool(engine.has_moe_layers),
            "a model without mixture-of-experts layers, got one with",
            "use DDP: experts have process groups of their own",
        ),
        (
            is_nvme,
            'offload to "cpu" or none, got "nvme"',
            "partitions on disk cannot be read in a step; offload to cpu",
        ),
        (
            alr == "local",
            'alr "global", "off" or "increased", got "local"',
            "it needs unsharded gradients in backward; use one process or DDP",
        ),
    ]
    for is_wrong, expected, advice in rules:
        if is_wrong:
            raise ValueError(f"bind: expected {expected}; {advice}.")
