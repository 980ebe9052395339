"""Profiles of a training, and what is said when memory runs out."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addertrain.cli import main
from addertrain.errors import OutOfMemory
from addertrain.train import out_of_memory as memory_module
from addertrain.train.callbacks.profiling import (
    ACTIVE_STEPS,
    WAIT_STEPS,
    WARMUP_STEPS,
    OperatorTime,
    operator_table,
)
from addertrain.train.module import AdderClassifier
from addertrain.train.out_of_memory import memory_advice
from addertrain.train.processes import World
from addertrain.train.run import fit
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, assert_same_bits, final_weights, launched, short_recipe

NEEDED = WAIT_STEPS + WARMUP_STEPS + ACTIVE_STEPS


def _events(trace: Path) -> list[dict[str, Any]]:
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("profiled") / "run"
    fit(short_recipe(), run, profile=True)
    return run


def test_a_trace_of_the_active_steps(profiled: Path) -> None:
    events = _events(profiled / "profile" / "rank_0.json.gz")
    steps = {event["name"] for event in events if str(event.get("name")).startswith("ProfilerStep")}
    names = [event.get("name") for event in events]

    assert len(steps) == ACTIVE_STEPS
    # LeNet-5-BN has five adder layers, of which four follow a ReLU.
    assert names.count("addertrain::adder2d_rectified") == ACTIVE_STEPS * 4
    assert names.count("addertrain::adder2d_rectified_gradients") == ACTIVE_STEPS * 4


def test_a_table_of_operators_for_tensorboard(profiled: Path) -> None:
    text = (profiled / "profile" / "operators.md").read_text(encoding="utf-8")
    events = EventAccumulator(str(profiled), size_guidance={"tensors": 0})
    events.Reload()
    (shown,) = events.Tensors("profile/operators/text_summary")

    assert shown.step == NEEDED
    assert shown.tensor_proto.string_val[0].decode() == text.rstrip("\n")
    assert "| **addertrain::adder2d_rectified_gradients** | 4 |" in text
    assert "| **addertrain::adder2d** |" in text


def test_profiling_changes_no_bit_and_curves_stay(profiled: Path, finished: Path) -> None:
    assert_same_bits(final_weights(profiled), final_weights(finished))
    assert not (finished / "profile").exists()


def test_a_session_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--schedule.epochs=1", "--data.global_batch_size=512", "--train.recalibrate_batches=0"]

    assert main(["fit", str(DIGITS), "--out", str(tmp_path / "run"), "--profile", *words]) == 0

    assert f"expected a session of at least {NEEDED} optimizer steps" in capsys.readouterr().out
    assert not (tmp_path / "run" / "profile").exists()


def _fit_on_a_rank(folder: Path) -> None:
    launched()
    words = ["--schedule.epochs=1", "--data.global_batch_size=128", "--train.recalibrate_batches=0"]
    fit(short_recipe(*words), folder, profile=True)


@pytest.mark.distributed
@pytest.mark.timeout(400)
def test_every_rank_writes_its_trace(tmp_path: Path) -> None:
    on_ranks(2, _fit_on_a_rank, tmp_path, timeout_s=300.0)

    files = sorted(path.name for path in (tmp_path / "profile").iterdir())
    assert files == ["operators.md", "rank_0.json.gz", "rank_1.json.gz"]
    for rank in (0, 1):
        names = {event.get("name") for event in _events(tmp_path / "profile" / f"rank_{rank}.json.gz")}
        assert "addertrain::adder2d_grad_weight" in names


def test_the_longest_come_first_and_our_own_are_all_there() -> None:
    times = [OperatorTime(f"aten::op{i}", 1.0, 100.0 - i, 0.0) for i in range(30)]
    times += [OperatorTime("addertrain::adder2d", 2.0, 0.01, 0.0), OperatorTime("autograd::adder2d", 1, 0, 0)]

    lines = operator_table(times).splitlines()

    assert lines[4] == "| aten::op0 | 1 | 100.000 | 0.000 | 3.9 |"
    assert "| **addertrain::adder2d** | 2 | 0.010 | 0.000 | 0.0 |" in lines
    assert not any("op20" in line or "autograd" in line for line in lines)


def test_on_a_gpu_kernels_are_ranked_by_their_time_there() -> None:
    times = [
        OperatorTime("void adder2d_grad_input_kernel<float>(Params)", 5.0, 0.0, 7.5),
        OperatorTime("aten::add_", 50.0, 90.0, 2.5),
    ]

    assert (
        "| **void adder2d_grad_input_kernel<float>(Params)** | 5 | 0.000 | 7.500 | 75.0 |"
        in operator_table(times)
    )


def _fails(error: Callable[[], BaseException]) -> Callable[..., Any]:
    def learn(self: AdderClassifier, batch: object) -> Any:
        raise error()

    return learn


def _host_allocator() -> BaseException:
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error
    raise AssertionError("2^60 floats fit")


@pytest.mark.parametrize(
    "error",
    [
        _host_allocator,
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines"),
        lambda: MemoryError(),
    ],
    ids=["host", "gpu", "python"],
)
def test_out_of_memory_is_one_line_of_advice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Callable[[], BaseException],
) -> None:
    monkeypatch.setattr(AdderClassifier, "learn", _fails(error))

    assert main(["fit", str(DIGITS), "--out", str(tmp_path / "run"), "--data.global_batch_size=256"]) == 1

    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "out of memory on cpu of rank 0" in complaint
    assert "--train.accumulate 2 halves the 256 images of a micro-batch" in complaint
    assert "addertrain plan" in complaint


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"^something else$"),
        memory_advice(tmp_path, short_recipe(), World()),
    ):
        raise RuntimeError("something else")


def test_advice_says_under_what_a_run_goes_on(finished: Path) -> None:
    with pytest.raises(OutOfMemory) as raised, memory_advice(finished, short_recipe(), World()):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert f"needs a new run: another --out with --init-from {finished}" in str(raised.value)


def test_on_a_gpu_a_snapshot_lies_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: which file the allocator is asked to write; and that its failure hides nothing."""
    world = World(rank=3, size=8, device_type="cuda")
    dumped: list[str] = []
    monkeypatch.setattr(memory_module.torch.cuda.memory, "_dump_snapshot", dumped.append)

    with pytest.raises(OutOfMemory) as raised, memory_advice(tmp_path, short_recipe(), world):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert "out_of_memory_rank_3.pickle" in str(raised.value)
    assert dumped == [str(tmp_path / "out_of_memory_rank_3.pickle")]
    assert "bf16-mixed" in str(raised.value)
    assert "zero2 or fsdp" in str(raised.value)
    assert raised.value.is_of_one_rank

    def fails(file: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(memory_module.torch.cuda.memory, "_dump_snapshot", fails)
    with pytest.raises(OutOfMemory) as raised, memory_advice(tmp_path, short_recipe(), world):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert "snapshot" not in str(raised.value)
