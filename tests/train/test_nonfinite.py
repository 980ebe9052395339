"""A step that is not finite ends a run, is left out, or sends it back: on all ranks, under all strategies."""

import math
import shutil
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from addertrain.errors import NonFiniteError
from addertrain.optim import AdderSGD, parts
from addertrain.optim.shards import local
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.train.small_runs import (
    assert_resumed_exactly,
    assert_same_bits,
    final_weights,
    launched,
    rewind,
    short_recipe,
)

ONE_EPOCH = ("--schedule.epochs=1", "--train.evaluate_uncalibrated=false", "--train.recalibrate_batches=0")
SKIP, BACK = "--train.on_nonfinite=skip", "--train.on_nonfinite=rollback"


class _Fault(Callback):
    """Makes the second layer's gradient NaN in some steps of one rank, with a finite loss; or its output."""

    def __init__(
        self, steps: set[int], *, rank: int = 0, happens_once: bool = True, in_output: bool = False
    ) -> None:
        self._steps, self._rank, self._happens_once = set(steps), rank, happens_once
        self._spoil = _spoil_output if in_output else _spoil_gradient
        self._handle: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step + 1 in self._steps and trainer.global_rank == self._rank:
            self._handle = pl_module.get_submodule("model.conv2").register_forward_hook(self._spoil)
            if self._happens_once:
                self._steps.discard(trainer.global_step + 1)

    def on_train_batch_end(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def _spoil_gradient(layer: nn.Module, inputs: object, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda grad: grad * math.nan)


def _spoil_output(layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output * math.nan


class _Watch(Callback):
    """Notes which steps changed a bit of what this rank trains, and which of the running statistics."""

    def __init__(self) -> None:
        self.left_weights: set[int] = set()
        self.left_statistics: set[int] = set()
        self._weights: list[bytes] = []
        self._statistics: list[bytes] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._weights, self._statistics = _bits(_trained(trainer, pl_module)), _bits(pl_module.buffers())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if _bits(_trained(trainer, pl_module)) == self._weights:
            self.left_weights.add(trainer.global_step)
        if _bits(pl_module.buffers()) == self._statistics:
            self.left_statistics.add(trainer.global_step)


def _trained(trainer: Trainer, module: LightningModule) -> Iterator[Tensor]:
    """What the optimizer steps on, its momentum, and the network's own parameters."""
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, AdderSGD)
    for part in parts(optimizer):
        yield local(part.detach())
        if (buffer := optimizer.state[part].get("momentum_buffer")) is not None:
            yield local(buffer)
    # Stage 3 of ZeRO gathers and empties these as it goes.
    yield from (local(param.detach()) for param in module.parameters() if not hasattr(param, "ds_id"))


def _bits(tensors: Any) -> list[bytes]:
    return [tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors]


def _curve(run: Path, tag: str) -> list[Any]:
    return list(EventAccumulator(str(run)).Reload().Scalars(tag))


def _message(folder: Path, fault: _Fault, *words: str) -> str:
    with pytest.raises(NonFiniteError) as caught:
        fit(short_recipe(*ONE_EPOCH, *words), folder, callbacks=[fault])
    return str(caught.value)


STRATEGIES = ("ddp", "zero2", "zero3", "fsdp")


def _left_out(folder: Path) -> dict[str, Any]:
    """On a rank: under every strategy a run that leaves two steps out, and what else goes under ZeRO."""
    launched()
    found: dict[str, Any] = {}
    for strategy in STRATEGIES:
        recipe, watch = short_recipe(*ONE_EPOCH, f"--train.strategy={strategy}", SKIP), _Watch()
        summary = fit(recipe, folder / strategy, callbacks=[_Fault({2, 4}, rank=1), watch])
        left = (watch.left_weights, watch.left_statistics, summary.skipped_steps)
        found[strategy] = {"left": left, "loss": summary.loss}
    found["stopped"] = _message(folder / "stopped", _Fault({3}, rank=1), "--train.strategy=zero2")
    for strategy in ("ddp", "zero2"):
        words = (f"--train.strategy={strategy}", *ONE_EPOCH, "--train.save_every_steps=2", BACK)
        found[f"{strategy}, rolled back"] = fit(
            short_recipe(*words), folder / f"{strategy} back", callbacks=[_Fault({4}, rank=1)]
        )
    return found


@pytest.mark.distributed
@pytest.mark.timeout(200)
@needs_deepspeed
def test_a_bad_gradient_of_one_rank_is_answered_by_all_under_every_strategy(tmp_path: Path) -> None:
    first, second = on_ranks(2, _left_out, tmp_path, timeout_s=170)

    assert first == second
    for strategy in STRATEGIES:
        assert first[strategy]["left"] == ({2, 4}, {2, 4}, 2), strategy
        assert first[strategy]["loss"] == pytest.approx(first["ddp"]["loss"], rel=0.05), strategy
    assert "got NaN in the gradient of conv2.weight in epoch 1, batch 3, step 3; the step" in first["stopped"]
    assert "was not made, and there is no checkpoint yet" in first["stopped"]
    for strategy in ("ddp", "zero2"):
        summary = first[f"{strategy}, rolled back"]
        assert (summary.rollbacks, summary.steps) == (1, 5), strategy


def test_a_skipped_step_is_told_counted_and_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, watch = tmp_path / "run", _Watch()
    faults = [_Fault({2}), _Fault({3}, in_output=True)]
    summary = fit(short_recipe(*ONE_EPOCH, SKIP), run, callbacks=[*faults, watch])
    assert (summary.steps, summary.skipped_steps, summary.rollbacks) == (5, 2, 0)
    told = capsys.readouterr()
    assert "batch 2, step 2; the step is skipped (1 of at most 10)" in told.err
    assert [(point.step, point.value) for point in _curve(run, "faults/skipped_steps")] == [(2, 1), (3, 2)]
    assert "NaN in the output of conv2 (AdderConv2d) in epoch 1, batch 3, step 3" in told.err
    assert "loss nan" not in told.out
    assert watch.left_weights == watch.left_statistics == {2, 3}

    limited = _message(tmp_path / "limited", _Fault({2, 3}), SKIP, "--train.nonfinite_limit=1")
    assert "step 3; the step was not made, because train.nonfinite_limit (1) is reached" in limited


def test_a_verdict_read_late_names_its_own_step(tmp_path: Path) -> None:
    """As on a GPU: the host learns of a step when the next one is about to be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FiniteGuard, "__init__", partialmethod(FiniteGuard.__init__, delay=1))
        watch, recipe = _Watch(), short_recipe(*ONE_EPOCH, SKIP)
        summary = fit(recipe, tmp_path / "late", callbacks=[_Fault({2, 5}), watch])
        assert watch.left_weights == watch.left_statistics == {2, 5}
        assert summary.skipped_steps == 2
        message = _message(tmp_path / "stop", _Fault({2}))
    fit(recipe, tmp_path / "soon", callbacks=[_Fault({2, 5})])
    assert_same_bits(final_weights(tmp_path / "late"), final_weights(tmp_path / "soon"))
    assert "NaN in the gradient of conv2.weight in epoch 1, batch 2, step 2;" in message


TWO_EPOCHS = (
    "--schedule.epochs=2",
    "--train.evaluate_uncalibrated=false",
    "--train.save_every_steps=2",
    BACK,
)


class _Seen(Callback):
    """The images of every batch that was trained on."""

    def __init__(self) -> None:
        self.samples: list[list[int]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: object
    ) -> None:
        del self.samples[trainer.global_step :]
        self.samples.append(batch.samples.tolist())


def _seen(folder: Path, *, faults: set[int]) -> _Seen:
    """A run with passing faults."""
    seen = _Seen()
    fit(short_recipe(*TWO_EPOCHS), folder, callbacks=[_Fault(faults), seen])
    return seen


def test_a_rollback_goes_on_in_another_order_and_is_resumed_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seen = _seen(whole, faults={7, 8})  # the second epoch's second and third; there is a checkpoint of 6
    plain = _seen(tmp_path / "plain", faults=set())

    told = capsys.readouterr().err
    assert "step 7; the last good checkpoint is epoch_0001_step_000006; training rolls back" in told
    assert "step 8; the last good checkpoint is epoch_0001_step_000006" in told
    summary = RunDirectory(whole).read_summary()
    assert summary is not None
    assert (summary.rollbacks, summary.skipped_steps, summary.steps) == (2, 0, 10)
    assert seen.samples[:6] == plain.samples[:6]
    assert seen.samples[6:] != plain.samples[6:]
    second_epoch = [sample for batch in seen.samples[5:] for sample in batch]
    assert len(set(second_epoch)) == len(second_epoch)
    assert [point.value for point in _curve(whole, "faults/rollbacks")] == [
        2.0
    ]  # the first has gone with its steps

    shutil.copytree(whole, killed)
    rewind(killed, to_step=8)
    resumed = _seen(killed, faults=set())
    assert resumed.samples == seen.samples[8:]
    assert_resumed_exactly(killed, whole)
    again = RunDirectory(killed).read_summary()
    assert again is not None
    assert again.rollbacks == 2


def test_rollbacks_have_a_limit(tmp_path: Path) -> None:
    message = _message(
        tmp_path,
        _Fault({4}, happens_once=False),
        BACK,
        "--train.nonfinite_limit=2",
        "--train.save_every_steps=3",
    )
    assert "step 4; the step was not made, because train.nonfinite_limit (2) is reached" in message
    assert "the last good checkpoint is epoch_0000_step_000003" in message
