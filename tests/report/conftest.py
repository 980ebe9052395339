"""Runs of seconds for reports: trained ones, and one of the features' network that was never trained."""

from pathlib import Path

import pytest

from addertrain.train.run import fit
from tests.train.small_runs import ReadEvery, short_recipe


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of the adder network, its convolutional twin and an ablation; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    of = {
        "adder_0": [],
        "adder_1": ["--train.seed=1"],
        "conv": ["--name=digits-conv", "--model.kind=conv"],
        "ilr": ["--name=digits-ilr", "--optim.alr=increased"],
    }
    for name, overrides in of.items():
        # Every step, so that the first gradient norms are on record.
        fit(short_recipe("--schedule.epochs=2", *overrides), folder / name, callbacks=[ReadEvery(1)])
    return {name: folder / name for name in of}
