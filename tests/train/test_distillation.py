"""Learning from a teacher: the losses by hand, who learns from whom, and what checkpoints hold."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from addertrain.checkpoint.files import read_tensors
from addertrain.data import ImageArrays, MemoryLoader, load_data
from addertrain.errors import CheckpointError, RecipeError
from addertrain.models import LeNet5BN
from addertrain.recipe import DistillRecipe
from addertrain.train.building import build_network
from addertrain.train.distillation import DistillingClassifier, blended_loss
from addertrain.train.feature_matching import FeatureMatching, Recorder, kernel, matched_layers
from addertrain.train.initial_weights import load_weights, read_weights
from addertrain.train.module import AdderClassifier
from addertrain.train.network import build_classifier
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import (
    OPTIM,
    TinyNet,
    assert_same_bits,
    final_weights,
    launched,
    random_loader,
    rewind,
    short_recipe,
)

TWIN = ("--distill.teacher=twin", "--schedule.epochs=2", "--train.recalibrate_batches=0")


def test_the_blend_is_its_formula() -> None:
    student, teacher, hard = torch.randn(3, 5), torch.randn(3, 5), torch.tensor(1.3)
    p, q = (teacher / 2.5).softmax(1), (student / 2.5).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()

    got = blended_loss(student, teacher, hard, weight=0.3, temperature=2.5)

    torch.testing.assert_close(got, 0.7 * hard + 0.3 * 2.5**2 * divergence)
    assert blended_loss(student, teacher, hard, weight=0.0, temperature=4.0) == hard


def test_the_kernel_of_a_distance_is_laplaces() -> None:
    distance = torch.tensor([0.0, 1.0, 3.0])

    assert torch.allclose(kernel(distance, 0.8), torch.exp(-distance / (2 * 0.64)))
    assert kernel(distance.half(), 1.0).dtype == torch.float32


def test_the_last_norm_of_each_width_is_matched_but_for_the_logits() -> None:
    student, teacher = LeNet5BN(kind="adder"), LeNet5BN(kind="conv")

    assert matched_layers(student, teacher, num_classes=10) == {
        "norm1": 6, "norm2": 16, "norm3": 120, "norm4": 84,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"set distill\.feature_weight to 0"):
        matched_layers(student, TinyNet(), num_classes=10)


def test_a_recorder_keeps_features_only_while_it_records() -> None:
    model, x = TinyNet(), torch.randn(2, 1, 8, 8)
    recorder = Recorder(model, ["norm"])

    model(x)
    with recorder.recording() as features:
        model(x)
        assert list(features) == ["norm"]
        assert features["norm"].shape == (2, 4, 6, 6)
    model(x)
    assert not recorder._features


def test_matching_draws_the_student_and_leaves_the_teacher() -> None:
    matching = FeatureMatching({"a": 3, "b": 4}, kernel_width=1.0)
    student = {
        "a": torch.randn(2, 3, 5, 5, requires_grad=True),
        "b": torch.randn(2, 4, 2, 2, requires_grad=True),
    }
    teacher = {name: value.detach().clone().requires_grad_() for name, value in student.items()}

    loss = matching(student, teacher)
    loss.backward()

    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in student.values())
    assert all(value.grad is None for value in teacher.values())
    assert all(parameter.grad is not None for parameter in matching.parameters())
    for ours, theirs in zip(matching.student, matching.teacher, strict=True):
        theirs.load_state_dict(ours.state_dict())
    assert matching(student, teacher).item() == pytest.approx(0.0, abs=1e-12)


class _ConvTwin(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)  # type: ignore[assignment]


def _trained(module: AdderClassifier, folder: Path) -> dict[str, Tensor]:
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=2,
    )  # fmt: skip
    trainer.fit(module, random_loader(training=True))
    return module.state_dict()


def test_a_twin_learns_as_if_alone(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"mean": (0.5,), "std": (0.3,), "optim": OPTIM, "num_steps": 12}
    teacher = _ConvTwin()
    alone = AdderClassifier(copy.deepcopy(teacher), **settings)
    beside = DistillingClassifier(
        TinyNet(), teacher, distill=DistillRecipe(teacher="twin"), num_classes=10, **settings
    )

    expected, got = _trained(alone, tmp_path), _trained(beside, tmp_path)

    for name, tensor in expected.items():
        twins = got[name.replace("model.", "companions.teacher.")]
        torch.testing.assert_close(twins, tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_teacher_answers_in_its_own_16_bits_or_as_the_run(dtype: torch.dtype | None) -> None:
    teacher = _ConvTwin()
    module = DistillingClassifier(
        TinyNet(), copy.deepcopy(teacher), distill=DistillRecipe(teacher="frozen", checkpoint="a run"),
        num_classes=10, teacher_dtype=dtype, mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=12,
    )  # fmt: skip
    images = torch.randn(4, 1, 8, 8)
    for of_run in (torch.float32, torch.float16):
        expected_dtype = dtype or of_run
        with torch.no_grad(), torch.autocast("cpu", expected_dtype, enabled=expected_dtype != torch.float32):
            expected = teacher.eval()(images)
        with torch.autocast("cpu", torch.float16, enabled=of_run != torch.float32):
            answer = module.teacher_logits(images)

        assert torch.equal(answer, expected)
        assert answer.dtype == expected_dtype


def _newest(run: Path) -> Path:
    return RunDirectory(run).store.newest_first()[0]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "distilled"
    fit(short_recipe(*TWIN), path)
    return path


def test_the_model_is_saved_without_its_companions(distilled: Path, finished: Path) -> None:
    model, companions = (
        read_tensors(_newest(distilled), "model"),
        read_tensors(_newest(distilled), "companions"),
    )

    assert model.keys() == read_tensors(_newest(finished), "model").keys()
    assert {name.split(".")[1] for name in companions} == {"teacher", "matching"}
    assert evaluate(distilled).num_images == 360


def test_a_frozen_teacher_stays_as_it_is(tmp_path: Path) -> None:
    conv = ("--model.kind=conv", "--schedule.epochs=1", "--train.recalibrate_batches=0")
    fit(short_recipe(*conv, "--train.precision=bf16-mixed"), tmp_path / "teacher")
    frozen = ("--distill.teacher=frozen", f"--distill.checkpoint={tmp_path / 'teacher'}", *TWIN[1:])
    recipe = short_recipe(*frozen)

    fit(recipe, tmp_path / "student")

    module = build_classifier(recipe, load_data(recipe.data), steps_per_epoch=5)
    assert isinstance(module, DistillingClassifier)
    assert module._teacher_dtype == torch.bfloat16
    teacher = read_tensors(_newest(tmp_path / "teacher"), "model")
    companions = read_tensors(_newest(tmp_path / "student"), "companions")
    assert_same_bits({name: companions[f"companions.teacher.{name}"] for name in teacher}, teacher)


def test_a_missing_teacher_is_told_before_a_run_begins(tmp_path: Path) -> None:
    frozen = ("--distill.teacher=frozen", f"--distill.checkpoint={tmp_path / 'teacher'}", *TWIN[1:])

    with pytest.raises(CheckpointError, match=r"distill\.checkpoint: .* the teacher has to be trained first"):
        fit(short_recipe(*frozen), tmp_path / "student")
    assert not (tmp_path / "student" / "recipe.yaml").exists()


def _fit_on_ranks(run: Path) -> None:
    launched()
    fit(short_recipe(*TWIN, "--schedule.epochs=1"), run)


def test_ranks_share_a_teacher(tmp_path: Path) -> None:
    on_ranks(2, _fit_on_ranks, tmp_path / "run")

    assert "0/companions.teacher.norm1.running_mean" in read_tensors(
        _newest(tmp_path / "run"), "rank_buffers"
    )


VIEWS = (
    "--data.augmentation=crop_flip", "--distill.teacher=frozen", "--distill.feature_weight=0",
    "--distill.views=3", "--train.recalibrate_batches=0",
)  # fmt: skip


class _Asked(Callback):
    """What the network learns from, and how often the teacher is asked before the first step and later."""

    def __init__(self) -> None:
        self.mean_logits: Tensor | None = None
        self.before = self.after = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def count(teacher: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
            self.after += 1

        pl_module.companions["teacher"].register_forward_hook(count)  # type: ignore[union-attr, index]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before, self.after = self.after, 0
        assert isinstance(pl_module, DistillingClassifier)
        self.mean_logits = pl_module.mean_logits


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "teacher"
    fit(short_recipe("--model.kind=conv", "--schedule.epochs=1", "--train.recalibrate_batches=0"), path)
    return path


def test_a_teacher_looks_at_the_views_of_the_first_epochs_before_the_first_step_only(
    teacher: Path, tmp_path: Path
) -> None:
    recipe = short_recipe(*VIEWS, f"--distill.checkpoint={teacher}", "--schedule.epochs=1")
    asked = _Asked()

    fit(recipe, tmp_path / "student", callbacks=[asked])

    images = load_data(recipe.data).train
    assert isinstance(images, ImageArrays)
    network = build_network(recipe.model, num_classes=10, in_channels=1, kind="conv").eval()
    load_weights(network, read_weights(_newest(teacher)), source="teacher")
    module = AdderClassifier(
        network, mean=load_data(recipe.data).mean, std=load_data(recipe.data).std, optim=OPTIM, num_steps=1
    )
    expected = torch.zeros(len(images), 10, dtype=torch.float64)
    for epoch in range(3):
        loader = MemoryLoader(
            images, global_batch_size=479, seed=recipe.train.seed, augmentation="crop_flip", training=True
        )
        loader.set_epoch(epoch)
        for batch in loader:
            with torch.no_grad():
                expected[batch.samples] += module(batch.images).double() / 3
    assert asked.mean_logits is not None
    torch.testing.assert_close(asked.mean_logits, expected.float(), rtol=1e-4, atol=1e-4)
    assert (asked.before, asked.after) == (3 * 6, 0)


def test_an_interrupted_run_asks_its_teacher_again_and_ends_with_the_same_bits(
    teacher: Path, tmp_path: Path
) -> None:
    recipe = short_recipe(*VIEWS, f"--distill.checkpoint={teacher}", "--schedule.epochs=2")
    fit(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    rewind(tmp_path / "parts", to_epoch=1)

    fit(recipe, tmp_path / "parts")

    assert_same_bits(final_weights(tmp_path / "parts"), final_weights(tmp_path / "whole"))


def test_views_need_images_in_memory_and_a_teacher_that_stays_as_it_is() -> None:
    for teacher in ("none", "twin"):
        with pytest.raises(RecipeError, match=r"distill\.views: expected 0, or .*, got 3"):
            short_recipe(f"--distill.teacher={teacher}", "--distill.views=3", "--distill.feature_weight=0")


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_views_need_images_that_are_not_mixed(mixing: str) -> None:
    words = ["--distill.teacher=frozen", "--distill.checkpoint=teacher", "--distill.feature_weight=0"]
    short_recipe(*words, "--distill.views=3")

    with pytest.raises(RecipeError, match=r"distill\.views: expected 0, or .* data\.cutmix are 0.*, got 3"):
        short_recipe(*words, "--distill.views=3", f"--data.{mixing}=0.5")
