"""Writing beside training: the order of jobs, their errors, and what a snapshot holds."""

import threading

import pytest
import torch

from addertrain.checkpoint.background import BackgroundWriter
from addertrain.checkpoint.snapshot import snapshot
from addertrain.errors import CheckpointError


def _fail() -> None:
    raise CheckpointError("no space left")


def test_jobs_run_on_one_other_thread_in_order() -> None:
    writer, ran, threads = BackgroundWriter(), [], set()

    for number in range(5):
        writer.add(lambda number=number: (ran.append(number), threads.add(threading.get_ident())))
    writer.finish()

    assert ran == [0, 1, 2, 3, 4]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_caller_goes_on_while_a_job_runs() -> None:
    writer, gate = BackgroundWriter(), threading.Event()

    writer.add(lambda: None if gate.wait(30) else _fail())

    assert writer.is_busy
    gate.set()
    writer.finish()
    assert not writer.is_busy


def test_what_follows_a_failure_is_left_out_and_the_failure_told_once() -> None:
    writer, ran = BackgroundWriter(), []
    writer.add(_fail)
    writer.add(lambda: ran.append("published"))

    with pytest.raises(CheckpointError, match="no space left"):
        writer.finish()

    assert not ran
    assert not writer.has_failed
    writer.add(lambda: ran.append("the next one"))
    writer.finish()
    assert ran == ["the next one"]


def test_a_snapshot_keeps_what_was_there() -> None:
    weight = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    expected, count = weight.clone(), torch.tensor(3)

    copies, wait = snapshot({"model": {"weight": weight, "view": weight[1:], "count": count}})
    weight.zero_()
    count.add_(1)
    wait()

    assert torch.equal(copies["model"]["weight"], expected)
    assert torch.equal(copies["model"]["view"], expected[1:])
    assert copies["model"]["count"].item() == 3
