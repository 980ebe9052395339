"""Mixed precision: autocast around forward and backward, parameters in fp32 under every strategy.

The adaptive rate is taken after unscaling: torch's GradScaler unscales before the step where gradients are
in `p.grad` (one process, DDP, FSDP2), DeepSpeed where it keeps them itself. An overflow skips the step.
"""

from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import precision as plugins
from torch import Tensor

from addertrain.train.processes import World

_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000
_SCALER_KEYS = {
    "scale": "scale",
    "_growth_tracker": "good_steps",
    "growth_factor": "growth_factor",
    "backoff_factor": "backoff_factor",
    "growth_interval": "growth_interval",
}
"""The state of torch's GradScaler (read in torch 2.14.1), and what our checkpoints call it."""


def named_scale(scaler: Mapping[str, Any]) -> dict[str, Any]:
    """A GradScaler's state with our names."""
    return {name: scaler[key] for key, name in _SCALER_KEYS.items()}


def scaler_state(named: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `named_scale`."""
    return {key: named[name] for key, name in _SCALER_KEYS.items()}


class LossScale:
    """The rule of torch's GradScaler for an engine that scales, looks for overflows and unscales itself.

    It has the attributes that DeepSpeed's ZeRO optimizers need, and the state of GradScaler.
    """

    dynamic = True

    def __init__(self) -> None:
        self.cur_scale = 2.0**16
        self._num_good_steps = 0

    def get_scale(self) -> float:
        """The current factor of losses."""
        return self.cur_scale

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The scaled loss, from which backward runs."""
        return loss * self.cur_scale

    def update_scale(self, has_overflow: bool) -> None:
        """Halves the scale after an overflow, doubles it after many steps without."""
        self._num_good_steps = 0 if has_overflow else self._num_good_steps + 1
        if has_overflow:
            self.cur_scale *= _BACKOFF
        elif self._num_good_steps == _INTERVAL:
            self.cur_scale, self._num_good_steps = self.cur_scale * _GROWTH, 0

    def state_dict(self) -> dict[str, Any]:
        """The state of GradScaler, so that a checkpoint can be resumed with another strategy."""
        return {
            "scale": self.cur_scale,
            "growth_factor": _GROWTH,
            "backoff_factor": _BACKOFF,
            "growth_interval": _INTERVAL,
            "_growth_tracker": self._num_good_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a saved scale."""
        self.cur_scale, self._num_good_steps = state["scale"], state["_growth_tracker"]


class MixedPrecision(plugins.MixedPrecision):
    """Lightning's plugin, on CPUs in fp16 too; with a `LossScale` it leaves scaling to the engine."""

    def __init__(
        self, precision: Literal["16-mixed", "bf16-mixed"], device: str, scale: LossScale | None = None
    ) -> None:
        super().__init__(precision, device)
        self.engine_scale = scale
        if scale is not None:
            self.scaler = scale  # type: ignore[assignment]

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        """Scales the loss, unless the engine does."""
        if self.engine_scale is None:
            return super().pre_backward(tensor, module)
        return plugins.Precision.pre_backward(self, tensor, module)


def precision_settings(name: str, strategy: str, world: World) -> dict[str, Any]:
    """The Trainer's arguments for `train.precision`."""
    if name == "fp32":
        return {"precision": "32-true"}
    if name == "bf16-mixed":
        return {"plugins": [MixedPrecision("bf16-mixed", world.device_type)]}
    scale = LossScale() if strategy.startswith("zero") else None
    return {"plugins": [MixedPrecision("16-mixed", world.device_type, scale)]}
