"""Signals to a process that waits for another one inside C++, where Python's handlers are not run."""

import datetime
import os
import signal
import threading
import time

import pytest
import torch.distributed as dist

from addertrain.train.signals import SignalWatch
from tests.ranks import on_ranks


def _send(number: signal.Signals, *seconds: float) -> None:
    for delay in seconds:
        threading.Timer(delay, os.kill, (os.getpid(), number)).start()


def _wait_in_a_collective(
    number: signal.Signals, times: tuple[float, ...], seconds_of_other: float
) -> str | None:
    if dist.get_rank() == 1:
        time.sleep(seconds_of_other)
    with SignalWatch(seconds_of_one=0.2) as watch:
        if dist.get_rank() == 0:
            _send(number, *times)
        dist.barrier()
    return watch.received


def _wait_for_a_store(number: signal.Signals, times: tuple[float, ...]) -> None:
    with SignalWatch(seconds_of_one=0.2):
        _send(number, *times)
        dist.TCPStore("127.0.0.1", 0, 2, True, timeout=datetime.timedelta(seconds=40))


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, (0.2, 0.6)), (signal.SIGUSR1, (0.2, 0.6)), (signal.SIGINT, (0.2,))]
)
def test_a_rank_that_waits_for_another_can_be_told_to_end(
    number: signal.Signals, times: tuple[float, ...]
) -> None:
    with pytest.raises(AssertionError, match=f"exit code -{number.value}"):
        on_ranks(2, _wait_in_a_collective, number, times, 50.0)


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, (0.2, 0.6)), (signal.SIGINT, (0.2,))])
def test_so_can_one_whose_ranks_have_not_met(number: signal.Signals, times: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError, match=f"exit code -{number.value}"):
        on_ranks(1, _wait_for_a_store, number, times)


def _wait_without_a_launcher(launcher: int | None) -> str | None:
    with SignalWatch(seconds_of_one=0.02) as watch:
        if launcher is not None:
            os.getppid = lambda: launcher
        if dist.get_rank() == 0:
            _send(signal.SIGTERM, 0.1)
        else:
            time.sleep(2.0)
        dist.barrier()
    return watch.received


def test_one_signal_ends_a_waiting_rank_whose_launcher_is_gone_and_no_other() -> None:
    with pytest.raises(AssertionError, match=f"exit code -{signal.SIGTERM.value}"):
        on_ranks(2, _wait_without_a_launcher, 1)
    assert on_ranks(2, _wait_without_a_launcher, None) == ["SIGTERM", None]


def test_one_signal_while_waiting_is_noted_and_ends_nothing() -> None:
    assert on_ranks(2, _wait_in_a_collective, signal.SIGTERM, (0.1, 0.15), 1.0) == ["SIGTERM", None]


def _interrupted_and_slow_to_leave() -> None:
    with SignalWatch(seconds_of_one=0.05):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            time.sleep(0.2)


def test_an_interrupt_that_reaches_python_is_an_exception_as_ever() -> None:
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _interrupted_and_slow_to_leave()

    assert signal.getsignal(signal.SIGINT) == before
    assert signal.set_wakeup_fd(-1) == -1
