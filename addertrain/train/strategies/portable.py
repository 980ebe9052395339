"""Training state that is independent of ranks: momentum by parameter name, and the mean of the ranks'
buffers.

Pure functions over dictionaries, and `NamedState`, the mixin through which a Lightning strategy applies them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.optim import Optimizer

from addertrain.errors import CheckpointError
from addertrain.train.strategies.checkpoint_io import COMPANIONS, MODEL, RANK_BUFFERS
from addertrain.train.strategies.lightning_checkpoint import model_of, optimizer_of, to_lightning, to_ours


def optimizer_by_name(state: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """An optimizer's `state_dict` with the parameters' names instead of their numbers."""
    return {
        "state": {names[index]: values for index, values in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[index] for index in group["params"]]}
            for group in state["param_groups"]
        ],
    }


def optimizer_by_index(named: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """The inverse of `optimizer_by_name`, for an optimizer that holds its parameters in the order of `names`.

    Raises:
        CheckpointError: the checkpoint's groups hold other parameters.
    """
    index = {name: number for number, name in enumerate(names)}
    saved = [name for group in named["param_groups"] for name in group["params"]]
    if saved != names:
        missing, extra = sorted(set(names) - set(saved)), sorted(set(saved) - set(names))
        raise CheckpointError(
            "checkpoint: expected the parameters of this optimizer in the same order, got others (missing "
            f"{missing}, unknown {extra}); resume with the model and parameter groups that were saved"
        )
    return {
        "state": {index[name]: values for name, values in named["state"].items()},
        "param_groups": [
            {**group, "params": [index[name] for name in group["params"]]} for group in named["param_groups"]
        ],
    }


def names_of_parameters(optimizer: Optimizer, module: torch.nn.Module) -> list[str]:
    """The names in `module` of the optimizer's parameters, in the order in which it numbers them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def float_buffers(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """The buffers that can differ between ranks, by their names in the files: persistent, of a float type."""
    persistent = module.state_dict(keep_vars=True)
    return {
        name.removeprefix(prefix): buffer
        for name, buffer in module.named_buffers()
        if name in persistent and buffer.is_floating_point()
    }


def gather_buffers(buffers: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Every rank's copy of `buffers`, in the order of the ranks; a collective if there are several."""
    own = {name: buffer.detach().clone() for name, buffer in buffers.items()}
    if not dist.is_initialized() or dist.get_world_size() == 1 or not own:
        return [own]
    # One collective for all of them; float64 holds every narrower type exactly.
    flat = torch.cat([buffer.flatten().double() for buffer in own.values()])
    parts = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, flat)
    sizes = [buffer.numel() for buffer in own.values()]
    return [
        {
            name: piece.view_as(buffer).to(buffer.dtype)
            for (name, buffer), piece in zip(own.items(), part.split(sizes), strict=True)
        }
        for part in parts
    ]


def mean_over_ranks(rank_buffers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every buffer over the ranks, summed in float64 in the order of the ranks."""
    first = rank_buffers[0]
    if len(rank_buffers) == 1:
        return dict(first)
    return {
        name: torch.stack([own[name].double() for own in rank_buffers]).mean(0).to(buffer.dtype)
        for name, buffer in first.items()
    }


class NamedState(Strategy):
    """Mixin for a strategy with unsharded parameters on every rank: saves and loads the state of `portable`.

    A module's `checkpoint_prefix` (such as "model.") is left out of the names in the files.
    """

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Restores last, so that no broadcast of a wrapper's set-up overwrites a rank's own buffers."""
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state by parameter name."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        return optimizer_by_name(optimizer.state_dict(), self._names(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the state of every parameter, in the parameter's own memory format."""
        named = optimizer_of(checkpoint)
        assert named is not None, "a checkpoint without momentum is refused before"
        (optimizer,) = self.optimizers
        state = optimizer_by_index(named, self._names(optimizer))
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                    values[key] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
        optimizer.load_state_dict(state)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's state without its prefix."""
        prefix = self._prefix()
        return {
            name.removeprefix(prefix): value for name, value in super().lightning_module_state_dict().items()
        }

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Loads parameters and buffers: this rank's own buffers if as many ranks saved, otherwise the
        mean.
        """
        load_model(self._module(), checkpoint, strict=strict)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None
    ) -> None:
        """Collects the ranks' buffers and writes; called on every rank, writes on the first."""
        super().save_checkpoint(self.portable_state(checkpoint), filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint from which Lightning resumes or evaluates."""
        return to_lightning(super().load_checkpoint(checkpoint_path, weights_only), self._module().trainer)

    def portable_state(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """The contents to save of Lightning's `checkpoint`, with every rank's buffers and their mean; a
        collective.
        """
        ours = to_ours(checkpoint, self._module().trainer)
        rank_buffers = gather_buffers(float_buffers(self._module(), self._prefix()))
        model = {**ours[MODEL], **mean_over_ranks(rank_buffers)}
        return {**ours, MODEL: model, RANK_BUFFERS: rank_buffers}

    def _module(self) -> LightningModule:
        assert self.lightning_module is not None, "the trainer connects the module before it saves or loads"
        return self.lightning_module

    def _prefix(self) -> str:
        return checkpoint_prefix(self._module())

    def _names(self, optimizer: Optimizer) -> list[str]:
        prefix = self._prefix()
        return [name.removeprefix(prefix) for name in names_of_parameters(optimizer, self._module())]


def checkpoint_prefix(module: torch.nn.Module) -> str:
    """The prefix that names in a checkpoint leave out."""
    prefix: str = getattr(module, "checkpoint_prefix", "")
    return prefix


def load_model(module: torch.nn.Module, checkpoint: Mapping[str, Any], *, strict: bool = True) -> None:
    """Loads a checkpoint's parameters and buffers into `module`, in place; auxiliary modules too if it has
    any.

    Raises:
        CheckpointError: the checkpoint holds another network.
    """
    prefix = checkpoint_prefix(module)
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    rank_buffers = checkpoint.get(RANK_BUFFERS, [])
    own = rank_buffers[rank] if len(rank_buffers) == world_size else {}
    state = {
        name if name.startswith(COMPANIONS) else prefix + name: value
        for name, value in {**model_of(checkpoint), **own}.items()
        if not name.startswith(COMPANIONS) or hasattr(module, "companions")
    }
    try:
        module.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint: expected the tensors of this network, got others ({error}); use the same recipe"
        ) from None
