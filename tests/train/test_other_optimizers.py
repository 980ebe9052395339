"""`fit` on two ranks with AdamW: the same training under every strategy, and exact resumption; with Muon:
the latter under DDP.
"""

import shutil
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.optional import needs_deepspeed
from tests.train.sharded_fits import Top1, apart, fit_under, on_two_ranks
from tests.train.small_runs import assert_resumed_exactly, final_weights, launched, rewind

pytestmark = [pytest.mark.distributed, needs_deepspeed]

STRATEGIES = ("ddp", "zero2", "zero3", "fsdp")
# Four steps an epoch; saved in mid-epoch.
SETTINGS = ["--optim.name=adamw", "--optim.lr=0.003", "--optim.eta=10", "--data.global_batch_size=16"]
SETTINGS += ["--data.name=tests.train.small_runs:few_digits", "--schedule.epochs=2", "--optim.clip_norm=1"]
SETTINGS += ["--train.save_every_steps=2", "--train.recalibrate_batches=1"]
RESUMED = {"resumed": ("zero2", "zero3", "fsdp"), "from ddp": ("zero3",), "to ddp": ("fsdp",)}
MUON = [*SETTINGS, "--optim.name=muon", "--optim.lr=0.1", "--optim.eta=2"]


def _runs(folder: Path) -> Top1:
    launched()
    top1: Top1 = {"whole": {}}
    for strategy in STRATEGIES:
        top1["whole"][strategy] = fit_under(strategy, folder / "whole" / strategy, *SETTINGS)
    for kind, strategies in RESUMED.items():
        top1[kind] = {}
        for strategy in strategies:
            run = folder / kind / strategy
            _interrupted_copy(folder / "whole" / ("ddp" if kind == "from ddp" else strategy), run)
            top1[kind][strategy] = fit_under("ddp" if kind == "to ddp" else strategy, run, *SETTINGS)
    with_muon, resumed = folder / "muon" / "whole", folder / "muon" / "resumed"
    top1["muon"] = {"whole": fit_under("ddp", with_muon, *MUON)}
    _interrupted_copy(with_muon, resumed)
    top1["muon"]["resumed"] = fit_under("ddp", resumed, *MUON)
    return top1


def _interrupted_copy(whole: Path, run: Path) -> None:
    if dist.get_rank() == 0:
        shutil.copytree(whole, run)
        rewind(run, to_step=6)
    dist.barrier()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = on_two_ranks(_runs, tmp_path_factory.mktemp("adamw"))
    return folder


@pytest.mark.timeout(200)
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_strategies_train_alike(strategy: str, runs: Path) -> None:
    assert apart(runs / "whole" / strategy, runs / "whole" / "ddp") < 0.05


@pytest.mark.parametrize("strategy", RESUMED["resumed"])
def test_a_resumed_run_is_the_uninterrupted_one(strategy: str, runs: Path) -> None:
    assert_resumed_exactly(runs / "resumed" / strategy, runs / "whole" / strategy)


def test_a_resumed_run_with_muon_is_the_uninterrupted_one(runs: Path) -> None:
    assert_resumed_exactly(runs / "muon" / "resumed", runs / "muon" / "whole")


@pytest.mark.parametrize(("kind", "strategy"), [("from ddp", "zero3"), ("to ddp", "fsdp")])
def test_a_run_resumes_under_another_strategy(kind: str, strategy: str, runs: Path) -> None:
    assert apart(runs / kind / strategy, runs / "whole" / "ddp") < 0.05


def test_checkpoints_hold_the_same_state_whatever_the_sharding(runs: Path) -> None:
    names = [final_weights(runs / "whole" / strategy).keys() for strategy in STRATEGIES]
    assert all(each == names[0] for each in names)
    ends = {name.rpartition(".")[2] for name in names[0]}
    assert {"exp_avg", "exp_avg_sq", "step"} <= ends
