import socket

import pytest
import torch
import torch.distributed as dist

from addertrain.errors import CheckpointError, LostRankError, RunError, UsageError
from addertrain.train.processes import World, detect_world, joined_processes, on_first_rank
from tests.ranks import on_ranks


def _launch(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without GPUs")
def test_without_a_launcher_there_is_one_process() -> None:
    assert detect_world() == World()


def test_the_launchers_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _launch(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")

    world = detect_world()

    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert (world.num_nodes, world.is_launched, world.is_first) == (2, True, False)


def test_half_a_launcher_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _launch(monkeypatch, RANK="0", WORLD_SIZE="2")

    with pytest.raises(UsageError, match=r"got RANK=0, WORLD_SIZE=2; unset them.*torchrun"):
        detect_world()


def test_ranks_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _launch(monkeypatch, RANK="zero", WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2")

    with pytest.raises(UsageError, match="whole numbers"):
        detect_world()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    _launch(monkeypatch, RANK="0", WORLD_SIZE="4", LOCAL_RANK="0", LOCAL_WORLD_SIZE="4")

    with pytest.raises(UsageError, match=r"4 processes and 2 GPUs.*--nproc-per-node 2"):
        detect_world()


def test_a_slurm_allocation_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    _launch(monkeypatch, SLURM_NTASKS="8", SLURM_PROCID="3", SLURM_JOB_ID="1")

    assert detect_world().size == 1


def _decide() -> tuple[int, int]:
    asked = []

    def decide() -> int:
        asked.append(dist.get_rank())
        return 42

    return on_first_rank(decide), len(asked)


def test_the_first_rank_decides_for_all() -> None:
    assert on_ranks(2, _decide) == [(42, 1), (42, 0)]


def _failing(kind: type[Exception]) -> str:
    def fail() -> None:
        raise kind("expected this, got that")

    try:
        on_first_rank(fail)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@pytest.mark.parametrize(("kind", "elsewhere"), [(CheckpointError, CheckpointError), (KeyError, RunError)])
def test_an_error_of_the_first_rank_reaches_all(kind: type[Exception], elsewhere: type[Exception]) -> None:
    first, second = on_ranks(2, _failing, kind)

    assert first.startswith(kind.__name__)
    assert second.startswith(elsewhere.__name__)
    assert "expected this, got that" in second


@pytest.mark.parametrize(
    "message",
    [
        "[../gloo/unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation to complete",
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:41",
    ],
)
def test_a_rank_that_does_not_answer_is_one_line(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    _launch(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    _launch(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)

    with pytest.raises(LostRankError) as caught, joined_processes(timeout_s=5):
        raise RuntimeError(message)

    said = str(caught.value)
    assert said.startswith(f"expected an answer of all ranks within 5 s, got: {message.partition('] ')[2]};")
    assert said.endswith("start again to resume; see docs/troubleshooting.md#ranks-hang")
    assert not dist.is_initialized()
