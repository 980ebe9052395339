"""Runs that start from another network's weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.cli import main
from addertrain.errors import CheckpointError, UsageError
from addertrain.interchange import export_safetensors, trained_network
from addertrain.models import build_model
from addertrain.train.initial_weights import load_weights, read_weights
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from addertrain.train.session import source_commit
from tests.train.small_runs import assert_same_bits, rewind, short_recipe

FROZEN = ("--optim.lr=1e-30", "--schedule.epochs=1")
"""Steps too small to move a weight, be it 1e-6."""


def _weights(run: Path) -> dict[str, Tensor]:
    newest = RunDirectory(run).store.newest_first()[0]
    names = [name for name, _ in build_model("lenet5bn", kind="adder", num_classes=10).named_parameters()]
    model = read_tensors(newest, "model")
    return {name: model[name] for name in names}


@pytest.fixture(scope="module")
def tuned(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was started from `finished`. Not to be changed."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    fit(short_recipe(*FROZEN), run, init_from=finished)
    return run


def test_a_run_starts_from_the_weights_of_another(finished: Path, tuned: Path) -> None:
    assert_same_bits(_weights(tuned), _weights(finished))
    manifest = read_manifest(RunDirectory(tuned).store.newest_first()[0])
    assert manifest["global_step"] == 5, "position and schedule are the new run's"
    assert manifest["initial_weights"]["from"] == str(finished)


def test_a_resumed_run_keeps_its_origin_and_refuses_another(
    finished: Path, tuned: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(short_recipe(*FROZEN, "--schedule.epochs=2"), run, init_from=finished)
    rewind(run, to_epoch=1)

    with pytest.raises(UsageError, match=f"got one that started from {finished}"):
        fit(short_recipe(*FROZEN, "--schedule.epochs=2"), run, init_from=_other(tmp_path))
    fit(short_recipe(*FROZEN, "--schedule.epochs=2"), run, init_from=finished)

    manifest = read_manifest(RunDirectory(run).store.newest_first()[0])
    assert manifest["initial_weights"]["from"] == str(finished)


def _other(folder: Path) -> Path:
    run = folder / "other"
    fit(short_recipe(*FROZEN), run)
    return run


def test_a_safetensors_file_will_do(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "digits.safetensors"
    export_safetensors(trained_network(finished, recalibrate_batches=0), file)

    assert_same_bits(read_weights(file), read_weights(finished))
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="expected the tensors of a network"):
        read_weights(file)


@pytest.mark.parametrize("head", ["norm", "linear"])
def test_the_last_layer_stays_new_for_other_classes(head: str) -> None:
    source = build_model("resnet20", kind="adder", num_classes=100, head=head).state_dict()
    model = build_model("resnet20", kind="adder", num_classes=10, head=head)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    new = load_weights(model, source, source="there", num_classes=10)

    assert "fc.weight" in new
    assert all(name.startswith(("fc.", "bn2.")) for name in new)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in new else source[name])


@pytest.mark.parametrize(
    ("name", "classes", "allowed"),
    [("resnet32", 10, 10), ("resnet20", 100, None), ("lenet5bn", 10, 10), ("resnet18", 10, 10)],
)
def test_another_network_is_refused_in_one_line(name: str, classes: int, allowed: int | None) -> None:
    source = build_model(name, kind="adder", num_classes=classes).state_dict()
    model = build_model("resnet20", kind="adder", num_classes=10)

    with pytest.raises(
        CheckpointError, match=r"there: expected .* got .*; choose weights of the same network"
    ) as caught:
        load_weights(model, source, source="there", num_classes=allowed)
    assert "\n" not in str(caught.value)


def test_the_command_says_where_the_weights_come_from(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "run.yaml"
    recipe.write_text((finished / "recipe.yaml").read_text().replace("epochs: 3", "epochs: 1"))
    words = ["fit", str(recipe), "--out", str(tmp_path / "run"), "--init-from"]

    assert main([*words, str(tmp_path / "nothing")]) == 1
    assert "got nothing there" in capsys.readouterr().err
    assert main([*words, str(finished)]) == 0
    assert f"first weights from {finished}; left new: nothing" in capsys.readouterr().out


def test_manifests_name_the_commit_of_a_checkout(finished: Path) -> None:
    manifest = read_manifest(RunDirectory(finished).store.newest_first()[0])

    assert manifest["commit"] == source_commit()
    assert source_commit() is None or len(source_commit().removesuffix("+changes")) == 40
