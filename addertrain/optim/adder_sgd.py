"""SGD for adder networks: the order of one update, in foreach operations and without a host sync.

Leaves the rate to scaling.py, the norms to norms.py, the authors' variant to local_scaling.py and refusals to
validation.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from addertrain.optim.local_scaling import LocalScaling
from addertrain.optim.modes import AlrMode
from addertrain.optim.norms import sq_norms
from addertrain.optim.scaling import local_rate
from addertrain.optim.validation import (
    Group,
    check_filters,
    check_groups,
    check_hyperparameters,
    check_saved_state,
)


class AdderSGD(Optimizer):
    """SGD with momentum whose adder filters get the adaptive learning rate of Eq. 13.

    In the order of the authors' code: alpha_l = eta * sqrt(k) / ||g_l|| scales the raw gradient of layer l,
    weight decay is added, then momentum, then lr. The gradient is the one `step` finds: after all-reduce,
    accumulation and unscaling. Other parameters take plain SGD. `p.grad` is left as it is.

    Args:
        params: groups of `addertrain.nn.param_groups`: one with adder=True holds all adder filters.
        eta: root mean square of a scaled gradient.
        alr: see `addertrain.optim.modes`; "local" hooks into backward, `remove_hooks` takes that back.
        increase: alpha of alr="increased".

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
        group = self._adder_group()
        self._filters: list[Tensor] = list(group["params"])
        self.layer_names: list[str] = list(group["layer_names"])
        self.last_sq_norms = torch.zeros(len(self._filters))
        self.last_rates = torch.zeros(len(self._filters))
        device = self._filters[0].device if self._filters else None
        self._numel = torch.tensor(group["layer_numel"], dtype=torch.float64, device=device)
        self._local: LocalScaling | None = None
        if group["alr"] == "local":
            self._local = LocalScaling(self._filters, eta=group["eta"], owner=self)

    def remove_hooks(self) -> None:
        """Take the backward hooks of alr="local" off; without them this optimizer refuses to step."""
        if self._local is not None:
            self._local.remove()
            self._local = None

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
            params = [param for param in group["params"] if param.grad is not None]
            if group["adder"]:
                check_filters(group, self._filters)
            if not params:
                continue
            grads = self._scaled_grads(group) if group["adder"] else [param.grad for param in params]
            descend(params, grads, self._momentum_buffers(params, group), group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load momentum and hyperparameters; refuses the state of other layers before anything is changed."""
        check_saved_state(state_dict, self.param_groups)
        super().load_state_dict(state_dict)
        if self._local is not None:
            self._local.eta = self._adder_group()["eta"]

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "AdderSGD: expected to be rebuilt, not copied or pickled; use state_dict and load_state_dict."
        )

    def _adder_group(self) -> Group:
        return next(group for group in self.param_groups if group["adder"])

    def _scaled_grads(self, group: Group) -> list[Tensor]:
        """alpha_l * g_l of every filter that has a gradient."""
        grads: list[Tensor | None] = [param.grad for param in self._filters]
        present = [grad for grad in grads if grad is not None]
        if group["alr"] == "local":  # scaled in backward
            if self._local is None:
                raise ValueError(
                    'AdderSGD: expected the hooks of alr="local", got none; do not step after remove_hooks.'
                )
            self.last_sq_norms, self.last_rates = self._local.seen(present[0])
            return present
        sq_norm = sq_norms(grads)
        rate = self._rates(group, sq_norm)
        self.last_sq_norms, self.last_rates = sq_norm.float(), rate.float()
        if group["alr"] == "off":
            return present
        # 0-dim tensors as factors: reading them as numbers would wait for the device.
        rates = [alpha for alpha, grad in zip(rate.unbind(), grads, strict=True) if grad is not None]
        return list(torch._foreach_mul(present, rates))

    def _rates(self, group: Group, sq_norm: Tensor) -> Tensor:
        if group["alr"] == "global":
            # Made on the filters' device at construction: this casts once and copies nothing over.
            self._numel = self._numel.to(device=sq_norm.device, dtype=sq_norm.dtype)
            return local_rate(sq_norm, self._numel, group["eta"])
        return torch.full_like(sq_norm, group["increase"] if group["alr"] == "increased" else 1.0)

    def _momentum_buffers(self, params: Sequence[Tensor], group: Group) -> list[Tensor]:
        if group["momentum"] == 0:
            return []
        for param in params:
            if "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        return [cast(Tensor, self.state[param]["momentum_buffer"]) for param in params]


def descend(
    params: Sequence[Tensor], grads: Sequence[Tensor], buffers: Sequence[Tensor], group: Group
) -> None:
    """One SGD update in place: g += wd * p; m = mu * m + g; p -= lr * (g + mu * m if nesterov else m)."""
    params, grads, buffers = list(params), list(grads), list(buffers)
    if group["weight_decay"] != 0:
        grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
    if group["momentum"] != 0:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        grads = (
            list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
            if group["nesterov"]
            else buffers
        )
    torch._foreach_add_(params, grads, alpha=-group["lr"])
