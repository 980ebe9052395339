"""The private parts of Lightning that we replace: a release that changes them has to show here."""

import inspect
import signal
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from addertrain.train.module import AdderClassifier
from addertrain.train.quiet import leave_signals_alone
from tests.train.small_runs import OPTIM, TinyNet, random_loader


def test_what_is_replaced_still_exists() -> None:
    assert "_broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance)
    assert list(inspect.signature(_SignalConnector.register_signal_handlers).parameters) == ["self"]


class _Watch(Callback):
    def __init__(self) -> None:
        self.handler: object = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)


def test_training_does_not_touch_the_signal_handlers(tmp_path: Path) -> None:
    watch, before = _Watch(), signal.getsignal(signal.SIGTERM)
    trainer = Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    leave_signals_alone(trainer)

    trainer.fit(
        AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=6),
        random_loader(training=True),
    )

    assert watch.handler == before
