"""All uses of Lightning beyond its public interface; no other file of the package has any.

Names are those of Lightning 2.6.6. tests/train/test_lightning_internals.py compares each with the installed
version, and keeps private names out of all other files. `loop_state` knows the meaning of the loops'
counters.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from torch.optim import Optimizer

RUNNING_HOOK = "_current_fx_name"
"""The module's attribute in which Lightning notes the hook that runs, some fifty times a step."""

NEXT_BATCH = "train_dataloader_next"
"""How the name ends under which the profiler hears that the training loop waits for its loader."""


def leave_signals_alone(trainer: Trainer) -> None:
    """Turns off the SIGTERM flag that Lightning broadcasts before every batch.

    It costs a collective and a host sync a step, and its signal handler calls a collective itself, which
    hangs when only one rank gets the signal.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def progress_of(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training loops' counters, of epochs and of batches."""
    loop = trainer.fit_loop
    return loop.epoch_progress.state_dict(), loop.epoch_loop.batch_progress.state_dict()


def announce_step(plugin: Precision, module: LightningModule, optimizer: Optimizer) -> None:
    """Calls `on_before_optimizer_step` of all callbacks, if an engine steps instead of Lightning."""
    plugin._after_closure(module, optimizer)
