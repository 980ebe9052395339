"""The parts of sharded strategies that need no ranks: names, settings, loss scale, units."""

import builtins
import sys
from typing import Any

import pytest
import torch
from torch import nn

from addertrain.errors import UsageError
from addertrain.models import build_model
from addertrain.train.processes import World
from addertrain.train.strategies.choice import make_strategy
from addertrain.train.strategies.fsdp import FullySharded, units
from addertrain.train.strategies.precision import LossScale, MixedPrecision, precision_settings
from addertrain.train.strategies.zero import Zero, Zero3, engine_settings, import_deepspeed

LAUNCHED = World(rank=3, size=4, local_rank=1, local_size=2, is_launched=True)


@pytest.mark.parametrize(
    ("name", "kind"), [("zero1", Zero), ("zero2", Zero), ("zero3", Zero3), ("fsdp", FullySharded)]
)
@pytest.mark.parametrize("world", [World(), LAUNCHED])
def test_names_of_strategies(name: str, kind: type, world: World) -> None:
    strategy = make_strategy(name, world)
    assert type(strategy) is kind
    if isinstance(strategy, Zero):
        assert strategy.stage == int(name[-1])


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_engines_never_clip_and_never_reorder(stage: int, accumulates: bool, device_type: str) -> None:
    settings = engine_settings(stage, device_type=device_type, accumulates=accumulates, scales=False)
    zero = settings["zero_optimization"]
    assert settings["gradient_clipping"] == 0.0
    assert zero["stage"] == stage
    assert zero["round_robin_gradients"] is False
    assert zero.get("compute_grad_norm", True) == (stage == 3)
    assert zero["overlap_comm"] == (device_type == "cuda" and (stage == 2 or not accumulates))


def test_engines_that_scale_look_for_overflows() -> None:
    settings = engine_settings(2, device_type="cpu", accumulates=False, scales=True)
    assert "compute_grad_norm" not in settings["zero_optimization"]


def test_the_loss_scale_follows_torchs_rule() -> None:
    ours, torchs = LossScale(), torch.amp.GradScaler("cpu")
    param = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([param], lr=0.0)
    torchs.scale(torch.ones(1))
    for step in range(4500):
        is_overflow = step in (3, 4, 2500)
        param.grad = torch.full((1,), float("inf") if is_overflow else 1.0)
        torchs.step(optimizer)
        torchs.update()
        ours.update_scale(is_overflow)
        assert ours.get_scale() == torchs.get_scale()
    assert ours.state_dict() == torchs.state_dict()
    resumed = LossScale()
    resumed.load_state_dict(torchs.state_dict())
    assert resumed.state_dict() == ours.state_dict()


def test_only_zero_leaves_scaling_to_its_engine() -> None:
    assert precision_settings("fp32", "zero2", LAUNCHED) == {"precision": "32-true"}
    plugins = {
        strategy: precision_settings("fp16-mixed", strategy, LAUNCHED)["plugins"][0]
        for strategy in ("auto", "fsdp", "zero3")
    }
    assert all(isinstance(plugin, MixedPrecision) for plugin in plugins.values())
    assert isinstance(plugins["zero3"].engine_scale, LossScale)
    assert plugins["fsdp"].engine_scale is plugins["auto"].engine_scale is None
    assert precision_settings("bf16-mixed", "zero3", LAUNCHED)["plugins"][0].scaler is None


def test_units_hold_every_large_part_once() -> None:
    model = build_model("resnet18", kind="adder", num_classes=10)
    found = units(model)
    assert 5 <= len(found) <= 20
    assert model not in found
    inside = [{id(param) for param in unit.parameters()} for unit in found]
    for index, own in enumerate(inside):
        outer = [other for other in inside[index + 1 :] if own & other]
        assert all(own < other for other in outer), "inner units come first"
    assert units(nn.Linear(2, 2)) == []


def test_a_missing_deepspeed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "deepspeed":
            raise ImportError("No module named 'deepspeed'")
        return plain(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="zero1, zero2 and zero3 need DeepSpeed") as caught:
        import_deepspeed("cuda")
    assert "\n" not in str(caught.value)
