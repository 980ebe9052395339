"""What every optimizer of adder networks knows of its layers: the tensors that hold them, their last rates.

Leaves the update to subclasses (adder_sgd.py, layer_rate.py), what lies where to shards.py, and refusals to
validation.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from addertrain.optim.closure_step import ClosureStep
from addertrain.optim.shards import Original, Shards, dtensors, find_shards
from addertrain.optim.validation import Group, check_groups, check_saved_state


class AdderOptimizer(ClosureStep):
    """Base of the optimizers that give adder filters a rate of their own.

    Where `is_sound` is set (0-dim bool on the parameters' device) and false, `step` changes no parameter and
    no state, whatever the gradients hold.

    After a step `last_sq_norms` and `last_rates` ([L], fp32, on the device; zeros before) hold the rates of
    the layers `layer_names`, and the squared norms that they were computed from.

    Raises:
        ValueError, TypeError: for groups that it cannot treat exactly.
    """

    def __init__(self, params: Iterable[Group], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        check_groups(self.param_groups)
        self.built_groups: list[Group] = list(self.param_groups)
        self.originals: list[list[Original]] = [
            [Original.of(param) for param in group["params"]] for group in self.param_groups
        ]
        self.is_sound: Tensor | None = None
        self.is_loaded = False  # whether the state may be a checkpoint's
        self._shards: dict[tuple[int, ...], Shards] = {}
        self._installed: dict[int, list[Shards]] = {}
        group = self.built_groups[self.adder_index]
        self.layer_names: list[str] = list(group["layer_names"])
        device = self.filters[0].device if self.filters else None
        self.last_sq_norms = torch.zeros(len(self.layer_names), device=device)
        self.last_rates = torch.zeros(len(self.layer_names), device=device)
        self._numel = torch.tensor(group["layer_numel"], dtype=torch.float64, device=device)

    @property
    def adder_index(self) -> int:
        """Number of the adder group among `built_groups`, which keep what engines take out as empty."""
        return next(index for index, group in enumerate(self.built_groups) if group["adder"])

    @property
    def filters(self) -> list[Tensor]:
        """The adder filters it was built with; unsharded, unless an engine has cut or emptied them."""
        return [original.param for original in self.originals[self.adder_index]]

    @property
    def whole_filters(self) -> list[Tensor]:
        """`filters` where this rank has them whole: all, or none under FSDP2 and stage 3 of ZeRO."""
        originals = self.originals[self.adder_index]
        is_whole = all(
            original.shape == original.param.shape and not isinstance(original.param, dtensors())
            for original in originals
        )
        return self.filters if is_whole else []

    def install(self, index: int, shards: Sequence[Shards]) -> None:
        """Take `shards` as those of built group number `index` from now on; what `bind` calls."""
        self._installed[index] = list(shards)
        self._shards |= {_key(each.tensors): each for each in shards}

    @property
    def is_bound(self) -> bool:
        """Whether `install` has been called."""
        return bool(self._installed)

    def shards_of(self, index: int) -> list[Shards]:
        """The shards of built group number `index`; more than one where an engine splits it."""
        if index in self._installed:
            return self._installed[index]
        return [find_shards(self.originals[index], self.built_groups[index]["params"])]

    def prepare_state(self) -> None:
        """Make the state that a first step would make, as far as it can be made before; `bind` calls it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state and hyperparameters; refuses the state of other layers before anything is changed."""
        check_saved_state(state_dict, self.param_groups)
        present = [any(group is kept for kept in self.param_groups) for group in self.built_groups]
        super().load_state_dict(state_dict)
        self.is_loaded = True
        loaded = iter(self.param_groups)
        self.built_groups = [
            next(loaded) if is_present else group
            for group, is_present in zip(self.built_groups, present, strict=True)
        ]

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: expected to be rebuilt, not copied or pickled; use state_dict and "
            "load_state_dict."
        )

    def _shards_in(self, group: Group) -> Shards:
        """What the adder group holds now; engines exchange its tensors between calls of `step`."""
        key = _key(group["params"])
        if key not in self._shards:
            self._shards[key] = find_shards(self.originals[self.adder_index], group["params"])
        return self._shards[key]

    def _numel_on(self, device: torch.device) -> Tensor:
        """k of every layer; made on the filters' device, so that only what an engine offloads is copied."""
        self._numel = self._numel.to(device)
        return self._numel

    def _note(self, sq_norm: Tensor, rate: Tensor, shards: Shards) -> None:
        """Keeps norms and rates for logging, of the layers that this call covered."""
        sq_norm, rate = sq_norm.float(), rate.float()
        if len(shards.covered) < len(self.layer_names):
            covered = torch.tensor(shards.covered, device=sq_norm.device)
            sq_norm = self.last_sq_norms.to(sq_norm.device).index_copy(0, covered, sq_norm[covered])
            rate = self.last_rates.to(rate.device).index_copy(0, covered, rate[covered])
        self.last_sq_norms, self.last_rates = sq_norm, rate


def _key(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Tells lists of tensors apart by identity; the shards that are kept under it keep the tensors alive."""
    return tuple(id(tensor) for tensor in tensors)
