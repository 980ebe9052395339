"""Callbacks whose state is part of every checkpoint, under names that outlive their classes.

clock    seconds in training and in all         best     the best checkpoint so far
counts   what an unfinished epoch has counted   faults   steps skipped, rollbacks made
"""

import abc
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

STATES = "addertrain_states"
"""Where callbacks leave their states, by name, in the dictionary that Lightning shows them."""


class StatefulCallback(Callback, abc.ABC):
    """Keeps a state in checkpoints under `state_name`, which says what it is about.

    A class of another name reads what one of the same `state_name` has saved. Lightning's own hooks
    `state_dict` and `load_state_dict` file a state under the name of its class; they stay unused here.
    """

    state_name: ClassVar[str]

    @abc.abstractmethod
    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The state as plain JSON values; called on every rank, so it may talk to the others."""

    @abc.abstractmethod
    def take_up(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state; not called where the checkpoint has none."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the state under its name."""
        states = checkpoint.setdefault(STATES, {})
        assert self.state_name not in states, f"two callbacks keep a state named {self.state_name}"
        states[self.state_name] = self.kept_state(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the state of its name."""
        if (state := checkpoint.get(STATES, {}).get(self.state_name)) is not None:
            self.take_up(dict(state))
