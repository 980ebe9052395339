"""`bind(engine)`: makes AdderSGD exact under a DeepSpeed engine, or says why it cannot be.

Reads the engine by its attributes; DeepSpeed itself is not imported. Facts are of DeepSpeed 0.19.
"""

from typing import Any

import torch
from torch import Tensor

from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.engine_watch import BackwardWatch
from addertrain.optim.shards import Shards
from addertrain.optim.zero_layout import partition_shards, partitioned_parameters

_FLAT = ("DeepSpeedZeroOptimizer", "BF16_Optimizer")
_PARTITIONED = "DeepSpeedZeroOptimizer_Stage3"
_COPIES = "FP16_UnfusedOptimizer"
_WHOLE = ("AdderSGD", _COPIES)
_WATCH = "_addertrain_watch"


def bind(engine: Any) -> AdderSGD:
    """Tell the AdderSGD of `engine` where its layers lie; call it after `deepspeed.initialize`.

    Works out which slice of DeepSpeed's flat partitions belongs to which layer, compares each with the
    layer's values, makes the momentum and lets DeepSpeed link it for its own checkpoints. Momentum that is
    there stays: `engine.load_checkpoint` may come before or after, and a second call changes nothing. Later
    steps cost one all-reduce of the vector of squared norms, and none at stage 0; one whose gradients
    DeepSpeed has lost or divided twice raises ValueError. Returns the optimizer.

    Raises:
        TypeError: `engine` is no DeepSpeed engine, or its optimizer no AdderSGD.
        ValueError: a setting under which the result would be wrong, by its name in the configuration.
    """
    if not hasattr(engine, "basic_optimizer") or not hasattr(engine, "zero_optimization_stage"):
        raise TypeError(
            f"bind: expected the engine that deepspeed.initialize returned, got {type(engine).__name__}; "
            "models under DDP or fully_shard need no bind."
        )
    optimizer = engine.basic_optimizer
    if not isinstance(optimizer, AdderSGD):
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
        _make_momentum(optimizer)
        if not hasattr(engine, _WATCH):
            setattr(engine, _WATCH, BackwardWatch(engine))
    if kind in _FLAT:
        # DeepSpeed links the state after the first group's first step, when the other groups have none yet:
        # safe_get_full_optimizer_state would not find theirs.
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    return optimizer


def _shards(engine_optimizer: Any, optimizer: AdderSGD, kind: str) -> dict[int, list[Shards]]:
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


@torch.no_grad()
def _restore_copies(optimizer: AdderSGD) -> None:
    """Undo the step with zero gradients with which DeepSpeed made the state: it decays the weights."""
    for group, originals in zip(optimizer.param_groups, filter(None, optimizer.originals), strict=True):
        for copy, original in zip(group["params"], originals, strict=True):
            copy.copy_(original.param)
    optimizer.state.clear()


@torch.no_grad()
def _make_momentum(optimizer: AdderSGD) -> None:
    for index, group in enumerate(optimizer.built_groups):
        if group["momentum"] != 0 and optimizer.originals[index]:
            for tensor in (tensor for shards in optimizer.shards_of(index) for tensor in shards.tensors):
                optimizer.state[tensor].setdefault("momentum_buffer", torch.zeros_like(tensor))


def _check_settings(engine: Any, optimizer: AdderSGD) -> None:
    """Refuse what would be silently wrong, each by its name in DeepSpeed's configuration."""
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
            "it needs whole gradients in backward; use one process or DDP",
        ),
    ]
    for is_wrong, expected, advice in rules:
        if is_wrong:
            raise ValueError(f"bind: expected {expected}; {advice}.")
