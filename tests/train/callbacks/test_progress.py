import io
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from addertrain.train.callbacks import progress
from addertrain.train.callbacks.clock import RunClock
from addertrain.train.callbacks.progress import duration
from addertrain.train.run import fit
from tests.train.small_runs import rewind, short_recipe


def test_without_a_terminal_there_is_a_line_per_epoch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(short_recipe(), tmp_path / "run")

    captured = capfd.readouterr()
    headline, *epochs = captured.out.splitlines()
    assert "1437 training and 360 test images, 3 epochs, 1 process on cpu; new run in" in headline
    line = r"epoch {}/3  loss \d+\.\d{{4}}  train +\d+\.\d\d %  val +\d+\.\d\d %  \d+ images/s  \d+ s left"
    assert len(epochs) == 3
    for number, epoch in enumerate(epochs, start=1):
        assert re.fullmatch(line.format(number), epoch), epoch
    assert captured.err == "", "Lightning's chatter is silenced"


def test_a_resumed_run_says_where_it_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    fit(short_recipe(), run)
    rewind(run, to_epoch=2)
    capfd.readouterr()

    fit(short_recipe(), run)

    headline, *epochs = capfd.readouterr().out.splitlines()
    assert "resuming epoch_0002_step_000010" in headline
    assert [epoch[:9] for epoch in epochs] == ["epoch 3/3"]


def test_on_a_terminal_one_bar_runs_over_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "has_terminal", lambda: True)

    fit(short_recipe(), tmp_path / "run")

    drawn = terminal.getvalue()
    assert "15/15" in drawn.split("\r")[-1]
    assert re.search(r"<00:\d\d", drawn), "the bar estimates the time left"
    assert "epoch 1/3" not in capsys.readouterr().out


def test_a_run_resumed_in_mid_epoch_begins_its_bar_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, run = ("--schedule.epochs=2", "--train.save_every_steps=3"), tmp_path / "run"
    fit(short_recipe(*words), run)
    rewind(run, to_step=6)
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "has_terminal", lambda: True)

    fit(short_recipe(*words), run)

    counts = re.findall(r"(\d+)/10 ", terminal.getvalue())
    assert (counts[0], counts[-1]) == ("6", "10")


def test_the_time_left_after_a_resumption_counts_neither_its_start_nor_earlier_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("addertrain.train.callbacks.clock.time.perf_counter", lambda: now)
    clock, nobody = RunClock(), cast(Any, None)
    clock.load_state_dict({"train_seconds": 900.0, "epoch_seconds": 0.0, "seconds": 1000.0})
    now = 50.0  # starting up
    clock.on_train_start(nobody, nobody)
    now = 54.0  # two batches
    clock.on_validation_start(nobody, nobody)
    now = 55.0
    clock.on_validation_end(nobody, nobody)
    clock.on_train_epoch_end(nobody, nobody)

    left = clock.seconds_left(batches=20, evaluations=3, done=302, done_before=300)

    assert left == pytest.approx(20 * 2 + 3 * 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_times_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
