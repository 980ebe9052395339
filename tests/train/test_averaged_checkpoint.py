"""A mean of checkpoints in the places where a checkpoint can be given."""

from pathlib import Path

import pytest
import torch

from addertrain.checkpoint.files import read_tensors
from addertrain.checkpoint.mean import write_mean
from addertrain.errors import UsageError
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory
from tests.train.small_runs import short_recipe


def test_a_mean_is_evaluated_but_never_resumed(finished: Path, tmp_path: Path) -> None:
    sources = RunDirectory(finished).store.newest_first()[:2]
    mean = tmp_path / "mean"
    write_mean(sources, mean)

    # Statistics are recomputed for it; the third epoch is near the second.
    assert abs(evaluate(mean).top1 - evaluate(sources[0]).top1) < 5.0
    weights = [read_tensors(path, "model")["conv2.weight"] for path in (mean, *sources)]
    assert torch.equal(weights[0], ((weights[1].double() + weights[2]) / 2).float())
    with pytest.raises(UsageError, match=r"averaged weights without momentum.*--init-from"):
        fit(short_recipe(), tmp_path / "run", resume=str(mean))
