"""SGD for adder networks: the order of one update, in foreach operations and without a host sync.

Leaves the rate to scaling.py, the norms to gradient_norms.py, what lies where to shards.py, the arithmetic of
SGD to descent.py, the authors' variant to local_scaling.py and refusals to validation.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from addertrain.optim.descent import descend
from addertrain.optim.gradient_norms import sq_norms
from addertrain.optim.local_scaling import LocalScaling
from addertrain.optim.scaling import AlrMode, as_factors, local_rate
from addertrain.optim.shards import Original, Shards, dtensors, find_shards, local
from addertrain.optim.validation import (
    Group,
    check_groups,
    check_hyperparameters,
    check_saved_state,
)


class AdderSGD(Optimizer):
    """SGD with momentum whose adder filters get the adaptive learning rate of Eq. 13.

    In the order of the authors' code: alpha_l = eta * sqrt(k) / ||g_l|| scales the raw gradient of layer l,
    weight decay is added, then momentum, then lr. The gradient is the one `step` finds: after all-reduce,
    accumulation and unscaling, whole or in shards (FSDP2; DeepSpeed after `bind`). Other parameters take
    plain SGD. `p.grad` is left as it is.

    Args:
        params: groups of `addertrain.nn.param_groups`: one with adder=True holds all adder filters.
        eta: root mean square of a scaled gradient.
        alr: see `addertrain.optim.scaling`; "local" hooks into backward, `remove_hooks` takes that back.
        increase: alpha of alr="increased".

    Where `is_sound` is set (0-dim bool on the parameters' device) and false, `step` changes no parameter and
    no momentum, whatever the gradients hold, and a GPU's host need not wait to know.

    After a step `last_sq_norms` and `last_rates` ([L], fp32, on the device; zeros before) hold ||g_l||^2 and
    alpha_l of the layers `layer_names`.

    Raises:
        ValueError, TypeError: for groups or values it cannot treat exactly.
    """

    def __init__(
        self,
        params: Iterable[Group],
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        eta: float = 0.2,
        alr: AlrMode = "global",
        increase: float = 100.0,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov,
            "eta": eta, "alr": alr, "increase": increase, "adder": False,
        }  # fmt: skip
        check_hyperparameters(defaults)
        super().__init__(params, defaults)
        check_groups(self.param_groups)
        self.built_groups: list[Group] = list(self.param_groups)
        self.originals: list[list[Original]] = [
            [Original.of(param) for param in group["params"]] for group in self.param_groups
        ]
        self.is_sound: Tensor | None = None
        self.is_loaded = False  # whether the momentum may be a checkpoint's
        self._shards: dict[tuple[int, ...], Shards] = {}
        self._installed: dict[int, list[Shards]] = {}
        group = self.built_groups[self.adder_index]
        self.layer_names: list[str] = list(group["layer_names"])
        device = self.filters[0].device if self.filters else None
        self.last_sq_norms = torch.zeros(len(self.layer_names), device=device)
        self.last_rates = torch.zeros(len(self.layer_names), device=device)
        self._numel = torch.tensor(group["layer_numel"], dtype=torch.float64, device=device)
        self._local: LocalScaling | None = None
        if group["alr"] == "local":
            self._local = LocalScaling(self.filters, eta=group["eta"], owner=self)

    @property
    def adder_index(self) -> int:
        """Number of the adder group among `built_groups`, which keep what engines take out as empty."""
        return next(index for index, group in enumerate(self.built_groups) if group["adder"])

    @property
    def filters(self) -> list[Tensor]:
        """The adder filters it was built with; whole, unless an engine has cut or emptied them."""
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

    def remove_hooks(self) -> None:
        """Take the backward hooks of alr="local" off; without them this optimizer refuses to step."""
        if self._local is not None:
            self._local.remove()
            self._local = None

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

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Stage 3 of ZeRO empties all groups but the one whose turn it is.
            shards = self._shards_in(group) if group["adder"] and group["params"] else None
            params = [param for param in group["params"] if param.grad is not None]
            if not params:
                continue
            grads, owns_grads = [local(param.grad) for param in params], False
            if shards is not None:
                grads, owns_grads = self._scaled(group, shards, params, grads)
            buffers = self._momentum_buffers(params, group)
            descend(
                [local(param) for param in params], grads, buffers, group,
                owns_grads=owns_grads, is_sound=self.is_sound,
            )  # fmt: skip
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load momentum and hyperparameters; refuses the state of other layers before anything is changed."""
        check_saved_state(state_dict, self.param_groups)
        present = [any(group is kept for kept in self.param_groups) for group in self.built_groups]
        super().load_state_dict(state_dict)
        self.is_loaded = True
        loaded = iter(self.param_groups)
        self.built_groups = [
            next(loaded) if is_present else group
            for group, is_present in zip(self.built_groups, present, strict=True)
        ]
        if self._local is not None:
            self._local.eta = self.built_groups[self.adder_index]["eta"]

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "AdderSGD: expected to be rebuilt, not copied or pickled; use state_dict and load_state_dict."
        )

    def _shards_in(self, group: Group) -> Shards:
        """What the adder group holds now; engines exchange its tensors between calls of `step`."""
        key = _key(group["params"])
        if key not in self._shards:
            self._shards[key] = find_shards(self.originals[self.adder_index], group["params"])
        return self._shards[key]

    def _scaled(
        self, group: Group, shards: Shards, params: Sequence[Tensor], grads: list[Tensor]
    ) -> tuple[list[Tensor], bool]:
        """alpha_l * g_l of this rank's shards, and whether these are new tensors."""
        if group["alr"] == "local":  # scaled in backward
            if self._local is None:
                raise ValueError(
                    'AdderSGD: expected the hooks of alr="local", got none; do not step after remove_hooks.'
                )
            self.last_sq_norms, self.last_rates = self._local.seen(grads[0])
            return grads, False
        by_id = {id(param): grad for param, grad in zip(params, grads, strict=True)}
        slices = shards.by_index(by_id)
        by_layer = [slices.get(layer) for layer in range(len(self.layer_names))]
        sq_norm = sq_norms(by_layer, like=grads[0], groups=shards.groups)
        rate = self._rates(group, sq_norm)
        self._note(sq_norm, rate, shards)
        if group["alr"] == "off":
            return grads, False
        # 0-dim tensors as factors: reading them as numbers would wait for the device.
        scaled = shards.scaled(by_id, as_factors(rate, grads[0]).unbind())
        return [scaled[id(param)] for param in params], True

    def _note(self, sq_norm: Tensor, rate: Tensor, shards: Shards) -> None:
        """Keeps norms and rates for logging, of the layers that this call covered."""
        sq_norm, rate = sq_norm.float(), rate.float()
        if len(shards.covered) < len(self.layer_names):
            covered = torch.tensor(shards.covered, device=sq_norm.device)
            sq_norm = self.last_sq_norms.to(sq_norm.device).index_copy(0, covered, sq_norm[covered])
            rate = self.last_rates.to(rate.device).index_copy(0, covered, rate[covered])
        self.last_sq_norms, self.last_rates = sq_norm, rate

    def _rates(self, group: Group, sq_norm: Tensor) -> Tensor:
        if group["alr"] == "global":
            # Made on the filters' device at construction: copies only what an engine has offloaded.
            self._numel = self._numel.to(sq_norm.device)
            return local_rate(sq_norm, self._numel, group["eta"])
        return torch.full_like(sq_norm, group["increase"] if group["alr"] == "increased" else 1.0)

    def _momentum_buffers(self, params: Sequence[Tensor], group: Group) -> list[Tensor]:
        """This rank's part of the momentum of `params`; none where there is no momentum."""
        if group["momentum"] == 0:
            return []
        for param in params:
            if "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        return [local(self.state[param]["momentum_buffer"]) for param in params]


def _key(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Tells lists of tensors apart by identity; the shards that are kept under it keep the tensors alive."""
    return tuple(id(tensor) for tensor in tensors)
