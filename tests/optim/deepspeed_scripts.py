"""What scripts of one's own do with a DeepSpeed engine: resume, call backward twice, or pass it by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from addertrain.optim import AdderOptimizer, bind, whole_parameters, whole_state
from addertrain.train.strategies.zero import import_deepspeed
from tests.optim.deepspeed_training import answers, config, engine_for
from tests.optim.smooth_net import Rule, loss_of, new_optimizer, share, smooth_net

BEFORE, AFTER = 3, 2
"""Steps before a checkpoint, and after it."""


def _batch(engine: Any, step: int) -> tuple[Tensor, Tensor]:
    return share(step, dist.get_rank(), dist.get_world_size(), next(engine.module.parameters()).dtype)


def _train(engine: Any, steps: range) -> None:
    for step in steps:
        engine.backward(loss_of(engine, *_batch(engine, step)))
        engine.step()


def _state(optimizer: AdderOptimizer) -> list[Tensor]:
    """Momentum, or AdamW's moments and numbers of steps."""
    states = whole_state(optimizer, keep=True)["state"].values()
    return [value.clone() for each in states for value in each.values()]


def _load_then_bind(engine: Any, folder: Path) -> AdderOptimizer:
    engine.load_checkpoint(str(folder))
    return bind(engine)


def _bind_then_load(engine: Any, folder: Path) -> AdderOptimizer:
    optimizer = bind(engine)
    engine.load_checkpoint(str(folder))
    return optimizer


def _bind_often(engine: Any, folder: Path) -> AdderOptimizer:
    bind(engine)
    engine.load_checkpoint(str(folder))
    bind(engine)
    return bind(engine)


WAYS: list[Callable[[Any, Path], AdderOptimizer]] = [_load_then_bind, _bind_then_load, _bind_often]


def resumed(settings: dict[str, Any], folder: Path, rule: Rule = "sgd") -> dict[str, tuple[bool, bool]]:
    """Way of resuming -> whether the state, and later the trained parameters, are those of a run in one."""
    engine = engine_for(settings, rule)
    optimizer = bind(engine)
    _train(engine, range(BEFORE))
    engine.save_checkpoint(str(folder))
    saved = _state(optimizer)
    assert all(each.any() for each in saved)
    _train(engine, range(BEFORE, BEFORE + AFTER))
    expected = [value.clone() for value in whole_parameters(optimizer, keep=True)]
    engine.destroy()
    found = {}
    for way in WAYS:
        engine = engine_for(settings, rule)
        optimizer = way(engine, folder)
        kept = all(map(torch.equal, _state(optimizer), saved))
        _train(engine, range(BEFORE, BEFORE + AFTER))
        found[way.__name__] = (
            kept,
            all(map(torch.equal, whole_parameters(optimizer, keep=True), expected)),
        )
        engine.destroy()
    return found


def weights_alone(settings: dict[str, Any], folder: Path) -> bool:
    """Whether momentum is zero where the checkpoint's optimizer state is left out before `bind`."""
    engine = engine_for(settings)
    engine.load_checkpoint(str(folder), load_optimizer_states=False)
    optimizer = bind(engine)
    empty = not any(each.any() for each in _state(optimizer))
    engine.destroy()
    return empty


def twice(stage: int) -> str:
    """What a step says behind two backward passes, the second time behind an ordinary one."""
    engine = engine_for(config(stage))
    bind(engine)
    try:
        for step in range(2):
            engine.backward(loss_of(engine, *_batch(engine, step)))
        engine.step()
    except ValueError as error:
        return str(error)
    finally:
        engine.destroy()
    return "accepted"


class WithFeatures(nn.Module):
    """Returns its logits, and what they are made of."""

    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        self.net = smooth_net(torch.float32)
        self.detached = detached

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net[:9](x)
        return self.net[9:](features), features.detach() if self.detached else features


def with_features(stage: int, *, detached: bool = False, plain: bool = True, accumulate: int = 2) -> str:
    """What a step says to a forward of two tensors under accumulation, by `loss.backward()` where `plain`."""
    model = WithFeatures(detached=detached)
    engine, *_ = import_deepspeed("cpu").initialize(
        model=model,
        optimizer=new_optimizer(model),
        config=config(stage, accumulate),
        dist_init_required=False,
    )
    bind(engine)
    try:
        for step in range(accumulate):
            x, label = _batch(engine, step)
            loss = nn.functional.cross_entropy(engine(x)[0], label)
            if plain:
                loss.backward()
            else:
                engine.backward(loss)
            engine.step()
    except ValueError as error:
        return str(error)
    finally:
        engine.destroy()
    return "accepted"


def answers_with_scripts(cases: dict[str, Any], scripts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All questions of all tests, in one set of processes and on a folder that the ranks share."""
    return answers(cases) | {
        "resumed": {name: resumed(each, folder / name) for name, each in scripts.items()},
        "weights alone": {name: weights_alone(each, folder / name) for name, each in scripts.items()},
        "twice": {stage: twice(stage) for stage in (0, 1, 2, 3)},
        "with features": {
            1: with_features(1),
            2: with_features(2),
            "by the engine": with_features(2, plain=False),
            "detached": with_features(2, detached=True),
            "one step": with_features(2, accumulate=1),
        },
    }
