"""ALR for other optimizers: an adder layer's update, not its gradient, gets the length that Eq. 13 asks for.

    w <- (1 - gamma lambda) w - gamma * eta * sqrt(k) / ||u_l||_2 * u_l

u_l is the update of layer l by AdamW, Lion, ... without weight decay at rate 1. Scaling the gradient instead
would change nothing: these optimizers divide it by its own size (docs/other-optimizers.md). Leaves norms to
gradient_norms.py, the rate to scaling.py, what lies where to shards.py and the update to what it wraps.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.gradient_norms import sq_norms
from addertrain.optim.lion import Lion
from addertrain.optim.scaling import as_factors, local_rate
from addertrain.optim.shards import Shards, dtensors, local
from addertrain.optim.validation import Group

Rule = Callable[[list[Group]], Optimizer]
"""An optimizer's class, or a `functools.partial` of it with settings: functools.partial(AdamW, lr=1e-3)."""

_ELEMENTWISE: tuple[type[Optimizer], ...] = (
    torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax,
    torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.SGD, Lion,
)  # fmt: skip
"""An element's update depends on that element's gradients alone: shards are updated as the whole is."""
_OF_MATRICES: tuple[type[Optimizer], ...] = (torch.optim.Muon, torch.optim.Adafactor)
_REFUSED_FOR_FILTERS = {
    "sgd": "its step follows the gradient's length, so scale the gradient: use AdderSGD",
}
_REFUSED = {
    "asgd": "its average of the weights is taken inside the update; use AdamW",
    "rprop": "its step sizes depend on lr and are no direction; use AdamW",
    "lbfgs": "it searches along a line over all layers together; use AdamW",
    "sparseadam": "adder filters have dense gradients; use Adam",
    "lamb": "eta would replace its length, the filter's; use AdamW, whose updates have the same direction",
    "lars": "eta would replace its length, the filter's; use AdderSGD, whose updates have the same direction",
}
"""By name in small letters, without "fused": torch has no LAMB or LARS, other libraries have several."""
_DEEPSPEED = "it steps through a compiled library that keeps settings of its own; use torch's"


class AdaptiveLayerRate(AdderOptimizer):
    """AdamW, Lion, ... whose updates of adder filters have the root mean square gamma * eta, layer by layer.

    All other parameters take the plain steps of `rule`, bit for bit. Adder filters take the direction of its
    update alone; weight decay is decoupled for them, whatever `rule` does. The norm of a layer's update is
    that of the whole layer under DDP, FSDP2 and, after `bind`, ZeRO. State, groups, schedulers, `maximize`,
    `foreach` and `fused` are those of the wrapped optimizer. Where `is_sound` is set, the host waits for it
    at every step, also on a GPU.

    Args:
        params: groups of `addertrain.nn.param_groups`: one with adder=True holds all adder filters.
        rule: an optimizer's class, or functools.partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.95));
            torch.optim.SGD only with a `filter_rule`.
        filter_rule: the same for adder filters alone, where it differs: torch.optim.Muon, which updates
            matrices only, sees a filter as O rows of C·R·S.
        eta: root mean square of an adder layer's update at gamma = 1.
        alr: "off" leaves the length of updates to the rule, for comparison.
        elementwise: says of an optimizer that is not known here whether an element's update depends on that
            element's gradients alone, so that shards can be updated by themselves.

    Raises:
        ValueError, TypeError: for groups, rules or values that it cannot treat exactly.
    """

    def __init__(
        self,
        params: Iterable[Group],
        rule: Rule,
        *,
        filter_rule: Rule | None = None,
        eta: float = 0.2,
        alr: Literal["global", "off"] = "global",
        elementwise: bool | None = None,
    ) -> None:
        if not isinstance(eta, int | float) or not 0 < eta < math.inf:
            raise ValueError(f"AdaptiveLayerRate: expected eta > 0, got eta={eta!r}.")
        if alr not in ("global", "off"):
            raise ValueError(f"AdaptiveLayerRate: expected alr to be one of global, off, got {alr!r}.")
        self._inner = _built(rule, steps_filters=filter_rule is None)
        self._filter_inner = self._inner if filter_rule is None else _built(filter_rule, steps_filters=True)
        super().__init__(
            [self._with_defaults(group, eta, alr, elementwise) for group in params], {"adder": False}
        )
        for group in self.param_groups:
            self._check_sharding(
                group, is_cut=any(isinstance(param, dtensors()) for param in group["params"])
            )

    def install(self, index: int, shards: Sequence[Shards]) -> None:
        """Take `shards` as those of built group number `index` from now on; what `bind` calls."""
        is_cut = any(each.groups or not all(s.is_whole for s in each.slices) for each in shards)
        self._check_sharding(self.built_groups[index], is_cut=is_cut)
        super().install(index, shards)

    def _update(self) -> None:
        if self.is_sound is not None and not self.is_sound:
            return
        for group in self.param_groups:
            if not group["adder"]:
                _step(self._inner, group, self.state)
            elif group["params"]:  # stage 3 of ZeRO empties all groups but the one whose turn it is
                self._step_filters(group, self._shards_in(group))

    def _step_filters(self, group: Group, shards: Shards) -> None:
        params = [param for param in group["params"] if param.grad is not None]
        if not params:
            return
        moves = self._moves(group, params)
        by_id = {id(param): local(move) for param, move in zip(params, moves, strict=True)}
        slices = shards.by_index(by_id)
        by_layer = [slices.get(layer) for layer in range(len(self.layer_names))]
        sq_norm = sq_norms(by_layer, like=local(moves[0]), groups=shards.groups)
        rate = torch.ones_like(sq_norm)
        if group["alr"] == "global":
            rate = local_rate(sq_norm, self._numel_on(sq_norm.device), group["eta"])
        self._note(sq_norm, rate, shards)
        if slices:
            factors = as_factors(group["lr"] * rate, local(moves[0])).unbind()
            torch._foreach_mul_(list(slices.values()), [factors[layer] for layer in slices])
        parts = [local(param) for param in params]
        torch._foreach_mul_(parts, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parts, list(by_id.values()))

    def _moves(self, group: Group, params: Sequence[Tensor]) -> list[Tensor]:
        """-u of every parameter: where the rule takes a parameter of zeros at rate 1 without decay.

        So it is exact: the difference of weights before and after a step has lost their last digits.
        """
        as_matrices = isinstance(self._filter_inner, torch.optim.Muon)
        stand_ins: list[Tensor] = []
        states: dict[Tensor, Any] = {}
        for param in params:
            assert param.grad is not None
            zeros, grad, state = torch.zeros_like(param), param.grad, self.state[param]
            if as_matrices:
                zeros, grad = zeros.flatten(1), grad.flatten(1)
                state = {key: value.flatten(1) for key, value in state.items()}
            zeros.grad = grad
            states[zeros] = state
            stand_ins.append(zeros)
        _step(self._filter_inner, group, states, params=stand_ins, lr=1.0, weight_decay=0.0)
        for zeros in stand_ins:
            zeros.grad = None
        if not as_matrices:
            return stand_ins
        for zeros, param in zip(stand_ins, params, strict=True):  # checkpoints hold state as filters lie
            self.state[param] = {key: value.view(param.shape) for key, value in states[zeros].items()}
        return [zeros.view(param.shape) for zeros, param in zip(stand_ins, params, strict=True)]

    def _with_defaults(self, group: Group, eta: float, alr: str, elementwise: bool | None) -> Group:
        inner = self._filter_inner if group.get("adder") else self._inner
        name = type(inner).__name__
        if elementwise is None and not isinstance(inner, _ELEMENTWISE + _OF_MATRICES):
            raise ValueError(
                f"AdaptiveLayerRate: expected elementwise=True or False with {name}, not known here; "
                "True if every element's update depends on its own gradients alone."
            )
        is_elementwise = isinstance(inner, _ELEMENTWISE) if elementwise is None else elementwise
        own: Group = {"rule": name, "elementwise": is_elementwise}
        if group.get("adder"):
            own |= {"eta": eta, "alr": alr}
        return {**inner.defaults, **own, **group}

    def _check_sharding(self, group: Group, *, is_cut: bool) -> None:
        if is_cut and not group["elementwise"]:
            raise ValueError(
                f"AdaptiveLayerRate: expected unsharded parameters with {group['rule']}, whose update of "
                "an element depends on all of its layer, got sharded ones; use one process, DDP or AdamW."
            )


def _step(inner: Optimizer, group: Group, state: Mapping[Tensor, Any], **changed: Any) -> None:
    """A step of `inner` on one group, with the state that is ours and some settings changed meanwhile."""
    settings = {**group, **changed}
    inner.param_groups = [settings]
    inner.state = state  # type: ignore[assignment]  # a mapping that makes a dict for a new tensor
    inner.step()
    group.update({key: value for key, value in settings.items() if key != "params" and key not in changed})
    inner.param_groups, inner.state = [], {}  # type: ignore[assignment]


def _built(rule: Rule, *, steps_filters: bool) -> Optimizer:
    """The optimizer of `rule`, over no parameter of ours, for its defaults and its step.

    Raises:
        TypeError: it makes no optimizer.
        ValueError: it is one that cannot be treated exactly.
    """
    inner = rule([{"params": [Parameter(torch.zeros(1, 1))]}])
    if not isinstance(inner, Optimizer):
        raise TypeError(
            f"AdaptiveLayerRate: expected an optimizer's class or functools.partial of one, got "
            f"{rule!r:.60}; pass torch.optim.AdamW, for example."
        )
    name = type(inner).__name__
    refused = _REFUSED | _REFUSED_FOR_FILTERS if steps_filters else _REFUSED
    reason = refused.get(name.lower().removeprefix("fused"))
    if type(inner).__module__.startswith("deepspeed"):
        reason = _DEEPSPEED
    if reason is None and isinstance(inner, AdderOptimizer):
        reason = "it has its own adaptive rate; pass torch's optimizer"
    if reason is not None:
        raise ValueError(f"AdaptiveLayerRate: expected an optimizer that normalises, got {name}; {reason}.")
    for key in ("lr", "weight_decay"):
        if not isinstance(inner.defaults.get(key), int | float):
            raise ValueError(
                f"AdaptiveLayerRate: expected {name} with a number as {key}, got {inner.defaults.get(key)!r}."
            )
    for key in ("differentiable", "capturable"):
        if inner.defaults.get(key):
            raise ValueError(f"AdaptiveLayerRate: expected {key}=False, got True; it is not supported.")
    return inner
