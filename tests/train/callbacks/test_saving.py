"""When checkpoints are written inside an epoch: by steps, by the clock, after a signal."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.checkpoint.files import read_tensors, write_checkpoint
from addertrain.errors import SavedAfterSignal
from addertrain.train.agreement import Agreement
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from addertrain.train.signals import SignalWatch
from addertrain.train.strategies import checkpoint_io
from tests.ranks import on_ranks
from tests.train.small_runs import assert_same_bits, final_weights, launched, short_recipe


def _names(run: Path) -> list[str]:
    return [path.name for path in reversed(RunDirectory(run).store.newest_first())]


def test_every_few_steps_beside_the_ends_of_epochs(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    fit(short_recipe("--train.save_every_steps=2"), run)

    inside = [name for name in _names(run) if name not in _names(finished)]
    assert inside == [f"epoch_{step // 5:04d}_step_{step:06d}" for step in (2, 4, 6, 8, 12, 14)]
    assert_same_bits(final_weights(run), final_weights(finished))


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"

    fit(short_recipe("--train.save_every_steps=1", "--train.keep_checkpoints=2"), run)

    # The third epoch is the best of this run, and its end the last save.
    assert _names(run) == ["epoch_0002_step_000014", "epoch_0003_step_000015"]


def test_by_the_clock_counted_from_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minute = iter(range(10_000))
    monkeypatch.setattr("addertrain.train.callbacks.saving.time.monotonic", lambda: 60.0 * next(minute))

    # Every look at the clock takes a minute: a step's question is one, a save's note another.
    fit(short_recipe("--train.save_every_minutes=2", "--schedule.epochs=1"), tmp_path / "run")

    assert _names(tmp_path / "run") == [f"epoch_000{e}_step_00000{s}" for e, s in ((0, 2), (0, 4), (1, 5))]


class SignalInEvaluation(Callback):
    """Sends this process a signal before the `at`-th batch of all its evaluations; there are two in each."""

    def __init__(self, at: int, rank: int) -> None:
        self._at, self._rank, self._num_batches = at, rank, 0

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._num_batches += 1
        if self._num_batches == self._at and trainer.global_rank == self._rank:
            os.kill(os.getpid(), signal.SIGTERM)


def _left_in_an_evaluation(run: Path, at: int, rank: int, *overrides: str) -> str:
    with pytest.raises(SavedAfterSignal) as caught:
        fit(short_recipe(*overrides), run, callbacks=[SignalInEvaluation(at, rank)])
    return str(caught.value)


@pytest.mark.parametrize("at", [3, 4])
def test_an_evaluation_that_a_signal_cuts_is_made_as_a_whole_afterwards(
    finished: Path, tmp_path: Path, at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _left_in_an_evaluation(tmp_path / "run", at, rank=0)

    assert said.startswith("saved epoch_0001_step_000010 after SIGTERM to this process;")
    capsys.readouterr()
    fit(short_recipe(), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines[1:]] == ["epoch 2/3", "epoch 3/3"]
    assert all(" val " in line for line in lines[1:])
    assert_same_bits(final_weights(tmp_path / "run"), final_weights(finished))


def test_the_last_evaluation_is_left_too(finished: Path, tmp_path: Path) -> None:
    said = _left_in_an_evaluation(tmp_path / "run", 7, rank=0)

    assert said.startswith(
        "epoch_0003_step_000015 is saved, but SIGTERM to this process ended its evaluation;"
    )
    summary, whole = fit(short_recipe(), tmp_path / "run"), RunDirectory(finished).read_summary()
    assert whole is not None
    assert (summary.weights_sha256, summary.top1) == (whole.weights_sha256, whole.top1)


class SignalAt(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: signal.Signals, rank: int) -> None:
        self._step, self._number, self._rank = step, number, rank

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self._step and trainer.global_rank == self._rank:
            os.kill(os.getpid(), self._number)


def _fit_with_a_signal(run: Path, step: int, number: signal.Signals, rank: int) -> str:
    with pytest.raises(SavedAfterSignal) as caught:
        fit(short_recipe(), run, callbacks=[SignalAt(step, number, rank)])
    return str(caught.value)


@pytest.mark.parametrize(("step", "number"), [(6, signal.SIGTERM), (9, signal.SIGUSR1)])
def test_a_signal_saves_at_the_end_of_the_step(
    finished: Path, tmp_path: Path, step: int, number: signal.Signals
) -> None:
    run = tmp_path / "run"

    said = _fit_with_a_signal(run, step, number, rank=0)

    name = f"epoch_0001_step_{step + 1:06d}"
    assert said == f"saved {name} after {number.name} to this process; the same command will resume from it"
    assert _names(run)[-1] == name
    fit(short_recipe(), run)
    assert_same_bits(final_weights(run), final_weights(finished))


def test_a_signal_during_start_up_is_answered_after_the_first_step(tmp_path: Path) -> None:
    with SignalWatch() as watch:
        os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(SavedAfterSignal, match="saved epoch_0000_step_000001 after SIGTERM"):
            fit(short_recipe(), tmp_path / "run", signals=watch)


def _signal_to_the_second_rank(run: Path) -> str:
    launched()
    return _fit_with_a_signal(run, 6, signal.SIGUSR1, rank=1)


def _signal_in_evaluations_of_the_second_rank(run: Path) -> list[str]:
    launched()
    return [_left_in_an_evaluation(run, at, 1, "--schedule.epochs=1") for at in (1, 3)]


def test_ranks_leave_an_evaluation_together(tmp_path: Path) -> None:
    first, second = on_ranks(2, _signal_in_evaluations_of_the_second_rank, tmp_path / "run")

    assert [said.split(";")[0] for said in first] == [
        "saved epoch_0000_step_000005 after a signal",
        "epoch_0001_step_000005 is saved, but a signal ended its evaluation",
    ]
    assert [said.split(";")[0] for said in second] == [
        "saved epoch_0000_step_000005 after SIGTERM to this process",
        "epoch_0001_step_000005 is saved, but SIGTERM to this process ended its evaluation",
    ]


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path: Path) -> None:
    first, second = on_ranks(2, _signal_to_the_second_rank, tmp_path / "run")

    assert first.startswith("saved epoch_0001_step_000008 after a signal;")
    assert second.startswith("saved epoch_0001_step_000008 after SIGUSR1 to this process;")


def test_the_second_signal_ends_at_once_but_not_a_run_that_has_saved() -> None:
    assert on_ranks(1, _answered) == [True]
    with pytest.raises(AssertionError, match=f"exit code -{signal.SIGTERM.value}"):
        on_ranks(1, _impatient)


def _answered() -> bool:
    with SignalWatch(seconds_of_one=0.0) as watch:
        os.kill(os.getpid(), signal.SIGTERM)
        watch.is_answered = True
        os.kill(os.getpid(), signal.SIGTERM)
        return watch.received == "SIGTERM"


def _impatient() -> None:
    with SignalWatch(seconds_of_one=0.0):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_to_the_whole_job_reaches_a_rank_twice_and_counts_once() -> None:
    with SignalWatch() as watch:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

        assert watch.received == "SIGTERM"


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with SignalWatch() as watch:
        with watch:
            pass
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before


def _exchanged() -> list[list[bool]]:
    agreement = Agreement(num_flags=2)
    mine = dist.get_rank() == 1
    answers = [
        agreement.exchange(mine, False),
        agreement.exchange(False, False),
        agreement.exchange(False, True),
    ]
    agreement.close()
    return answers


def test_ranks_learn_of_a_flag_at_the_same_call() -> None:
    expected = [[False, False], [True, False], [False, False]]

    assert on_ranks(2, _exchanged) == [expected, expected]


def test_one_process_agrees_with_itself_at_once() -> None:
    assert Agreement(num_flags=2).exchange(True, False) == [True, False]


class SlowDisk:
    """Stands in for `write_checkpoint`: holds every write until it is let go, and notes what overlaps."""

    def __init__(self) -> None:
        self.gate, self.running, self.written = threading.Event(), 0, list[str]()

    def __call__(self, path: Path, *contents: Any) -> None:
        self.running += 1
        assert self.running == 1, "two saves at once"
        assert self.gate.wait(60), "nobody let the disk go on"
        write_checkpoint(path, *contents)
        self.running -= 1
        self.written.append(path.name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    slow = SlowDisk()
    monkeypatch.setattr(checkpoint_io, "write_checkpoint", slow)
    return slow


class LetGoAt(Callback):
    """Lets the disk go on after a step, and notes what was on it until then."""

    def __init__(self, disk: SlowDisk, step: int) -> None:
        self.seen: list[str] | None = None
        self._disk, self._step = disk, step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self._step:
            self.seen = list(self._disk.written)
            self._disk.gate.set()


def test_training_goes_on_while_a_save_is_written(tmp_path: Path, disk: SlowDisk) -> None:
    let_go, run = LetGoAt(disk, step=3), tmp_path / "run"

    fit(short_recipe("--train.save_every_steps=2", "--schedule.epochs=1"), run, callbacks=[let_go])

    assert let_go.seen == [], "the save after step 2 waited for nobody"
    assert disk.written == [f"epoch_000{e}_step_00000{s}" for e, s in ((0, 2), (0, 4), (1, 5))]
    assert (tmp_path / "run/checkpoints/latest").read_text().strip() == "epoch_0001_step_000005"


def test_what_is_saved_is_the_moment_of_the_save(tmp_path: Path, disk: SlowDisk) -> None:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    disk.gate.set()
    recipe = short_recipe("--train.save_every_steps=2", "--schedule.epochs=1")
    fit(recipe, fast)
    disk.gate.clear()

    fit(recipe, slow, callbacks=[LetGoAt(disk, step=3)])

    for name in _names(fast):
        left, right = (run / "checkpoints" / name for run in (fast, slow))
        for file in ("model", "optimizer", "rank_buffers"):
            assert_same_bits(read_tensors(left, file), read_tensors(right, file))
