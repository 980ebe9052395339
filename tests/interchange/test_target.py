"""Exports are whole or not there, whatever happens to the process or the disk."""

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from addertrain.checkpoint.files import TENSOR_FILES, write_checkpoint
from addertrain.interchange import InterchangeError, Trained, export_safetensors, export_state_dict
from addertrain.interchange.target import exported
from addertrain.models import build_model
from addertrain.recipe import load_recipe
from tests.source_tree import ROOT

Export = Callable[[Trained, Path], None]
every_export = pytest.mark.parametrize("export", [export_safetensors, export_state_dict])


@pytest.fixture(scope="module")
def network() -> Trained:
    recipe = load_recipe(ROOT / "recipes" / "cifar10" / "resnet20.yaml")
    model = build_model("resnet20", kind="adder", num_classes=10).eval()
    return Trained(model, recipe, 10, (0.5,) * 3, (0.2,) * 3)


@every_export
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_mode_follows_umask(export: Export, network: Trained, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        export(network, tmp_path / "network")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "network").stat().st_mode) == 0o666 & ~umask


@every_export
def test_a_full_disk_leaves_the_old_file(export: Export, network: Trained, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    path = tmp_path / "network"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, hard))
    try:
        with pytest.raises(InterchangeError, match="a file that was there is unchanged"):
            export(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@every_export
def test_a_missing_folder_and_a_folder_are_named(export: Export, network: Trained, tmp_path: Path) -> None:
    with pytest.raises(InterchangeError, match=r"expected an existing folder .*missing, got none"):
        export(network, tmp_path / "missing" / "network")
    with pytest.raises(InterchangeError, match="expected a file to write, got a folder"):
        export(network, tmp_path)


@every_export
def test_the_files_of_a_checkpoint_are_never_replaced(
    export: Export, network: Trained, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "one", {name: {"w": torch.zeros(2)} for name in TENSOR_FILES}, {})
    before = {path: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    (tmp_path / "latest").symlink_to("one")

    for folder in ("one", "latest"):
        with pytest.raises(
            InterchangeError, match="expected a folder that is no checkpoint, got a checkpoint"
        ):
            export(network, tmp_path / folder / "model.safetensors")

    assert {path: path.read_bytes() for path in (tmp_path / "one").iterdir()} == before


def _write_half(path: Path) -> None:
    with exported(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("half way")


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "network"
    path.write_bytes(b"old")

    with pytest.raises(RuntimeError, match="half way"):
        _write_half(path)

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_dict_replaces_the_one_before(network: Trained, tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(b"old")

    export_state_dict(network, path)

    state = torch.load(path, weights_only=True)
    assert set(state) == set(network.model.state_dict())
