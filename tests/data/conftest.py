"""Pictures that many tests read and none changes."""

from pathlib import Path

import pytest

from tests.data.photographs import write_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 pictures of 5 classes."""
    return write_folder(tmp_path_factory.mktemp("pictures") / "train", num_classes=5, per_class=9)
