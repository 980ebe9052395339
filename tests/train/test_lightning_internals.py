"""The private parts of Lightning that are touched: a release that changes one has to show here."""

import inspect
import re
import signal
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch import nn
from torch.optim import Optimizer

from addertrain.train.callbacks.clock import DataWait
from addertrain.train.lightning_internals import RUNNING_HOOK, announce_step, leave_signals_alone
from addertrain.train.module import AdderClassifier
from tests.source_tree import PACKAGE, ROOT, python_files
from tests.train.small_runs import OPTIM, TinyNet, random_loader

# An attribute whose name begins with an underscore, of an object that is Lightning's.
PRIVATE = re.compile(
    r"\b(trainer|plugin|precision_plugin|\w+_loop|connector)\._[a-z]\w*|\.fit_loop\b|_current_fx_name"
)
PRIVATE_IMPORT = re.compile(r"^\s*from lightning[\w.]* import .*\b_[a-zA-Z]", flags=re.M)


class Watch(Callback):
    """Notes the signal handler of a training, and every announcement of a step."""

    def __init__(self) -> None:
        self.handler: object = None
        self.num_announced = self.num_steps = 0

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        self.num_announced += 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.handler, self.num_steps = signal.getsignal(signal.SIGTERM), trainer.global_step


def _trained(folder: Path, watch: Watch, profiler: DataWait) -> Trainer:
    """Six steps with the signals left alone."""
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch], profiler=profiler,
    )  # fmt: skip
    leave_signals_alone(trainer)
    torch.manual_seed(0)
    module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=6)
    trainer.fit(module, random_loader(training=True))
    return trainer


def test_what_is_replaced_still_exists() -> None:
    assert "_broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    assert list(inspect.signature(_SignalConnector.register_signal_handlers).parameters) == ["self"]


def test_training_does_not_touch_the_signal_handlers(tmp_path: Path) -> None:
    watch, before = Watch(), signal.getsignal(signal.SIGTERM)

    _trained(tmp_path, watch, DataWait())

    assert watch.handler == before


def test_the_wait_for_a_batch_and_the_running_hook_have_their_names(tmp_path: Path) -> None:
    """Under another name the wait would be zero, and the hook would go through `nn.Module` again."""
    profiler = DataWait()

    trainer = _trained(tmp_path, Watch(), profiler)

    assert profiler.seconds > 0
    assert RUNNING_HOOK in vars(trainer.lightning_module)


def test_announcing_a_step_calls_the_callbacks_hook(tmp_path: Path) -> None:
    watch = Watch()
    trainer = _trained(tmp_path, watch, DataWait())
    assert watch.num_announced == watch.num_steps == 6

    announce_step(trainer.precision_plugin, trainer.lightning_module, trainer.optimizers[0])

    assert watch.num_announced == 7
    assert list(inspect.signature(Precision._after_closure).parameters) == ["self", "model", "optimizer"]
    assert isinstance(trainer.lightning_module, nn.Module)


def test_private_names_of_lightning_are_in_one_file() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in python_files()
        if PRIVATE.search(text := path.read_text(encoding="utf-8")) or PRIVATE_IMPORT.search(text)
    }

    assert found == {"train/lightning_internals.py"}


def test_the_versions_that_are_held_are_those_that_were_read() -> None:
    """A new minor version is allowed once its sources have been read, here and in `loop_state`."""
    requirement = re.search(r'"lightning(>=[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert requirement is not None
    assert requirement[1] == ">=2.6,<2.7"
    for name in ("lightning_internals", "loop_state", "strategies/lightning_checkpoint"):
        assert "Lightning 2.6" in (PACKAGE / "train" / f"{name}.py").read_text(encoding="utf-8")
