"""The smooth network under DeepSpeed engines, many cases in one set of ranks."""

import copy
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim import bind, shards, whole_parameters, whole_state
from addertrain.optim.zero_layout import partition_shards
from addertrain.train.strategies.zero import import_deepspeed
from tests.optim.smooth_net import GLOBAL_BATCH, NUM_STEPS, Rule, loss_of, new_optimizer, share, smooth_net

BASE: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_clipping": 0.0,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


def config(stage: int, accumulate: int = 1, **zero: Any) -> dict[str, Any]:
    top = {key: zero.pop(key) for key in ("bf16", "fp16", "data_types") if key in zero}
    return {
        **copy.deepcopy(BASE),
        "gradient_accumulation_steps": accumulate,
        "zero_optimization": {"stage": stage, **zero},
        **top,
    }


def engine_for(settings: dict[str, Any], rule: Rule = "sgd") -> Any:
    deepspeed = import_deepspeed("cpu")
    os.environ.setdefault("LOCAL_RANK", str(dist.get_rank()))  # DeepSpeed asks the launcher's variable
    model = smooth_net(torch.float32)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=new_optimizer(model, rule), config=copy.deepcopy(settings),
        dist_init_required=False,
    )  # fmt: skip
    return engine


def train_engine(
    settings: dict[str, Any], num_steps: int = NUM_STEPS, rule: Rule = "sgd"
) -> dict[str, Tensor]:
    """Parameters by name, as the optimizer steps on them, on every rank."""
    engine = engine_for(settings, rule)
    optimizer = bind(engine)
    dtype = next(engine.module.parameters()).dtype
    pieces = settings["gradient_accumulation_steps"]
    for step in range(num_steps):
        x, label = share(step, dist.get_rank(), dist.get_world_size(), dtype)
        assert len(x) * dist.get_world_size() == GLOBAL_BATCH
        for part in zip(x.chunk(pieces), label.chunk(pieces), strict=True):
            engine.backward(loss_of(engine, *part))
            engine.step()
    names = {id(param): name for name, param in engine.module.named_parameters()}
    order = [names[id(original.param)] for group in optimizer.originals for original in group]
    values = [value.double().cpu() for value in whole_parameters(optimizer, keep=True)]
    engine.destroy()
    return dict(zip(order, values, strict=True))


def train_cases(
    cases: dict[str, dict[str, Any]], num_steps: int = NUM_STEPS, rule: Rule = "sgd"
) -> dict[str, dict[str, Tensor]]:
    return {name: train_engine(settings, num_steps, rule) for name, settings in cases.items()}


def allow_fp16_on_cpus() -> None:
    """DeepSpeed refuses fp16 on CPUs, where torch computes with it well."""
    import_deepspeed("cpu")
    from deepspeed.accelerator import get_accelerator

    kind = type(get_accelerator())
    kind.is_fp16_supported = lambda self: True
    kind.supported_dtypes = lambda self: [torch.float32, torch.bfloat16, torch.float16]


def train_fp16(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Tensor]]:
    allow_fp16_on_cpus()
    return train_cases(cases, num_steps=8)


def overflow(stage: int) -> tuple[bool, bool, float]:
    """Whether a step with an overflow changed nothing, whether the next ones do, and the scale after them."""
    allow_fp16_on_cpus()
    scaled = {
        "fp16": {"enabled": True, "initial_scale_power": 24, "hysteresis": 1, "loss_scale_window": 1000}
    }
    engine = engine_for(config(stage, **scaled))
    optimizer = bind(engine)
    x, label = share(0, dist.get_rank(), dist.get_world_size(), torch.float16)
    start = [value.clone() for value in whole_parameters(optimizer, keep=True)]
    moved = []
    for _ in range(12):
        engine.backward(loss_of(engine, x, label).float())
        engine.step()
        now = whole_parameters(optimizer, keep=True)
        moved.append(not all(map(torch.equal, start, now)))
        assert all(value.isfinite().all() for value in now)
    return not moved[0], moved[-1], float(engine.optimizer.loss_scale)


def refused(cases: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What `bind` says to each configuration."""
    allow_fp16_on_cpus()
    messages = {}
    for name, settings in cases.items():
        engine = engine_for(settings)
        try:
            bind(engine)
            messages[name] = "accepted"
        except ValueError as error:
            messages[name] = str(error)
        engine.destroy()
    return messages


def step_without_bind() -> str:
    engine = engine_for(config(2))
    engine.backward(loss_of(engine, *share(0, dist.get_rank(), dist.get_world_size(), torch.float32)))
    try:
        engine.step()
    except ValueError as error:
        return str(error)
    return "accepted"


def read_round_robin() -> str:
    """What the comparison of slices with values finds where the settings are not looked at."""
    engine = engine_for(config(2, round_robin_gradients=True))
    optimizer, zero = engine.basic_optimizer, engine.optimizer
    try:
        for originals, flat in zip(optimizer.originals, zero.single_partition_of_fp32_groups, strict=True):
            partition_shards(originals, flat, zero.real_dp_process_group[0])
    except ValueError as error:
        return str(error)
    return "accepted"


def finds_state(rule: Rule, name: str) -> list[bool]:
    """Whether DeepSpeed's own access finds the state NAME of every parameter, and not 0, after one step."""
    deepspeed = import_deepspeed("cpu")
    engine = engine_for(config(2), rule)
    optimizer = bind(engine)
    engine.backward(loss_of(engine, *share(0, dist.get_rank(), dist.get_world_size(), torch.float32)))
    engine.step()
    ours = whole_state(optimizer, keep=True)["state"]
    params = [original.param for group in optimizer.originals for original in group]
    return [
        torch.equal(deepspeed.utils.safe_get_full_optimizer_state(param, name), ours[number][name])
        and bool(ours[number][name].any())
        for number, param in enumerate(params)
    ]


def collectives_of_a_step(stage: int) -> list[torch.Size]:
    """Shapes that `optimizer.step` sums over ranks in one engine step."""
    engine = engine_for(config(stage))
    bind(engine)
    engine.backward(loss_of(engine, *share(0, dist.get_rank(), dist.get_world_size(), torch.float32)))
    shapes: list[torch.Size] = []
    plain = dist.all_reduce

    def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tensor.shape)
        return plain(tensor, *args, **kwargs)

    shards.dist.all_reduce = counted
    try:
        engine.step()
    finally:
        shards.dist.all_reduce = plain
    return [shape for shape in shapes if shape == torch.Size([3])]


def answers(cases: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """All questions in one set of processes: starting DeepSpeed costs seconds."""
    return {
        "fp32": train_cases(cases["fp32"]),
        "bf16": train_cases(cases["bf16"], num_steps=8),
        "refused": refused(cases["refused"]),
        "without bind": step_without_bind(),
        "round robin": read_round_robin(),
        "state": finds_state("sgd", "momentum_buffer"),
        "collectives": {stage: collectives_of_a_step(stage) for stage in (0, 1, 2, 3)},
        "overflow": {stage: overflow(stage) for stage in (1, 2, 3)},
        "fp16": train_fp16(cases["fp16"]),
    }
