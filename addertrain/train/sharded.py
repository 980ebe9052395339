"""What strategies have in common that cut parameters, gradients or momentum over the ranks.

Checkpoints stay portable: whole tensors under parameter names, gathered when saving, cut when loading.
Weights are loaded into the plain network before it is sharded, momentum into the shards after that.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from addertrain.checkpoint.errors import CheckpointError
from addertrain.optim import (
    AdderSGD,
    joined,
    load_whole_state,
    parts,
    split_,
    whole_parameters,
    whole_state,
)
from addertrain.optim.shards import local
from addertrain.train.checkpoint_io import OPTIMIZERS
from addertrain.train.gradients import Gradients
from addertrain.train.module import AdderClassifier
from addertrain.train.portable import NamedState, optimizer_by_index, optimizer_by_name


class Sharded(NamedState, DDPStrategy):
    """Base of the strategies whose `shard` cuts the network; evaluations outside a training stay whole."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are loaded into whole parameters, so before they are cut."""
        return False

    def setup(self, trainer: Trainer) -> None:
        """Moves the module to its device; for a training, cuts it and makes its optimizer."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self._module())
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.shard(trainer)
        self.setup_precision_plugin()

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Leaves reductions to the wrapper, which reduces each part of a batch, or all in the step."""
        yield

    def shard(self, trainer: Trainer) -> None:
        """Cuts the network over the ranks and sets up optimizers; `setup_optimizers` is part of it."""
        raise NotImplementedError

    def adder_sgd(self) -> AdderSGD:
        """The optimizer of the training."""
        (optimizer,) = self.optimizers
        return _plain(optimizer)

    def gradients(self) -> Gradients:
        """This rank's parts, when a step is about to be made."""
        return Gradients.of(self.adder_sgd())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole momentum by parameter name on the first rank; every rank has to call this."""
        adder_sgd = _plain(optimizer)
        return optimizer_by_name(whole_state(adder_sgd, keep=self.is_global_zero), self._names(adder_sgd))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Gives every rank its part of the momentum."""
        optimizer = self.adder_sgd()
        (named,) = checkpoint[OPTIMIZERS]
        try:
            load_whole_state(optimizer, optimizer_by_index(named, self._names(optimizer)))
        except ValueError as error:
            raise CheckpointError(f"checkpoint: {error}") from None

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Buffers, and whole parameters on the first rank; every rank has to call this."""
        return super().lightning_module_state_dict() | self.whole_parameters(keep=self.is_global_zero)

    def whole_parameters(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The parameters by their names in the files; a collective. Without `keep` they come empty."""
        optimizer = self.adder_sgd()
        values = whole_parameters(optimizer, keep=keep)
        return dict(zip(self._names(optimizer), values, strict=True))

    def parts(self) -> list[Tensor]:
        """This rank's part of all parameters, as tensors that share their memory."""
        return [local(part.detach()) for part in parts(self.adder_sgd())]

    def joined(self, values: Sequence[Tensor], *, keep: bool) -> dict[str, Tensor]:
        """Whole tensors by parameter name, of values that lie as `parts` do; a collective.

        Without `keep` they come empty.
        """
        optimizer = self.adder_sgd()
        return dict(zip(self._names(optimizer), joined(optimizer, values, keep=keep), strict=True))

    def split_(self, values: Sequence[Tensor], whole: Mapping[str, Tensor]) -> None:
        """The inverse of `joined`: fills this rank's `values`."""
        optimizer = self.adder_sgd()
        split_(optimizer, values, [whole[name] for name in self._names(optimizer)])

    def _names(self, optimizer: Optimizer) -> list[str]:
        names = {id(parameter): name for name, parameter in self._module().named_parameters()}
        originals = [original for group in _plain(optimizer).originals for original in group]
        return [names[id(original.param)].removeprefix(self._prefix()) for original in originals]


class PartedNetwork(Sharded):
    """Base of those that cut the parameters themselves: calling the network is a collective then.

    Ranks evaluate different numbers of batches, so an evaluation runs on a whole copy, made for its length.
    """

    def setup(self, trainer: Trainer) -> None:
        """Keeps the network's structure, without its memory, before the network is cut."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._skeleton = copy.deepcopy(self._classifier().model).to("meta")
        super().setup(trainer)

    @contextmanager
    def whole_network(self) -> Iterator[None]:
        """Puts a whole copy in place of `module.model`; every rank has to enter."""
        classifier = self._classifier()
        live = classifier.model
        whole = copy.deepcopy(self._skeleton).to_empty(device=self.root_device)
        buffers = dict(live.named_buffers())
        with torch.no_grad():
            for name, parameter in self.whole_parameters().items():
                whole.get_parameter(name).copy_(parameter)
            for name, buffer in whole.named_buffers():
                buffer.copy_(buffers[name])
        classifier.model = whole.train(live.training)
        try:
            yield
        finally:
            classifier.model = live

    def validation_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """The module's own: the copy needs no wrapper."""
        with self.precision_plugin.val_step_context():
            return self._module().validation_step(*args, **kwargs)

    def _classifier(self) -> AdderClassifier:
        module = self._module()
        assert isinstance(module, AdderClassifier), "strategies that cut parameters train an AdderClassifier"
        return module


class WholeNetwork(Callback):
    """Evaluates on whole parameters under strategies that cut them; comes first in the trainer's list."""

    def __init__(self) -> None:
        self._active = ExitStack()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the whole network in."""
        if isinstance(trainer.strategy, PartedNetwork) and trainer.state.fn == TrainerFn.FITTING:
            self._active.enter_context(trainer.strategy.whole_network())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the live one back."""
        self._active.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the live one back when an evaluation breaks off."""
        self._active.close()


def gradients_of(trainer: Trainer, optimizer: Optimizer) -> Gradients:
    """Those of the step that `trainer` is about to make, under any strategy."""
    strategy = trainer.strategy
    return strategy.gradients() if isinstance(strategy, Sharded) else Gradients.of(optimizer)


def _plain(optimizer: Optimizer) -> AdderSGD:
    plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    assert isinstance(plain, AdderSGD), "sharded strategies train with AdderSGD"
    return plain
