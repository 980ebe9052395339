"""What pictures ask of memory, and the warning where a file does not fit."""

from pathlib import Path

import pytest

from addertrain.cli import main
from addertrain.data.beton import page_cache
from addertrain.data.beton.encode import BetonSettings
from addertrain.data.beton.page_cache import PictureNeeds, available_memory, picture_needs
from addertrain.data.beton.write import write_beton
from addertrain.data.sources.folder import folder_of_classes
from addertrain.recipe import DataRecipe
from tests.source_tree import ROOT

SETTINGS = DataRecipe(name="folder", loader="ffcv", global_batch_size=256, image_size=224, threads=2)


def test_the_loader_holds_its_batches_and_one_picture_a_thread(beton: Path) -> None:
    needs = picture_needs(beton, SETTINGS, world_size=2)
    assert needs.file == beton.stat().st_size
    assert needs.loader == pytest.approx(4 * 128 * 224 * 224 * 3, rel=0.05)
    assert needs.jpeg_file is None
    assert needs.warning is None


def test_a_file_larger_than_memory_warns_and_proposes_jpegs() -> None:
    raw = PictureNeeds(file=677 * 10**9, loader=0, memory=256 * 10**9, jpeg_file=68 * 10**9)
    assert raw.warning is not None
    assert "fits into 256 GB of memory, got 677 GB" in raw.warning
    assert raw.warning.endswith("--format jpg, some 68 GB")
    jpeg = PictureNeeds(file=677 * 10**9, loader=0, memory=256 * 10**9, jpeg_file=None)
    assert jpeg.warning is not None
    assert "smaller --max-size" in jpeg.warning


@pytest.mark.distributed
def test_raw_files_know_about_how_large_they_would_be_in_jpegs(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "raw.beton"
    write_beton(folder_of_classes(folder).some(range(7)), path, BetonSettings(format="raw"))
    needs = picture_needs(path, SETTINGS)
    assert needs.jpeg_file is not None
    assert needs.jpeg_file < needs.file


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = available_memory()
    assert whole > 1 << 20
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(page_cache, "_CGROUP_LIMIT", limit)
    limit.write_text("1000000\n")
    assert available_memory() == 1_000_000
    limit.write_text("max\n")
    assert available_memory() == pytest.approx(whole, rel=0.5)


def test_plan_says_how_the_files_fit(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.name=folder", f"--data.root={data_root}", "--data.global_batch_size=8"]
    words += ["--model.name=resnet20", "--data.image_size=32"]
    assert main(["plan", str(ROOT / "recipes" / "imagenette" / "resnet18.yaml"), *words]) == 0
    printed = capsys.readouterr().out
    assert "train.beton: " in printed
    assert "its loader: " in printed
