"""AdderClassifier in a Trainer of a user's own, around torch's DataLoader."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from addertrain.data import DatasetLoader, ImageArrays, load_data
from addertrain.errors import NonFiniteError
from addertrain.models import build_model
from addertrain.train import AdderClassifier, FiniteGuard, FirstBatches, RecalibratedEvaluation
from addertrain.train.classification_counts import Score
from addertrain.train.initial_weights import read_weights
from addertrain.train.run import evaluate
from tests.ranks import on_ranks
from tests.source_tree import ROOT
from tests.train.small_runs import (
    OPTIM,
    TinyNet,
    assert_same_bits,
    final_weights,
    launched,
    random_arrays,
    short_recipe,
)

MEAN, STD = (0.5,), (0.29,)


class _Dicts(Dataset[dict[str, Tensor]]):
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self._images[index], "label": self._labels[index]}


def _pairs(num_images: int = 96, *, seed: int = 1) -> TensorDataset:
    arrays = random_arrays(num_images, seed=seed)
    return TensorDataset(arrays.images_nchw.contiguous(), arrays.labels)


def _classifier(**settings: Any) -> AdderClassifier:
    torch.manual_seed(0)
    return AdderClassifier(
        TinyNet(), **{"mean": MEAN, "std": STD, "optim": OPTIM, "num_steps": 12, **settings}
    )


def _trainer(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        **{"devices": 1, "logger": False, "max_epochs": 2, **settings},
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_pairs_dicts_and_normalised_floats_train_alike(tmp_path: Path) -> None:
    """The same images as uint8 pairs, uint8 dicts and floats that the user normalised: the same network."""
    images, labels = _pairs().tensors
    floats = TensorDataset((images.float() / 255 - MEAN[0]) / STD[0], labels)
    trained = {}
    for name, data, settings in (
        ("pairs", TensorDataset(images, labels), {}),
        ("dicts", _Dicts(images, labels), {}),
        ("floats", floats, {"mean": None, "std": None}),
    ):
        module = _classifier(**settings)
        _trainer(tmp_path, enable_checkpointing=False).fit(module, DataLoader(data, batch_size=16))
        trained[name] = module.model.state_dict()

    for name, weight in trained["pairs"].items():
        assert torch.equal(trained["dicts"][name], weight)
        torch.testing.assert_close(trained["floats"][name], weight, rtol=1e-3, atol=1e-4)


def test_images_that_were_scaled_already_are_refused(tmp_path: Path) -> None:
    """ToTensor divides by 255; divided once more, the network would see a constant."""
    images, labels = _pairs(16).tensors
    loader = DataLoader(TensorDataset(images.float() / 255, labels), batch_size=16)

    with pytest.raises(TypeError, match=r"expected uint8 images.*got torch.float32.*mean=None, std=None"):
        _trainer(tmp_path, enable_checkpointing=False).fit(_classifier(), loader)


def test_uint8_images_without_a_mean_are_refused() -> None:
    with pytest.raises(TypeError, match="expected floating-point images"):
        _classifier(mean=None, std=None)(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images \[N, 1, H, W\]"):
        _classifier()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("std", [(0.0,), (-1.0,), (float("nan"),)])
def test_a_deviation_that_cannot_divide_is_refused(std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected positive standard deviations"):
        _classifier(std=std)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_users_logger_gets_loss_rate_and_accuracies(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    trainer = _trainer(tmp_path, logger=logger, log_every_n_steps=1, enable_checkpointing=False)

    trainer.fit(_classifier(), DataLoader(_pairs(), batch_size=16), DataLoader(_pairs(40), batch_size=16))

    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_loss", "lr", "val_loss", "val_top1", "val_top5"} <= set(header)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_test_predict_and_a_checkpoint_of_the_trainer(tmp_path: Path) -> None:
    loader = DataLoader(_pairs(40), batch_size=16)
    module = _classifier()
    trainer = _trainer(tmp_path)
    trainer.fit(module, DataLoader(_pairs(), batch_size=16), loader)
    (metrics,) = trainer.test(module, loader, verbose=False)
    saved = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]

    loaded = AdderClassifier.load_from_checkpoint(
        saved, model=TinyNet(), mean=MEAN, std=STD, optim=OPTIM, num_steps=12
    )
    logits = torch.cat(trainer.predict(loaded, loader))  # type: ignore[arg-type]

    assert module.val_score == module.test_score
    assert metrics["test_top1"] == pytest.approx(module.test_score.top1)  # type: ignore[union-attr]
    hits = (logits.argmax(1) == _pairs(40).tensors[1]).float().mean().item()
    assert 100 * hits == pytest.approx(metrics["test_top1"])
    images_only = DataLoader(_pairs(40).tensors[0], batch_size=16)  # type: ignore[arg-type]
    assert torch.equal(torch.cat(trainer.predict(loaded, images_only)), logits)  # type: ignore[arg-type]
    weights = read_weights(Path(saved))
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("num_steps", "settings", "words"),
    [
        (12, {}, None),
        (6, {"accumulate_grad_batches": 2}, None),
        (5, {"max_epochs": 100, "max_steps": 5}, None),
        (24, {}, "to be the 12 optimizer steps that this trainer makes, got 24"),
        (12, {"accumulate_grad_batches": 4}, "to be the 4 optimizer steps"),
    ],
)
def test_a_schedule_of_another_length_is_told(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    num_steps: int,
    settings: dict[str, int],
    words: str | None,
) -> None:
    """Under DDP a loader holds a rank's share: the number of batches before is too many by the ranks."""
    trainer = _trainer(tmp_path, enable_checkpointing=False, **settings)

    trainer.fit(_classifier(num_steps=num_steps), DataLoader(_pairs(), batch_size=16))

    told = {str(warning.message) for warning in recwarn if "num_steps" in str(warning.message)}
    assert len(told) == (words is not None)
    assert words is None or words in told.pop()


def _example() -> dict[str, Any]:
    """What the script of the page on Lightning leaves defined."""
    page = "docs/lightning.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n([^`]*AdderClassifier\([^`]*)```", text)
    names: dict[str, Any] = {}
    exec(compile(example, page, "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore")
def test_the_example_trains_with_a_plain_data_loader(tmp_path: Path) -> None:
    module = _example()["module"]
    data = TensorDataset(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4))

    _trainer(tmp_path, enable_checkpointing=False, max_steps=1).fit(module, DataLoader(data, batch_size=4))

    assert all(torch.isfinite(weight).all() for weight in module.model.parameters())
    assert isinstance(module.model, nn.Module)


@pytest.mark.filterwarnings("ignore")
def test_the_example_reaches_what_addertrain_does(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a run of `addertrain fit`, and the accuracies of `addertrain evaluate`, to the bit."""
    monkeypatch.chdir(tmp_path)  # where a Trainer without arguments writes
    recipe, quoted = short_recipe(), evaluate(finished, short_recipe("--train.recalibrate_batches=20"))
    data = load_data(recipe.data)
    assert isinstance(data.train, ImageArrays)
    assert isinstance(data.test, ImageArrays)
    train, test = (TensorDataset(part.images_nchw, part.labels) for part in (data.train, data.test))
    torch.manual_seed(recipe.train.seed)
    module = AdderClassifier(
        build_model("lenet5bn", kind="adder", num_classes=10),
        mean=data.mean,
        std=data.std,
        optim=recipe.optim,
        num_steps=3 * recipe.steps_per_epoch(len(train)),
    )

    _example()["train"](module, train, test, num_epochs=3, num_workers=0)

    run = final_weights(finished)
    assert_same_bits(module.model.state_dict(), {name: run[name] for name in module.model.state_dict()})
    score = module.val_score
    assert score is not None
    assert (score.top1, score.top5, score.loss) == (quoted.top1, quoted.top5, quoted.loss)
    assert module.trainer.callback_metrics["val_top1"] == pytest.approx(quoted.top1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_bad_batch_is_named_before_it_reaches_the_weights(tmp_path: Path) -> None:
    images, labels = _pairs().tensors
    floats = images.float() / 255
    floats[40] = float("nan")
    module = _classifier(mean=None, std=None)
    trainer = _trainer(tmp_path, enable_checkpointing=False, callbacks=[FiniteGuard()])

    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(module, DataLoader(TensorDataset(floats, labels), batch_size=16))

    assert "got NaN in the images in epoch 1, batch 3" in str(caught.value)
    assert "step 3; the step was not made, and the weights are those before it; correct" in str(caught.value)
    assert all(torch.isfinite(weight).all() for weight in module.parameters())


class _Flipped(Dataset[tuple[Tensor, int]]):
    """Random images, half of them mirrored by a transform that draws from torch's generator."""

    def __init__(self) -> None:
        arrays = random_arrays()
        self._images, self._labels = arrays.images_nchw, arrays.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._images[index]
        return image.flip(2) if torch.rand(()) < 0.5 else image, int(self._labels[index])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_validate_test_and_predict_read_the_same_network(tmp_path: Path) -> None:
    """Pairs of a plain DataLoader, also those that the statistics are recomputed on."""
    module, images = _classifier(), DataLoader(_pairs(40, seed=2), batch_size=16)
    live = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrated = RecalibratedEvaluation(DataLoader(_pairs(), batch_size=16), with_uncalibrated=True)
    trainer = _trainer(tmp_path, enable_checkpointing=False, callbacks=[recalibrated])

    trainer.validate(module, images, verbose=False)
    trainer.test(module, images, verbose=False)
    logits = torch.cat(trainer.predict(module, images))  # type: ignore[arg-type]

    loss = torch.nn.functional.cross_entropy(logits, _pairs(40, seed=2).tensors[1]).item()
    assert module.val_score == module.test_score != recalibrated.uncalibrated_score
    assert module.val_score is not None
    assert module.val_score.loss == pytest.approx(loss, rel=1e-5)
    assert_same_bits(module.state_dict(), live)


class _Interrupted(Exception):
    pass


class _Interrupt(Callback):
    """Ends the training once a step is made, behind what saves."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self._step:
            raise _Interrupted


def _resumable(folder: Path, *callbacks: Callback, resume: Path | None = None) -> AdderClassifier:
    torch.manual_seed(1 if resume else 0)  # another session has other random numbers
    module = AdderClassifier(TinyNet(), mean=MEAN, std=STD, optim=OPTIM, num_steps=18)
    train = DatasetLoader(_Flipped(), global_batch_size=16, training=True)
    test = DatasetLoader(_pairs(40, seed=2), global_batch_size=16, training=False)
    recalibrated = RecalibratedEvaluation(FirstBatches(train, 2), with_uncalibrated=True)
    trainer = _trainer(folder, max_epochs=3, callbacks=[recalibrated, FiniteGuard(), *callbacks])
    trainer.fit(module, train, test, ckpt_path=resume)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [8, 12])
def test_an_interrupted_training_ends_as_a_whole_one(tmp_path: Path, step: int) -> None:
    """In the middle of an epoch of six steps, and behind its last one."""
    whole = _resumable(tmp_path)
    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    with pytest.raises(_Interrupted):
        _resumable(tmp_path, saves, _Interrupt(step + 1))

    resumed = _resumable(tmp_path, resume=tmp_path / f"step={step}.ckpt")

    assert_same_bits(resumed.state_dict(), whole.state_dict())
    assert resumed.val_score == whole.val_score


def _on_rank(folder: Path) -> tuple[Score | None, Score | None, dict[str, Tensor]]:
    launched()
    torch.manual_seed(0)
    module = _classifier()
    rank, train_set, test_set = dist.get_rank(), _Flipped(), _pairs(41, seed=2)
    train = DatasetLoader(train_set, global_batch_size=16, training=True, rank=rank, world_size=2)
    test = DatasetLoader(test_set, global_batch_size=16, training=False, rank=rank, world_size=2)
    evaluation = RecalibratedEvaluation(FirstBatches(train, 2), with_uncalibrated=True)
    callbacks = [evaluation, FiniteGuard()]
    trainer = _trainer(folder, strategy="ddp", devices=2, enable_checkpointing=False, callbacks=callbacks)
    trainer.fit(module, train, test)
    return module.val_score, evaluation.uncalibrated_score, module.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_ranks_read_one_network_and_every_image_once(tmp_path: Path) -> None:
    (score, uncalibrated, weights), *others = on_ranks(2, _on_rank, tmp_path)

    assert others[0][:2] == (score, uncalibrated)
    assert score is not None
    assert score.num_images == 41
    assert score != uncalibrated
    statistics = "model.norm.running_mean"  # of the images that a rank trained on: nobody changed them
    assert torch.equal(others[0][2]["model.conv.weight"], weights["model.conv.weight"])
    assert not torch.equal(others[0][2][statistics], weights[statistics])
