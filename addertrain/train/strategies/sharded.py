"""What strategies that shard parameters, gradients or momentum have in common.

Checkpoints stay portable: every rank writes its pieces, and readers see unsharded tensors by parameter names,
which are sharded again when loading. Weights are loaded into the plain network before it is sharded, momentum
into the shards afterwards.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from addertrain.checkpoint.files import temporary_name
from addertrain.checkpoint.part_names import piece_name
from addertrain.errors import CheckpointError
from addertrain.optim import (
    AdderOptimizer,
    OwnPieces,
    group_settings,
    joined,
    load_whole_state,
    own_parameters,
    own_state,
    parts,
    shared_state,
    split_,
    whole_parameters,
)
from addertrain.optim.shards import local
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import on_first_rank
from addertrain.train.strategies.checkpoint_io import OPTIMIZER, DirectoryCheckpointIO, Pieces
from addertrain.train.strategies.gradients import Gradients
from addertrain.train.strategies.lightning_checkpoint import optimizer_of
from addertrain.train.strategies.portable import NamedState, optimizer_by_index, optimizer_by_name


class Sharded(NamedState, DDPStrategy):
    """Base of the strategies whose `shard` shards the network; evaluations outside training are unsharded."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Loads weights into unsharded parameters, before they are sharded."""
        return False

    def setup(self, trainer: Trainer) -> None:
        """Moves the module to its device; for training, shards it and builds its optimizer."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self._module())
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.shard(trainer)
            self._parameter_names = self._names_of(self.adder_optimizer())
        self.setup_precision_plugin()

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Leaves reductions to the wrapper, which reduces each micro-batch, or all of them in the step."""
        yield

    def shard(self, trainer: Trainer) -> None:
        """Shards the network over the ranks and sets up optimizers; `setup_optimizers` is part of it."""
        raise NotImplementedError

    def adder_optimizer(self) -> AdderOptimizer:
        """The optimizer of the training."""
        (optimizer,) = self.optimizers
        return _plain(optimizer)

    def gradients(self) -> Gradients:
        """This rank's parts, when a step is about to be made."""
        return Gradients.of(self.adder_optimizer())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The groups' settings and the state that is not cut, by parameter name; the rest is in `pieces`."""
        plain = _plain(optimizer)
        state = {"state": shared_state(plain), "param_groups": group_settings(plain)}
        return optimizer_by_name(state, self._parameter_names)

    def pieces(self) -> dict[str, OwnPieces]:
        """What every rank adds to a checkpoint, by the end of its tensors' names in "FILE/NAME"."""
        return {f"{OPTIMIZER}/.{key}": own for key, own in own_state(self.adder_optimizer()).items()}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None
    ) -> None:
        """Every rank writes its pieces, and the first one the rest; every rank has to call it."""
        assert isinstance(self.checkpoint_io, DirectoryCheckpointIO), "others know no pieces"
        self.checkpoint_io.save_pieces(
            self.portable_state(checkpoint), filepath, self._share(Path(filepath)), storage_options
        )

    def _share(self, path: Path) -> Pieces:
        folder = Path(on_first_rank(lambda: str(temporary_name(path))))
        names = self._parameter_names
        values: dict[str, dict[str, Tensor]] = {OPTIMIZER: {}}
        shapes: dict[str, dict[str, torch.Size]] = {OPTIMIZER: {}}
        for key, own in self.pieces().items():
            file, _, end = key.partition("/")
            values.setdefault(file, {}).update(
                {piece_name(names[each.number] + end, each.offset): each.values for each in own.pieces}
            )
            shapes.setdefault(file, {}).update(
                {names[number] + end: shape for number, shape in own.shapes.items()}
            )
        return Pieces(folder, self.global_rank, self.world_size, values, shapes)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Gives every rank its part of the momentum."""
        optimizer = self.adder_optimizer()
        named = optimizer_of(checkpoint)
        assert named is not None, "a checkpoint without momentum is refused before"
        try:
            load_whole_state(optimizer, optimizer_by_index(named, self._parameter_names))
        except ValueError as error:
            raise CheckpointError(f"checkpoint: {error}") from None

    def whole_parameters(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The parameters by their names in the files; a collective. Without `keep` they come empty."""
        optimizer = self.adder_optimizer()
        values = whole_parameters(optimizer, keep=keep)
        return dict(zip(self._parameter_names, values, strict=True))

    def parts(self) -> list[Tensor]:
        """This rank's part of all parameters, as tensors that share their memory."""
        return [local(part.detach()) for part in parts(self.adder_optimizer())]

    def joined(self, values: Sequence[Tensor], *, keep: bool) -> dict[str, Tensor]:
        """Unsharded tensors by parameter name, of values with the layout of `parts`; a collective.

        Without `keep` they come empty.
        """
        optimizer = self.adder_optimizer()
        return dict(zip(self._parameter_names, joined(optimizer, values, keep=keep), strict=True))

    def split_(self, values: Sequence[Tensor], whole: Mapping[str, Tensor]) -> None:
        """The inverse of `joined`: fills this rank's `values`."""
        optimizer = self.adder_optimizer()
        split_(optimizer, values, [whole[name] for name in self._parameter_names])

    def _names_of(self, optimizer: AdderOptimizer) -> list[str]:
        """The parameters' names in the files; taken early, for evaluations put another network in place."""
        names = {id(parameter): name for name, parameter in self._module().named_parameters()}
        originals = [original for group in optimizer.originals for original in group]
        return [names[id(original.param)].removeprefix(self._prefix()) for original in originals]


class PartedNetwork(Sharded):
    """Base of the strategies that shard the parameters themselves, where calling the network is a collective.

    Ranks evaluate different numbers of batches, so an evaluation uses an unsharded copy.
    """

    def setup(self, trainer: Trainer) -> None:
        """Keeps the network's structure, without its memory, before the network is sharded."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._skeleton = copy.deepcopy(self._classifier().model).to("meta")
        super().setup(trainer)

    def pieces(self) -> dict[str, OwnPieces]:
        """The parameters' pieces, too."""
        return {**super().pieces(), "model/": own_parameters(self.adder_optimizer())}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Only buffers; parameters are among the `pieces`."""
        parameters = set(self._parameter_names)
        state = super().lightning_module_state_dict()
        return {name: value for name, value in state.items() if name not in parameters}

    @contextmanager
    def whole_network(self) -> Iterator[None]:
        """Replaces `module.model` by an unsharded copy; every rank has to enter."""
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
        """The module's own step, because the copy needs no wrapper."""
        with self.precision_plugin.val_step_context():
            return self._module().validation_step(*args, **kwargs)

    def _classifier(self) -> AdderClassifier:
        module = self._module()
        assert isinstance(module, AdderClassifier), "strategies that cut parameters train an AdderClassifier"
        return module


def whole_network(trainer: Trainer) -> AbstractContextManager[None]:
    """Within the block, a single rank can call the network that trains; every rank has to enter.

    Outside training no strategy shards the network.
    """
    strategy = trainer.strategy
    if isinstance(strategy, PartedNetwork) and trainer.state.fn == TrainerFn.FITTING:
        return strategy.whole_network()
    return nullcontext()


def gradients_of(trainer: Trainer, optimizer: Optimizer) -> Gradients:
    """The gradients of the next step of `trainer`, under any strategy."""
    strategy = trainer.strategy
    return strategy.gradients() if isinstance(strategy, Sharded) else Gradients.of(optimizer)


def _plain(optimizer: Optimizer) -> AdderOptimizer:
    plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    assert isinstance(plain, AdderOptimizer), "sharded strategies train with an AdderOptimizer"
    return plain
