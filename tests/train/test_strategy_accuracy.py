"""The digits recipe from the command line under every strategy on two ranks: one accuracy.

pytest -m long tests/train/test_strategy_accuracy.py: some minutes. The short form is in test_sharded_runs.py.
"""

import json
import sys
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.train.small_runs import DIGITS

pytestmark = [pytest.mark.long, pytest.mark.distributed, pytest.mark.timeout(900)]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _top1(out: Path, *overrides: str) -> float:
    fit = ("-m", "addertrain", "fit", str(DIGITS), "--out", str(out))
    result = run_command(*TORCHRUN, *fit, *overrides, timeout_s=400)
    assert result.returncode == 0, result.stderr
    top1: float = json.loads((out / "summary.json").read_text())["top1"]
    return top1


@pytest.fixture(scope="module")
def of_ddp(tmp_path_factory: pytest.TempPathFactory) -> float:
    return _top1(tmp_path_factory.mktemp("ddp") / "run", "--train.strategy=ddp")


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp"])
def test_every_strategy_reaches_the_accuracy_of_ddp(strategy: str, of_ddp: float, tmp_path: Path) -> None:
    assert abs(_top1(tmp_path / "run", f"--train.strategy={strategy}") - of_ddp) <= 0.6
