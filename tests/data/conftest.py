"""Pictures that many tests read and none changes."""

import multiprocessing
from pathlib import Path

import pytest

import tests.ranks  # noqa: F401  (its server of processes, with all that the suite needs, is the first)
from addertrain.data.beton.write import write_beton
from addertrain.data.sources.folder import folder_of_classes
from tests.data.photographs import SMALL_PAGES, picture_folder


@pytest.fixture(autouse=True)
def _one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """`data write` would have it import less: every later rank of this process would import all by itself."""
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", lambda names: None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 pictures of 5 classes; photographs where there are some."""
    root = tmp_path_factory.mktemp("pictures") / "train"
    return picture_folder(root, num_classes=5, per_class=9)


@pytest.fixture(scope="session")
def beton(folder: Path) -> Path:
    """The same pictures in a .beton of several pages."""
    path = folder.parent / "train.beton"
    write_beton(folder_of_classes(folder), path, SMALL_PAGES)
    return path


@pytest.fixture(scope="session")
def data_root(folder: Path, beton: Path) -> Path:
    """A data set of which training and test pictures are the same."""
    for name in ("", ".beton", ".beton.json"):
        (folder.parent / f"val{name}").symlink_to(f"train{name}")
    return folder.parent
