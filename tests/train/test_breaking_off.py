"""An error in the middle of a step comes out as itself under every strategy, whatever it leaves gathered."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from addertrain.train.run import fit
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.train.small_runs import launched, short_recipe

STRATEGIES = ("ddp", "zero2", "zero3", "fsdp")


class _Broken(Exception):
    pass


class _Break(Callback):
    """Raises in a layer of the second step, forward or backward."""

    def __init__(self, *, in_backward: bool) -> None:
        self._in_backward = in_backward

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == 1:
            pl_module.get_submodule("model.conv2").register_forward_hook(self._hook)

    def _hook(self, layer: nn.Module, inputs: object, output: Tensor) -> None:
        if self._in_backward:
            output.register_hook(_raise)
        else:
            _raise()


def _raise(*_: Any) -> None:
    raise _Broken("in the middle")


def _errors(folder: Path) -> dict[str, str]:
    launched()
    words = ("--schedule.epochs=1", "--train.recalibrate_batches=0", "--train.evaluate_uncalibrated=false")
    found: dict[str, str] = {}
    for strategy in STRATEGIES:
        for in_backward in (False, True):
            name = f"{strategy}, {'backward' if in_backward else 'forward'}"
            recipe = short_recipe(*words, f"--train.strategy={strategy}")
            try:
                fit(recipe, folder / name, callbacks=[_Break(in_backward=in_backward)])
            except Exception as error:
                found[name] = repr(error)
    return found


@pytest.mark.distributed
@pytest.mark.timeout(200)
@needs_deepspeed
def test_an_error_in_a_step_comes_out_as_itself(tmp_path: Path) -> None:
    (found,) = on_ranks(1, _errors, tmp_path, timeout_s=170)

    assert len(found) == 2 * len(STRATEGIES)
    assert set(found.values()) == {repr(_Broken("in the middle"))}, found
