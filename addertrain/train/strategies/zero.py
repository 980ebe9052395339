"""DeepSpeed's ZeRO, stages 1 to 3, with the settings under which AdderSGD is exact, also on CPUs.

No other file imports DeepSpeed. Facts are of DeepSpeed 0.19.
"""

import logging
import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from addertrain.errors import UsageError
from addertrain.optim import bind
from addertrain.train.lightning_internals import announce_step
from addertrain.train.strategies.gradients import Gradients
from addertrain.train.strategies.precision import LossScale, MixedPrecision
from addertrain.train.strategies.sharded import PartedNetwork, Sharded


class Zero(Sharded):
    """Stages 1 and 2: parameters are unsharded, momentum (and gradients in stage 2) are sharded."""

    def __init__(self, *, stage: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.stage = stage

    def shard(self, trainer: Trainer) -> None:
        """Gives module and optimizer to a DeepSpeed engine, which becomes `self.model`."""
        deepspeed = import_deepspeed(self.root_device.type)
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))  # it asks for a launcher's, alone too
        self.setup_optimizers(trainer)
        plugin = self.precision_plugin
        scale = plugin.engine_scale if isinstance(plugin, MixedPrecision) else None
        engine, *_ = deepspeed.initialize(
            model=self._module(),
            optimizer=self.adder_optimizer(),
            config=engine_settings(
                self.stage,
                device_type=self.root_device.type,
                accumulates=trainer.accumulate_grad_batches > 1,
                scales=scale is not None,
            ),
            dist_init_required=False,
        )
        bind(engine)
        self._show_gradients(engine)
        if scale is not None:
            let_engine_scale(engine, scale)
        self.model = engine

    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Runs the engine's backward, which scales, reduces and shards."""
        loss = self.precision_plugin.pre_backward(closure_loss, self._module())
        engine: Any = self.model
        engine.backward(loss)
        return self.precision_plugin.post_backward(loss, self._module())

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Forward and backward (the closure), then the engine's step, which calls AdderSGD's."""
        result = closure()
        engine: Any = self.model
        engine.step()
        return result

    def gradients(self) -> Gradients:
        """This rank's shards in the engine's buffers, under its loss scale."""
        engine_optimizer: Any = self.model.optimizer  # type: ignore[union-attr]
        groups = engine_optimizer.fp16_groups if self.stage == 3 else engine_optimizer.params_in_partition
        parameters: list[Tensor] = []
        values: list[Tensor] = []
        for index, group in enumerate(groups):
            kept = engine_optimizer.averaged_gradients[index]
            parts = [part for part in kept if not getattr(part, "_zero_padding", False)]
            for parameter, part in zip(group, parts, strict=False):  # padding alone, where it has none
                parameters.append(parameter)
                values.append(part)
        plugin = self.precision_plugin
        scale = plugin.engine_scale if isinstance(plugin, MixedPrecision) else None
        return Gradients(parameters, values, 1.0 if scale is None else scale.get_scale())

    def _show_gradients(self, engine: Any) -> None:
        """Lets the callbacks see the gradients once they are reduced: right before the engine uses them."""
        make_step = engine.optimizer.step

        def step(*args: Any, **kwargs: Any) -> Any:
            announce_step(self.precision_plugin, self._module(), self.adder_optimizer())
            return make_step(*args, **kwargs)

        engine.optimizer.step = step

    def teardown(self) -> None:
        """Removes the engine's hooks from the module."""
        engine: Any = self.model
        if hasattr(engine, "destroy"):
            engine.destroy()
            self.model = None
        super().teardown()


class Zero3(PartedNetwork, Zero):
    """Stage 3: the parameters are sharded too."""


def import_deepspeed(device_type: str) -> ModuleType:
    """Imports DeepSpeed for this device, without its messages.

    Raises:
        UsageError: it is not installed.
    """
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it would warn that it found no GPU
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Deprecated names of collectives, which it uses.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        import deepspeed
    except ImportError as error:
        raise UsageError(
            f"train.strategy: zero1, zero2 and zero3 need DeepSpeed ({error}); install it with launch/setup "
            "all, or use ddp or fsdp; see docs/troubleshooting.md#ffcv-or-deepspeed-is-missing"
        ) from None
    module: ModuleType = deepspeed
    module.utils.logging.logger.setLevel(logging.ERROR)
    # Compiled in every process at its start, for an all-reduce of inference on CPUs.
    module.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return module


def engine_settings(stage: int, *, device_type: str, accumulates: bool, scales: bool) -> dict[str, Any]:
    """DeepSpeed's configuration for `stage`; every entry is needed because its default would be wrong.

    Args:
        accumulates: several backward passes per step; the caller says where a step ends.
        scales: a loss scale is in use, so overflows have to be looked for.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "round_robin_gradients": False,  # DeepSpeed's own tables ignore that order
        # Communication overlaps backward; on CPUs there are no streams.
        "overlap_comm": device_type == "cuda" and (stage == 2 or not accumulates),
    }
    if stage < 3 and not scales:
        zero["compute_grad_norm"] = False  # only clipping reads it, and it waits for the device every step
    return {
        "train_micro_batch_size_per_gpu": 1,  # for its own speed report alone
        "gradient_clipping": 0.0,  # its default is 1.0
        "managed_gradient_accumulation": not accumulates,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
    }


def let_engine_scale(engine: Any, scale: LossScale) -> None:
    """fp16 autocast over fp32 parameters: the engine's own scaling is tied to fp16 parameters.

    Its ZeRO optimizers multiply the loss by `loss_scaler.cur_scale`, look for overflows over all ranks, and
    divide the gradients before the step, whatever the parameters' type.
    """
    engine.optimizer.loss_scaler = scale
    engine.optimizer.dynamic_loss_scale = True
    engine.optimizer.check_grad_overflow = True
