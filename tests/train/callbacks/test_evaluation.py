"""Recalibrated evaluations around a Trainer: what they see, and that training never notices."""

from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.data import Batch, MemoryLoader
from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.loaders import FirstBatches
from addertrain.train.module import AdderClassifier
from tests.train.small_runs import OPTIM, TinyNet, assert_same_bits, random_arrays, random_loader


def _trained(folder: Path, *callbacks: Callback, num_epochs: int = 3) -> AdderClassifier:
    torch.manual_seed(0)
    module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=18)
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, inference_mode=False,
        max_epochs=num_epochs, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, random_loader(training=True), random_loader(40, training=False))
    return module


def _fresh(num_batches: int = 2) -> RecalibratedEvaluation:
    return RecalibratedEvaluation(FirstBatches(random_loader(training=True), num_batches))


def test_training_is_the_same_bit_for_bit_with_and_without(tmp_path: Path) -> None:
    without, averaged = _trained(tmp_path), _trained(tmp_path, RecalibratedEvaluation(None))
    recalibrated = _trained(tmp_path, _fresh())

    assert_same_bits(without.state_dict(), recalibrated.state_dict())
    assert_same_bits(without.state_dict(), averaged.state_dict())


class _Watch(Callback):
    """Copies the running statistics before, during and after an evaluation that it comes behind."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._copy("before", pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._copy("during", pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._copy("after", pl_module)

    def _copy(self, when: str, module: LightningModule) -> None:
        self.seen[when] = module.get_buffer("model.norm.running_mean").clone()


def test_an_evaluation_sees_fresh_statistics_and_leaves_the_live_ones(tmp_path: Path) -> None:
    watch = _Watch()

    module = _trained(tmp_path, _fresh(), watch, num_epochs=1)

    assert not torch.equal(watch.seen["during"], watch.seen["before"])
    assert torch.equal(watch.seen["after"], watch.seen["before"])
    assert torch.equal(module.get_buffer("model.norm.running_mean"), watch.seen["before"])


def _means(module: AdderClassifier, batches: FirstBatches) -> Tensor:
    """The mean over batches of each batch's mean response, by channel, in float64."""
    responses = [module.model.conv(module.normalised(batch.images)) for batch in batches]
    return torch.stack([response.double().mean((0, 2, 3)) for response in responses]).mean(0)


def test_statistics_are_those_of_the_batches(tmp_path: Path) -> None:
    watch = _Watch()

    module = _trained(tmp_path, _fresh(num_batches=2), watch, num_epochs=1)

    expected = _means(module, FirstBatches(random_loader(training=True), 2))
    assert torch.allclose(watch.seen["during"].double(), expected, rtol=1e-5)


def test_the_last_epochs_have_statistics_of_images_like_theirs(tmp_path: Path) -> None:
    def loader() -> MemoryLoader:
        return MemoryLoader(
            random_arrays(), global_batch_size=16, training=True, augmentation="crop_flip", crop_until=1
        )

    whole, cropped = (FirstBatches(loader(), 2, epoch=epoch) for epoch in (1, 0))
    for num_epochs, batches in ((1, cropped), (2, whole)):
        watch = _Watch()
        module = _trained(
            tmp_path, RecalibratedEvaluation(FirstBatches(loader(), 2)), watch, num_epochs=num_epochs
        )
        assert torch.allclose(watch.seen["during"].double(), _means(module, batches), rtol=1e-5)


def _samples(batches: Iterator[Batch] | FirstBatches) -> list[list[int]]:
    return [batch.samples.tolist() for batch in batches]


def test_the_batches_are_the_same_every_time() -> None:
    loader = random_loader(training=True)
    first = FirstBatches(loader, 3)

    once = _samples(first)
    loader.set_epoch(5)

    assert len(once) == 3
    assert _samples(first) == once


def test_ranks_share_the_very_batches_of_one_process() -> None:
    alone = _samples(FirstBatches(random_loader(training=True), 5))

    shares = [
        _samples(FirstBatches(random_loader(training=True), 5, rank=rank, world_size=3)) for rank in range(3)
    ]

    assert [len(share) for share in shares] == [2, 2, 1]
    assert sorted(batch for share in shares for batch in share) == sorted(alone)


class _Broken(Exception):
    pass


class _Fails(Callback):
    def on_validation_batch_start(self, *_: object) -> None:
        raise _Broken


def test_live_statistics_come_back_when_an_evaluation_breaks_off(tmp_path: Path) -> None:
    watch, fresh = _Watch(), _fresh()
    kept: list[LightningModule] = []

    class Keep(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            kept.append(pl_module)

    try:
        _trained(tmp_path, fresh, watch, Keep(), _Fails())
    except _Broken:
        pass
    else:
        raise AssertionError("expected the evaluation to fail")

    assert torch.equal(kept[0].get_buffer("model.norm.running_mean"), watch.seen["before"])
