"""AdderSGD under DeepSpeed engines: every stage trains as one process does; what would not is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from addertrain.nn import AdderLinear, param_groups
from addertrain.optim import AdderSGD, bind
from tests.optim.deepspeed_scripts import answers_with_scripts
from tests.optim.deepspeed_training import config, train_cases
from tests.optim.smooth_net import distance, named_parameters, smooth_net, train_serially
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks

pytestmark = [pytest.mark.distributed, needs_deepspeed]

CPU = {"device": "cpu"}
BF16 = {"bf16": {"enabled": True}}
FP32_CASES: dict[str, dict[str, Any]] = {
    "stage 0": config(0),
    "stage 1": config(1),
    "stage 2": config(2),
    "stage 3": config(3),
    "stage 2, two micro-batches": config(2, accumulate=2),
    "stage 2, small buckets": config(2, reduce_bucket_size=100, allgather_bucket_size=100),
    "stage 2, offloaded": config(2, offload_optimizer=CPU),
    "stage 3, offloaded": config(3, offload_optimizer=CPU),
    "stage 3, sub-groups": config(3, sub_group_size=200),
}
BF16_CASES: dict[str, dict[str, Any]] = {
    "stage 0": config(0, **BF16),
    "stage 1": config(1, **BF16),
    "stage 2": config(2, **BF16),
    "stage 3": config(3, **BF16),
    "BF16_Optimizer": config(1, **BF16, data_types={"grad_accum_dtype": "fp32"}),
    "stage 2, fp32 accumulation": config(2, **BF16, data_types={"grad_accum_dtype": "fp32"}),
}


FP16_CASES = {
    f"stage {stage}": config(stage, fp16={"enabled": True, "loss_scale": 64}) for stage in (1, 2, 3)
}
REFUSED = {
    "gradient_clipping 0.0, got 1.0": {**config(2), "gradient_clipping": 1.0},
    "round_robin_gradients false": config(2, round_robin_gradients=True),
    "got stage 0": config(0, fp16={"enabled": True}),
    '"gradient_allreduce_op" "mean", got "sum"': {**config(2), "gradient_allreduce_op": "sum"},
}
RESUMED = {
    "stage 0 in bf16": config(0, **BF16),
    "stage 1": config(1),
    "stage 2": config(2),
    "stage 3": config(3),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of each of two ranks."""
    cases = {"fp32": FP32_CASES, "bf16": BF16_CASES, "fp16": FP16_CASES, "refused": REFUSED}
    return on_ranks(
        2, answers_with_scripts, cases, RESUMED, tmp_path_factory.mktemp("engines"), timeout_s=170
    )


def _check_fp32(results: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    exact = train_serially(torch.float64)
    own = distance(train_serially(torch.float32), exact)
    assert 1e-7 < own < 1e-4
    for result in results:
        distances = {name: distance(found, exact) for name, found in result.items()}
        assert max(distances.values()) <= 2 * own, (own, distances)


def test_every_stage_in_fp32_stays_within_what_fp32_costs_one_process(parts: list[dict[str, Any]]) -> None:
    _check_fp32([each["fp32"] for each in parts])


def test_every_stage_in_fp32_comes_to_the_same_bits(parts: list[dict[str, Any]]) -> None:
    """On two ranks, where sums over ranks have one order: norms do not depend on how a layer is cut."""
    first, *others = [found for each in parts for name, found in each["fp32"].items() if "micro" not in name]
    for found in others:
        assert all(torch.equal(found[name], value) for name, value in first.items())


@pytest.mark.long  # pytest -m long tests/optim/test_deepspeed.py
@pytest.mark.timeout(400)
def test_four_ranks_in_fp32() -> None:
    _check_fp32(on_ranks(4, train_cases, FP32_CASES, timeout_s=350))


def test_16_bit_engines_agree(parts: list[dict[str, Any]]) -> None:
    start = named_parameters(smooth_net())
    for kind in ("bf16", "fp16"):
        for each in parts:
            for name, found in each[kind].items():
                assert distance(found, parts[0][kind]["stage 1"]) <= 1e-6, (kind, name)
                assert distance(found, start) > 0.1


def test_what_would_be_silently_wrong_is_refused(parts: list[dict[str, Any]]) -> None:
    for expected, message in parts[1]["refused"].items():
        assert message.startswith("bind: expected ")
        assert expected in message
        assert "\n" not in message


def test_a_flat_partition_is_refused_without_bind(parts: list[dict[str, Any]]) -> None:
    assert "call addertrain.optim.bind(engine) after deepspeed.initialize" in parts[1]["without bind"]


def test_slices_are_compared_with_their_values(parts: list[dict[str, Any]]) -> None:
    assert "got other values; set zero_optimization.round_robin_gradients to false" in parts[1]["round robin"]


def test_deepspeed_finds_the_momentum_of_every_group(parts: list[dict[str, Any]]) -> None:
    assert len(parts[1]["state"]) > 10
    assert all(parts[1]["state"])


def test_one_collective_a_step_where_gradients_are_sharded(parts: list[dict[str, Any]]) -> None:
    assert {stage: len(shapes) for stage, shapes in parts[1]["collectives"].items()} == {
        0: 0,
        1: 1,
        2: 1,
        3: 1,
    }


def test_an_overflow_skips_the_step_as_a_whole(parts: list[dict[str, Any]]) -> None:
    for is_skipped, moves_later, scale in parts[1]["overflow"].values():
        assert is_skipped
        assert moves_later
        assert scale < 2**24


def test_momentum_that_is_there_stays(parts: list[dict[str, Any]]) -> None:
    """Whether a checkpoint comes before `bind`, after it or in between; the training goes on to the bit."""
    for each in parts:
        assert each["resumed"].keys() == RESUMED.keys()
        for case, ways in each["resumed"].items():
            assert ways == dict.fromkeys(ways, (True, True)), case
            assert len(ways) == 3


def test_weights_alone_begin_with_no_momentum(parts: list[dict[str, Any]]) -> None:
    assert parts[1]["weights alone"] == dict.fromkeys(RESUMED, True)


def test_a_step_refuses_two_backward_passes_where_one_is_lost(parts: list[dict[str, Any]]) -> None:
    for each in parts:
        assert each["twice"][0] == each["twice"][3] == "accepted"
        for stage in (1, 2):
            assert "expected one engine.backward before engine.step, got 2" in each["twice"][stage]
            assert "\n" not in each["twice"][stage]


def test_a_step_refuses_gradients_that_were_divided_twice(parts: list[dict[str, Any]]) -> None:
    for each in parts:
        said = each["with features"]
        for stage in (1, 2):
            assert "expected engine.backward(loss) with gradient_accumulation_steps above 1" in said[stage]
        assert [said[name] for name in ("by the engine", "detached", "one step")] == ["accepted"] * 3


def _engine(optimizer_kind: str = "DeepSpeedZeroOptimizer", **zero: Any) -> Any:
    """What `bind` reads of an engine."""
    model = nn.Sequential(AdderLinear(2, 2), nn.LayerNorm(2))
    settings = SimpleNamespace(
        round_robin_gradients=False, offload_optimizer=None, offload_param=None, **zero
    )
    return SimpleNamespace(
        basic_optimizer=AdderSGD(param_groups(model, weight_decay=0.0)),
        optimizer=type(optimizer_kind, (), {})(),
        zero_optimization_stage=lambda: 2,
        gradient_clipping=lambda: 0.0,
        fp16_enabled=lambda: False,
        has_moe_layers=False,
        _config=SimpleNamespace(zero_config=settings, gradient_allreduce_op="mean"),
    )


def test_other_parts_of_deepspeed_are_refused_by_name() -> None:
    on_disk = _engine()
    on_disk._config.zero_config.offload_optimizer = SimpleNamespace(device="nvme")
    experts = _engine()
    experts.has_moe_layers = True
    other = _engine()
    other.basic_optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match='expected offload to "cpu" or none, got "nvme"'):
        bind(on_disk)
    with pytest.raises(ValueError, match="expected a model without mixture-of-experts layers"):
        bind(experts)
    with pytest.raises(ValueError, match="got MiCS_Optimizer; use plain ZeRO stages 0 to 3"):
        bind(_engine("MiCS_Optimizer"))
    with pytest.raises(TypeError, match="expected an engine with AdderSGD, got SGD"):
        bind(other)
