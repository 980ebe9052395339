"""One finished run of three epochs, which many tests look at or copy."""

from pathlib import Path

import pytest

from addertrain.train.run import fit
from tests.train.small_runs import short_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: copy it."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    fit(short_recipe(), path)
    return path
