"""Compares several GPUs with one: every strategy trains the same, and a run resumes on other numbers of
ranks.
"""

import argparse
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

RECIPE = "recipes/digits/lenet5bn.yaml"
KEYS = ("--schedule.epochs", "8", "--data.global_batch_size", "256", "--train.sync_batchnorm", "true")
SAVED_EPOCHS, SAVED = "checkpoints/epoch_*", 75
STRATEGIES = ("ddp", "zero2", "zero3", "fsdp")
_SECONDS_BETWEEN_LOOKS = 0.05
_LOSS_TOLERANCE = 0.05
"""Relative, of the loss after 40 steps: sums over ranks are rounded in another order."""


def command(out: Path, ranks: int, *keys: str) -> list[str]:
    """Trains in `out`, or resumes there."""
    words = ["launch/torchrun", "--nproc-per-node", str(ranks), "--max-restarts", "0", "fit", RECIPE]
    return [*words, "--out", str(out), *KEYS, *keys]


def train(out: Path, ranks: int, *keys: str) -> dict[str, object]:
    """The summary of a run that is trained to its end."""
    subprocess.run(command(out, ranks, *keys), check=True)
    summary: dict[str, object] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


def train_for_a_while(out: Path, ranks: int) -> None:
    """Resumes until another epoch is saved, then gets a signal to save and end."""
    saved = len(list(out.glob(SAVED_EPOCHS)))
    process = subprocess.Popen(command(out, ranks))
    while process.poll() is None and len(list(out.glob(SAVED_EPOCHS))) <= saved:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    process.send_signal(signal.SIGTERM)
    if (code := process.wait()) not in (0, SAVED):
        raise subprocess.CalledProcessError(code, process.args)


def is_near(name: str, summary: dict[str, object], control: dict[str, object]) -> bool:
    """Prints how far a run's loss is from that on one GPU."""
    loss, expected = (float(str(one["loss"])) for one in (summary, control))
    is_fine = math.isclose(loss, expected, rel_tol=_LOSS_TOLERANCE)
    print(
        f"{name:24s} loss {loss:.4f}, on one GPU {expected:.4f}: {'right' if is_fine else 'WRONG'}",
        flush=True,
    )
    return is_fine


def resumed(out: Path, gpus: int) -> dict[str, object]:
    """Trains some epochs each on 1, 2 and 4 GPUs, as far as they exist, and to the end on the last."""
    *first, last = [count for count in (1, 2, 4) if count <= gpus]
    for count in first:
        train_for_a_while(out, count)
    return train(out, last)


def main(words: Sequence[str]) -> int:
    """Returns 1 if a strategy or a resumed run has another result."""
    parser = argparse.ArgumentParser(prog="launch/gpu_ranks.py")
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(words)
    shutil.rmtree(arguments.out, ignore_errors=True)
    out, gpus = arguments.out, arguments.gpus
    control = train(out / "one", 1)
    ranks = 4 if gpus >= 4 else 2
    trials: dict[str, Callable[[], dict[str, object]]] = {
        f"{strategy} on {ranks}": partial(train, out / strategy, ranks, "--train.strategy", strategy)
        for strategy in STRATEGIES
    }
    trials["resumed on 1, 2 and 4"] = partial(resumed, out / "resumed", gpus)
    is_fine = True
    for name, trial in trials.items():
        try:
            is_fine &= is_near(name, trial(), control)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name:24s} FAILED: {error}", flush=True)
            is_fine = False
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
