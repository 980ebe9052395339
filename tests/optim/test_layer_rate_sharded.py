"""AdaptiveLayerRate where others shard the training: held to what AdderSGD is held to in test_sharded.py.

Three ranks cut layers of 135, 75 and 140 elements, and rows of 5, 15 and 7, into unequal parts.
"""

from typing import Any

import pytest
import torch

from tests.optim.layer_rate_training import answers, by_torch
from tests.optim.smooth_net import Rule, distance, named_parameters, smooth_net, train_serially
from tests.optim.tolerances import FLOAT64
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of each of two ranks."""
    return on_ranks(2, answers, tmp_path_factory.mktemp("engines"), timeout_s=170)


def _exact(rule: Rule) -> dict[str, torch.Tensor]:
    trained = train_serially(torch.float64, rule)
    assert distance(trained, named_parameters(smooth_net())) > 0.1
    return trained


@needs_deepspeed
def test_two_ranks_train_as_one_process_in_float64(on_two: list[dict[str, Any]]) -> None:
    exact = _exact("adamw")
    for each in on_two:
        distances = {name: distance(found, exact) for name, found in each["adamw"].items()}
        assert max(distances.values()) < FLOAT64, distances


@pytest.mark.parametrize(("world_size", "rule"), [(1, "adamw"), (3, "lion")])
def test_one_and_three_ranks_do_as_well(world_size: int, rule: Rule) -> None:
    exact = _exact(rule)
    for each in on_ranks(world_size, by_torch, rule):
        distances = {name: distance(found, exact) for name, found in each.items()}
        assert max(distances.values()) < FLOAT64, distances


@needs_deepspeed
def test_engines_in_fp32_stay_within_what_fp32_costs_one_process(on_two: list[dict[str, Any]]) -> None:
    exact = _exact("adamw")
    own = distance(train_serially(torch.float32, "adamw"), exact)
    assert 1e-7 < own < 1e-3
    for each in on_two:
        distances = {name: distance(found, exact) for name, found in each["engines"].items()}
        assert max(distances.values()) <= 2 * own, (own, distances)


@needs_deepspeed
def test_every_strategy_comes_to_the_same_bits(on_two: list[dict[str, Any]]) -> None:
    """On two ranks, where sums over ranks have one order: norms do not depend on how a layer is cut."""
    first, *others = [found for each in on_two for found in each["engines"].values()]
    for found in others:
        assert all(torch.equal(found[name].double(), value.double()) for name, value in first.items())


@needs_deepspeed
def test_engines_resume_to_the_bit(on_two: list[dict[str, Any]]) -> None:
    for each in on_two:
        for case, ways in each["resumed"].items():
            assert ways == dict.fromkeys(ways, (True, True)), case
            assert len(ways) == 3


@needs_deepspeed
def test_deepspeed_finds_the_state_of_every_group(on_two: list[dict[str, Any]]) -> None:
    assert len(on_two[1]["found"]) > 10
    assert all(on_two[1]["found"])


@needs_deepspeed
def test_a_rule_that_needs_whole_layers_is_refused_where_they_are_cut(on_two: list[dict[str, Any]]) -> None:
    for each in on_two:
        for said in (each["refused"]["fsdp"], each["refused"]["stage 2"]):
            assert said.startswith("AdaptiveLayerRate: expected unsharded parameters with Adafactor")
            assert "\n" not in said
