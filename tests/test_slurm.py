"""launch/slurm.sbatch with a Slurm of two shell scripts: what it starts, hands on, puts back in the queue."""

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT

SCRIPT = "launch/slurm.sbatch"
# Writes its arguments down; the training step (no preflight) then does what STEP says.
SRUN = """#!/bin/bash
echo "srun $*" >>"$LOG"
[[ "$*" == *preflight* ]] && exit "${PREFLIGHT:-0}"
eval "$STEP"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >>"$LOG"
[[ "$1" != show ]] || printf 'node7\\nnode8\\n'
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script, with srun and scontrol in front of PATH."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        file = tmp_path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }


def _calls(slurm: dict[str, str]) -> list[str]:
    return Path(slurm["LOG"]).read_text().splitlines()


def test_every_node_starts_one_launcher_after_a_preflight(slurm: dict[str, str]) -> None:
    result = run_command("bash", SCRIPT, "fit", "a.yaml", "--out", "runs/a", STEP="exit 0", **slurm)

    assert result.returncode == 0, result.stderr
    _, preflight, fit = _calls(slurm)
    meeting = "launch/torchrun --nnodes 2 --rdzv-endpoint node7:24567 --rdzv-id 1234567"
    assert preflight.endswith(f"{meeting} --max-restarts 0 preflight a.yaml --out runs/a")
    assert fit.endswith(f"{meeting} fit a.yaml --out runs/a")


def test_a_saved_run_goes_back_into_the_queue(slurm: dict[str, str]) -> None:
    result = run_command("bash", SCRIPT, "fit", "a.yaml", STEP="exit 75", **slurm)

    assert result.returncode == 0
    assert _calls(slurm)[-1] == "scontrol requeue 1234567"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_any_other_end_is_final(slurm: dict[str, str], code: int) -> None:
    result = run_command("bash", SCRIPT, "fit", "a.yaml", STEP=f"exit {code}", **slurm)

    assert result.returncode == code
    assert "requeue" not in _calls(slurm)[-1]


def test_a_failed_preflight_ends_the_job_and_a_requeued_one_needs_none(slurm: dict[str, str]) -> None:
    first = run_command("bash", SCRIPT, "fit", "a.yaml", STEP="exit 0", PREFLIGHT="1", **slurm)
    assert first.returncode == 1
    assert "preflight" in _calls(slurm)[-1]

    again = run_command("bash", SCRIPT, "fit", "a.yaml", STEP="exit 0", SLURM_RESTART_COUNT="1", **slurm)
    assert again.returncode == 0
    assert _calls(slurm)[-1].endswith("--rdzv-id 1234567 fit a.yaml")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_the_step_which_may_take_its_time(
    slurm: dict[str, str], number: signal.Signals
) -> None:
    step = "trap 'sleep 0.3; exit 75' USR1; echo ready >>$LOG; while true; do sleep 0.05; done"
    job = subprocess.Popen(
        ["bash", SCRIPT, "fit", "a.yaml"], cwd=ROOT, env=os.environ | slurm | {"STEP": step}
    )
    deadline = time.monotonic() + 120
    while not Path(slurm["LOG"]).exists() or "ready" not in _calls(slurm):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    job.send_signal(number)

    assert job.wait(timeout=120) == 0
    assert _calls(slurm)[-1] == "scontrol requeue 1234567"


def test_outside_of_a_job_it_says_how_to_submit() -> None:
    result = run_command("bash", SCRIPT, "fit", "a.yaml", SLURM_JOB_ID="")

    assert result.returncode == 2
    assert "sbatch [OPTION ...] launch/slurm.sbatch fit RECIPE" in result.stderr
