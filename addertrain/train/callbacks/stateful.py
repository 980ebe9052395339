"""Callbacks whose state is part of every checkpoint, under names that do not depend on their classes.

clock    seconds in training and in all         best     the best checkpoint so far
counts   what an unfinished epoch has counted   faults   steps skipped, rollbacks made
"""

import abc
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

STATES = "addertrain_states"
"""Where callbacks leave their states, by name, in the dictionary that Lightning shows them."""


class StatefulCallback(Callback, abc.ABC):
    """Keeps a state in checkpoints under `state_name`, which a class of another name can read.

    Lightning's own hooks `state_dict` and `load_state_dict`, which use the name of the class, are not used.
    """

    state_name: ClassVar[str]

    @abc.abstractmethod
    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The state as plain JSON values; called on every rank, so it may communicate."""

    @abc.abstractmethod
    def take_up(self, state: dict[str, Any]) -> None:
        """Loads a saved state; not called if the checkpoint has none."""

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
        """Loads the state of its name."""
        if (state := checkpoint.get(STATES, {}).get(self.state_name)) is not None:
            self.take_up(dict(state))
