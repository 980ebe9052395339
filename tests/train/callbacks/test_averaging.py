"""Averaged weights and recalibrated statistics: what evaluations read, what training never notices."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from addertrain.checkpoint.files import read_tensors
from addertrain.train.callbacks.averaging import WeightAverage, decay_at
from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.evaluation import evaluated
from addertrain.train.loaders import FirstBatches
from addertrain.train.module import AdderClassifier
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory
from tests.train.small_runs import (
    OPTIM,
    TinyNet,
    assert_same_bits,
    final_weights,
    random_loader,
    short_recipe,
)

AVERAGED = ("--train.ema_decay=0.8",)


class _History(Callback):
    """The weights before training and after every step."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._note(pl_module)

    def _note(self, module: LightningModule) -> None:
        self.weights.append(module.get_parameter("model.conv.weight").detach().double())


def _evaluation(average: WeightAverage) -> RecalibratedEvaluation:
    batches = FirstBatches(random_loader(training=True), 2)
    return RecalibratedEvaluation(batches, weights=average.whole, with_uncalibrated=True)


def _trained(*callbacks: Callback, num_epochs: int = 2, with_evaluation: bool = True) -> AdderClassifier:
    torch.manual_seed(0)
    module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=12)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, inference_mode=False, max_epochs=num_epochs,
        callbacks=list(callbacks),
    )  # fmt: skip
    loaders = [random_loader(40, training=False)] if with_evaluation else []
    trainer.fit(module, random_loader(training=True), *loaders)
    return module


def test_the_average_is_its_recursion() -> None:
    history, average = _History(), WeightAverage(0.5)

    _trained(average, history)

    expected = history.weights[0]
    for step, weights in enumerate(history.weights[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        assert decay_at(step, 0.5) == decay
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(average._average[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_training_is_the_same_bit_for_bit_with_and_without() -> None:
    average = WeightAverage(0.9)

    averaged = _trained(average, _evaluation(average))

    assert_same_bits(averaged.state_dict(), _trained().state_dict())


def test_scores_are_those_of_the_networks_they_are_said_to_be() -> None:
    average = WeightAverage(0.5)
    evaluation = _evaluation(average)
    module = _trained(average, evaluation)
    assert module.val_score is not None
    assert evaluation.uncalibrated_score is not None
    assert evaluation.seconds > 0
    images = [batch.images for batch in FirstBatches(random_loader(training=True), 2)]

    def loss(trained: AdderClassifier) -> float:
        batches = list(random_loader(40, training=False))
        total = sum(
            torch.nn.functional.cross_entropy(trained(batch.images), batch.labels, reduction="sum").item()
            for batch in batches
        )
        return total / 40

    module.eval()
    with torch.no_grad():
        assert evaluation.uncalibrated_score.loss == pytest.approx(loss(module), rel=1e-6)
        with evaluated(module, weights=average.whole(), statistics=images):
            assert module.val_score.loss == pytest.approx(loss(module), rel=1e-6)
    assert abs(evaluation.uncalibrated_score.loss - module.val_score.loss) > 1e-3


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "averaged"
    fit(short_recipe(*AVERAGED), path)
    return path


def _average(run: Path) -> dict[str, Tensor]:
    return read_tensors(RunDirectory(run).store.newest_first()[0], "average")


def test_the_live_weights_are_those_of_a_run_without(averaged: Path, finished: Path) -> None:
    live = {name: w for name, w in final_weights(averaged).items() if not name.startswith("average/")}
    assert_same_bits(live, final_weights(finished))


def test_an_evaluation_reads_the_average_and_the_curves_show_both(averaged: Path, finished: Path) -> None:
    result, live = evaluate(averaged), evaluate(finished)

    assert result.loss != live.loss
    assert result.top1_uncalibrated == live.top1_uncalibrated  # live weights, live statistics
    events = EventAccumulator(str(averaged)).Reload()
    last = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert last["accuracy/val_top1"] == pytest.approx(result.top1)
    assert last["accuracy/val_top1_uncalibrated"] == pytest.approx(result.top1_uncalibrated)
    assert last["speed/recalibration_seconds"] > 0
