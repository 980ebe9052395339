"""A network of a user's own in a recipe: under shards, as a teacher, in reports and files, and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from addertrain.bench import step as bench_step
from addertrain.checkpoint.files import read_manifest
from addertrain.errors import RecipeError, RunError, UsageError
from addertrain.interchange import export_safetensors, trained_network
from addertrain.interchange.exported import load_exported
from addertrain.models import Kind
from addertrain.models.layers import layer, norm
from addertrain.nn import AdderConv2d, adder_norm
from addertrain.recipe import Recipe
from addertrain.report.study import Study
from addertrain.train.module import AdderClassifier
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import OPTIM, assert_resumed_exactly, launched, rewind, short_recipe

FEW = (
    f"--model.name={__name__}:tiny",
    "--data.name=tests.train.small_runs:few_digits",
    "--data.global_batch_size=32",
    "--schedule.epochs=2",
)


class Tiny(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, kind: Kind, width: int) -> None:
        super().__init__()
        self.conv = layer(kind, in_channels, width, 5, stride=4, rectified=False)
        self.norm = norm(kind, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(adder_norm(self.conv, self.norm, images).mean((2, 3)))
        return logits


class SlowHead(Tiny):
    def adder_sgd_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        adder, rest = groups
        head = {id(parameter) for parameter in self.head.parameters()}
        moved = [parameter for parameter in rest["params"] if id(parameter) in head]
        rest["params"] = [parameter for parameter in rest["params"] if id(parameter) not in head]
        return [adder, rest, {"params": moved, "adder": False, "weight_decay": 0.0, "lr": 0.01}]


class LosesOne(Tiny):
    def adder_sgd_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        groups[1]["params"].pop()
        return groups


def tiny(*, num_classes: int, in_channels: int, kind: Kind, width: int = 4, slow: bool = False) -> nn.Module:
    return (SlowHead if slow else Tiny)(num_classes, in_channels, kind, width)


def of_three_classes(*, num_classes: int, in_channels: int, kind: Kind) -> nn.Module:
    return Tiny(3, in_channels, kind, 4)


def of_no_module(**_: Any) -> str:
    return "resnet20"


def broken(**_: Any) -> nn.Module:
    raise KeyError("depth")


def _recipe(*words: str) -> Recipe:
    return short_recipe(*FEW, *words)


def _groups(folder: Path) -> list[list[Any]]:
    """The groups that a run in shards has trained with: rate and parameters of each."""
    launched()
    recipe = _recipe("--train.strategy=fsdp", "--model.args.slow=true", "--train.recalibrate_batches=0")
    fit(recipe, folder / "run")
    newest = RunDirectory(folder / "run").store.newest_first()[0]
    return [[g["initial_lr"], g["params"]] for g in read_manifest(newest)["optimizer"]["param_groups"]]


@pytest.mark.long
@pytest.mark.distributed
def test_groups_of_its_own_train_in_shards(tmp_path: Path) -> None:
    first, second = on_ranks(2, _groups, tmp_path)

    rest = ["norm.weight", "norm.bias"]
    assert first == second
    assert first == [[0.1, ["conv.weight"]], [0.1, rest], [0.01, ["head.weight", "head.bias"]]]


def test_it_is_resumed_exactly_and_read_by_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe("--model.args={width: 6, slow: true}")
    fit(recipe, tmp_path / "whole")
    run = tmp_path / "run"
    fit(recipe, run)
    rewind(run, to_epoch=1)
    fit(recipe, run)
    assert_resumed_exactly(run, tmp_path / "whole")

    trained = trained_network(run)
    assert (type(trained.model), trained.image_shape) == (SlowHead, (1, 32, 32))
    export_safetensors(trained, tmp_path / "net.safetensors")
    loaded, _ = load_exported(tmp_path / "net.safetensors")
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(loaded(images), trained.model(images))
    evaluate(run, replace(recipe, data=replace(recipe.data, args={"num_test": 16})))
    checkpoint = RunDirectory(run).store.newest_first()[0]
    assert (
        f"warning: {checkpoint}: its run was evaluated on other images (32 test images"
        in capsys.readouterr().err
    )
    count = Study([]).operations(recipe)
    assert count.num_parameters == sum(parameter.numel() for parameter in loaded.parameters())


def test_the_teacher_is_its_convolutional_baseline(tmp_path: Path) -> None:
    summary = fit(_recipe("--distill.teacher=twin", "--schedule.epochs=1"), tmp_path / "run")

    assert summary.epochs == 1
    newest = RunDirectory(tmp_path / "run").store.newest_first()[0]
    assert "companions" in str(read_manifest(newest)["files"])
    kinds = [tiny(num_classes=2, in_channels=1, kind=kind) for kind in ("adder", "conv")]
    assert [isinstance(network.get_submodule("conv"), AdderConv2d) for network in kinds] == [True, False]


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("of_three_classes", UsageError, r"expected logits \(2, 10\) of two images, got \(2, 3\) from model"),
        (
            "of_no_module",
            RecipeError,
            "expected a torch.nn.Module from .*, got str; let the function return a module",
        ),
        ("broken", RunError, "expected .*:broken to return, got KeyError: 'depth'"),
    ],
)
def test_what_is_no_network_for_the_data_is_one_line(
    function: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        fit(_recipe(f"--model.name={__name__}:{function}"), tmp_path / "run")

    assert not (tmp_path / "run" / "environment.json").exists()


def test_a_parameter_without_a_group_is_refused() -> None:
    network = LosesOne(2, 1, "adder", 4)
    module = AdderClassifier(network, mean=(0.5,), std=(0.2,), optim=OPTIM, num_steps=1)

    with pytest.raises(
        ValueError, match="expected each of 5 parameters in exactly one group, got 4 of them in 4"
    ):
        module.configure_optimizers()


def test_its_step_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    own = [f"{__name__}:tiny", "--image", "1", "16", "16", "--classes", "3", "--batch", "2"]

    assert bench_step.main([*own, "--seconds", "0.1"]) == 0

    assert "adder / conv:" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"expected lenet5bn, .* got 'resnet'; did you mean resnet"):
        bench_step.main(["resnet"])
