"""The position of a training, in our terms and in those of Lightning's loops.

No other file knows how these loops count. What was read in Lightning 2.6.6 is compared with the installed
version by tests/train/test_loop_state.py.

    between two epochs     all batches and the evaluation of the last epoch are done
    in mid-epoch           some batches of the epoch are trained on; the hook after the last of them saved
    before the evaluation  all batches are done, and the epoch's evaluation has to be repeated completely
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from addertrain.train.lightning_internals import progress_of


@dataclass(frozen=True)
class Position:
    """A moment between two optimizer steps of a training.

    Attributes:
        epoch: the number of completed epochs, including their evaluation.
        batches: the number of completed batches of the next epoch.
        global_step: optimizer steps so far, skipped ones included.
        batches_per_epoch: on every rank; None if an older checkpoint from the first epoch does not record it.
        is_evaluation_due: all batches of the epoch are done, but not its evaluation.
    """

    epoch: int
    batches: int
    global_step: int
    batches_per_epoch: int | None = None
    is_evaluation_due: bool = False


def position_of(trainer: Trainer) -> Position:
    """The current position of a training."""
    epochs, batches = progress_of(trainer)
    begun, epoch = epochs["current"]["ready"], epochs["current"]["processed"]
    per_epoch = int(trainer.num_training_batches)
    # Between two epochs nothing is left over: one that was asked to stop early has had fewer batches.
    trained = batches["total"]["processed"] - epoch * per_epoch if begun > epoch else 0
    return Position(epoch, trained, trainer.global_step, per_epoch, 0 < trained == per_epoch)


def between_steps(trainer: Trainer) -> bool:
    """Whether every batch so far is part of a completed step; false between the micro-batches of a step."""
    return position_of(trainer).batches % trainer.accumulate_grad_batches == 0


def loader_of(loops: Mapping[str, Any]) -> dict[str, Any] | None:
    """The training loader's own state among the loops'; None if it has none."""
    loaders = loops["fit_loop"]["state_dict"].get("combined_loader", [])
    assert len(loaders) <= 1, "a training reads one loader"
    return dict(loaders[0]) if loaders else None


def loops_at(position: Position, loader: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loops' state from which Lightning resumes at `position`, as it would have saved it there.

    Args:
        loader: what `loader_of` gave.
    """
    idle: dict[str, Any] = {}  # these loops do not run in a training, and need no counters
    loaders = {} if loader is None else {"combined_loader": [dict(loader)]}
    fit_loop = {"state_dict": loaders, **_fit_loop(position)}
    return {"fit_loop": fit_loop, "validate_loop": idle, "test_loop": idle, "predict_loop": idle}


def _fit_loop(position: Position) -> dict[str, Any]:
    epoch, steps = position.epoch, position.global_step
    per_epoch = position.batches_per_epoch or 0
    is_inside = position.batches > 0
    total = epoch * per_epoch + position.batches
    in_epoch = position.batches if is_inside or epoch == 0 else per_epoch
    # Saved in the hook after a batch, before that batch counts as completed.
    is_in_hook = is_inside and not position.is_evaluation_due
    # Every epoch has as many steps, in proportion to its batches.
    steps_in_epoch = steps * in_epoch // total if total > 0 else 0
    begun = epoch + is_inside
    # Between two epochs Lightning saves before it counts the last one as completed.
    completed = epoch if is_inside else max(epoch - 1, 0)
    # An evaluation that is due has begun for Lightning, and no batch of it is over: it is made as a whole.
    evaluation = _both(_counts(int(position.is_evaluation_due), 0, 0))
    return {
        "epoch_progress": _both(_counts(begun, epoch, completed)),
        "epoch_loop.state_dict": {"_batches_that_stepped": steps - is_inside},
        "epoch_loop.batch_progress": {
            "total": _counts(total, total, total - is_in_hook),
            "current": _counts(in_epoch, in_epoch, in_epoch - is_in_hook),
            "is_last_batch": position.is_evaluation_due or (epoch > 0 and not is_inside),
        },
        "epoch_loop.scheduler_progress": _pair(_steps(steps), _steps(steps_in_epoch)),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": _pair(_steps(steps), _steps(steps_in_epoch)),
                "zero_grad": _pair(_begun_steps(steps), _begun_steps(steps_in_epoch)),
            }
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": _both(_steps(0)),
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**evaluation, "is_last_batch": False},
    }


def _counts(begun: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": begun, "started": begun, "processed": processed, "completed": completed}


def _steps(count: int) -> dict[str, int]:
    return {"ready": count, "completed": count}


def _begun_steps(count: int) -> dict[str, int]:
    return {"ready": count, "started": count, "completed": count}


def _pair(total: dict[str, int], current: dict[str, int]) -> dict[str, dict[str, int]]:
    return {"total": total, "current": current}


def _both(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    return _pair(counts, dict(counts))
