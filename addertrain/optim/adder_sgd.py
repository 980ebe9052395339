"""SGD for adder networks: the order of one update, in foreach operations and without a host sync.

The rate is in scaling.py, norms in gradient_norms.py, the layout of sharded tensors in shards.py, the
arithmetic of SGD in descent.py, the authors' variant in local_scaling.py, and checks in validation.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.descent import descend
from addertrain.optim.gradient_norms import sq_norms
from addertrain.optim.local_scaling import LocalScaling
from addertrain.optim.scaling import AlrMode, as_factors, local_rate
from addertrain.optim.shards import Shards, local
from addertrain.optim.validation import Group, check_hyperparameters


class AdderSGD(AdderOptimizer):
    """SGD with momentum whose adder filters get the adaptive learning rate of Eq. 13.

    In the order of the authors' code: alpha_l = eta * sqrt(k) / ||g_l|| scales the raw gradient of layer l,
    weight decay is added, then momentum, then lr. The gradient is the one `step` finds: after all-reduce,
    accumulation and unscaling, unsharded or sharded (FSDP2; DeepSpeed after `bind`). Other parameters take
    plain SGD. `p.grad` is left as it is.

    Args:
        params: groups of `addertrain.nn.param_groups`: one with adder=True holds all adder filters.
        eta: root mean square of a scaled gradient.
        alr: see `addertrain.optim.scaling`; "local" adds hooks to backward, which `remove_hooks` removes.
        increase: alpha of alr="increased".

    To skip a step without a host sync, set `is_sound` to a 0-dim bool tensor on the parameters' device; if it
    is false, `step` changes neither parameters nor momentum.

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
        for each in self.param_groups:
            check_hyperparameters(each)
        self._local: LocalScaling | None = None
        group = self.built_groups[self.adder_index]
        if group["alr"] == "local":
            self._local = LocalScaling(self.filters, eta=group["eta"], owner=self)

    def remove_hooks(self) -> None:
        """Removes the backward hooks of alr="local"; without them this optimizer refuses to step."""
        if self._local is not None:
            self._local.remove()
            self._local = None

    @torch.no_grad()
    def prepare_state(self) -> None:
        """Make the momentum of all parameters, as zeros; momentum that is there stays."""
        for index, group in enumerate(self.built_groups):
            if group["momentum"] != 0 and self.originals[index]:
                for tensor in (tensor for shards in self.shards_of(index) for tensor in shards.tensors):
                    self.state[tensor].setdefault("momentum_buffer", torch.zeros_like(tensor))

    def _update(self) -> None:
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load momentum and hyperparameters; refuses the state of other layers before anything is changed."""
        super().load_state_dict(state_dict)
        if self._local is not None:
            self._local.eta = self.built_groups[self.adder_index]["eta"]

    def _scaled(
        self, group: Group, shards: Shards, params: Sequence[Tensor], grads: list[Tensor]
    ) -> tuple[list[Tensor], bool]:
        """alpha_l * g_l of this rank's shards, and whether these are new tensors."""
        if group["alr"] == "local":  # scaled in backward
            if self._local is None:
                raise ValueError(
                    'AdderSGD: expected the gradient hooks of alr="local", got none; '
                    "do not step after remove_hooks."
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

    def _rates(self, group: Group, sq_norm: Tensor) -> Tensor:
        if group["alr"] == "global":
            return local_rate(sq_norm, self._numel_on(sq_norm.device), group["eta"])
        return torch.full_like(sq_norm, group["increase"] if group["alr"] == "increased" else 1.0)

    def _momentum_buffers(self, params: Sequence[Tensor], group: Group) -> list[Tensor]:
        """This rank's shards of the momentum of `params`; none if there is no momentum."""
        if group["momentum"] == 0:
            return []
        for param in params:
            if "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        return [local(self.state[param]["momentum_buffer"]) for param in params]
