"""A validation part with some of the training part's classes: the numbers are those of training."""

import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

from addertrain.data import DataError, ImageData, load_data
from addertrain.data.beton.encode import BetonSettings, store_part
from addertrain.data.beton.side_file import side_path
from addertrain.data.beton.verify import adopt
from addertrain.data.beton.write import write_beton
from addertrain.data.sources.file_list import list_of_files
from addertrain.data.sources.folder import folder_of_classes
from addertrain.recipe import DataRecipe
from tests.data.photographs import write_folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train/ of three classes; val/ has none of the middle one's pictures."""
    monkeypatch.setattr(
        "addertrain.data.beton.write._stored",
        lambda source, samples, settings, _: zip(samples, store_part(source, samples, settings), strict=True),
    )
    for part in ("train", "val"):
        write_folder(tmp_path / part, num_classes=3, per_class=2)
    shutil.rmtree(tmp_path / "val" / "class_1")
    return tmp_path


def load(root: Path, loader: str) -> ImageData:
    return load_data(DataRecipe(name="folder", root=str(root), loader=loader, global_batch_size=2))


@pytest.mark.parametrize("loader", ["torchvision", "ffcv"])
@pytest.mark.parametrize("is_folder_there", [False, True])
def test_a_class_without_validation_pictures_is_no_obstacle(
    root: Path, loader: str, is_folder_there: bool
) -> None:
    if is_folder_there:
        (root / "val" / "class_1").mkdir()
    if loader == "ffcv":
        for part in ("train", "val"):
            files = folder_of_classes(root / part, allow_empty=part == "val")
            write_beton(files, root / f"{part}.beton", BetonSettings(page_size=1 << 17))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load(root, loader)
    assert data.num_classes == 3
    assert data.test.labels.tolist() == [0, 0, 2, 2]
    assert data.test.classes == data.train.classes


def test_what_a_folder_passes_over_is_told_where_no_file_is_written_from_it(root: Path) -> None:
    (root / "train" / "class_0" / "notes.txt").write_text("words")
    with pytest.warns(UserWarning, match=r"train: skipped: 1 \.txt"):
        load(root, "torchvision")


def test_lists_and_adopted_files_by_number_may_lack_the_last_class(root: Path) -> None:
    for part, classes in (("train", 3), ("val", 2)):
        paths = sorted((root / "train").rglob("*.jpg"))[: 2 * classes]
        listed = root / f"{part}.tsv"
        listed.write_text("".join(f"{path}\t{k // 2}\n" for k, path in enumerate(paths)))
        write_beton(list_of_files(listed), root / f"{part}.beton", BetonSettings(page_size=1 << 17))
        side_path(root / f"{part}.beton").unlink()
        adopt(root / f"{part}.beton")
    data = load(root, "ffcv")
    assert (data.num_classes, data.test.labels.tolist()) == (3, [0, 0, 1, 1])


@pytest.mark.parametrize("name", ["class_9", "cafe\u0301"])
def test_a_class_that_training_lacks_is_named(root: Path, name: str) -> None:
    (root / "train" / "caf\u00e9").mkdir()
    Image.new("RGB", (9, 9)).save(root / "train" / "caf\u00e9" / "0.png")
    (root / "val" / name).mkdir()
    Image.new("RGB", (9, 9)).save(root / "val" / name / "0.png")
    shown = "'cafe.u0301'" if "caf" in name else name  # composed and decomposed accents look alike
    with pytest.raises(DataError, match=rf"got 1 others \({shown}\), with 4 classes in train"):
        load(root, "torchvision")
