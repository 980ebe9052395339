"""A run that is killed several times, each time at a chosen moment, and started again until it ends."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.faults.launcher import NUM_RANKS, Launcher, is_alive
from tests.faults.rank import read_note

Moment = Literal["start-up", "step", "save", "evaluation"]
MOMENTS: tuple[Moment, ...] = ("start-up", "step", "save", "evaluation")
LAUNCHER = "launcher"
VICTIMS = (*(f"rank {rank}" for rank in range(NUM_RANKS)), LAUNCHER)
SECONDS_TO_COME = 600.0  # until a moment comes, or the processes are gone; machines may be busy
FLUSH_SECONDS = (0.02, 0.05)  # a slow disk, so that a save lasts long enough to be met


@dataclass(frozen=True)
class Strike:
    """One kill -9 that was done: to whom, when, and by what that is certain."""

    moment: Moment
    victim: str
    seen: str
    is_cut: bool = False

    def __str__(self) -> str:
        cut = ", left half a checkpoint" if self.is_cut else ""
        return f"{self.moment}: {self.victim} ({self.seen}{cut})"


@dataclass
class Campaign:
    """One run and what was done to it."""

    seed: int
    strikes: list[Strike] = field(default_factory=list)
    num_starts: int = 0
    weights_sha256: str = ""
    seconds: float = 0.0


class MomentMissed(Exception):
    """The run came to its end before the moment did."""


def three_moments(seed: int) -> list[Moment]:
    """Three moments, one of them a save."""
    rng = random.Random(seed)
    moments: list[Moment] = ["save", *rng.choices(MOMENTS, k=2)]
    rng.shuffle(moments)
    return moments


def killed_run(
    folder: Path, command: list[str], moments: list[Moment], *, seed: int, from_nothing: bool = False
) -> Campaign:
    """Runs `command` (without --out), killed once at each of `moments` and started again each time.

    The seed decides the rest: victims, the exact moments, whether the launcher may restart its ranks itself,
    and how slow the disk is.
    """
    rng = random.Random(seed)
    campaign, began = Campaign(seed), time.monotonic()
    run, launcher = folder / "run", None
    max_restarts, flush_seconds = rng.choice([0, 3]), rng.choice(FLUSH_SECONDS)
    words = [*command, "--out", str(run)]
    try:
        for moment in [*moments, None]:
            if launcher is None or not _goes_on(launcher):
                launcher = Launcher(
                    folder, words, max_restarts=max_restarts, flush_seconds=flush_seconds,
                    from_nothing=from_nothing,
                )  # fmt: skip
                campaign.num_starts += 1
            if moment is None:
                break
            with contextlib.suppress(MomentMissed):
                campaign.strikes.append(_strike(launcher, run, moment, rng))
        assert launcher is not None
        code = launcher.wait(seconds=SECONDS_TO_COME)
        assert code == 0, f"exit code {code}\n{launcher.tail()}"
    finally:
        if launcher is not None:
            launcher.kill_all()
    campaign.weights_sha256 = sha256_of_run(run)
    campaign.seconds = time.monotonic() - began
    return campaign


def sha256_of_run(run: Path) -> str:
    """The hash over the final weights of a run that has ended."""
    summary: dict[str, str] = json.loads((run / "summary.json").read_text())
    return summary["weights_sha256"]


def _goes_on(launcher: Launcher) -> bool:
    """Whether the launcher starts its ranks again by itself, once that is clear."""
    old = [launcher.rank_process(rank) for rank in range(NUM_RANKS)]

    def is_decided() -> bool:
        now = [launcher.rank_process(rank) for rank in range(NUM_RANKS)]
        return launcher.exit_code is not None or any(now[k] not in (None, old[k]) for k in range(NUM_RANKS))

    _wait_until(is_decided, launcher)
    return launcher.exit_code is None


def _strike(launcher: Launcher, run: Path, moment: Moment, rng: random.Random) -> Strike:
    """Waits for the moment and kills; where the victim is not there yet, the launcher in its place."""
    victim = rng.choice(VICTIMS)
    watched = 0 if victim == LAUNCHER else int(victim.split()[1])
    seen = _SEEN[moment](launcher, run, watched, rng)
    process_id = launcher.process_id if victim == LAUNCHER else launcher.rank_process(watched)
    if process_id is None:
        victim, process_id = LAUNCHER, launcher.process_id
    if not is_alive(process_id):
        raise MomentMissed
    os.kill(process_id, signal.SIGKILL)
    _wait_until(lambda: not is_alive(process_id), launcher)
    # The first rank writes; a save of which it dies leaves its half.
    is_cut = moment == "save" and victim == "rank 0" and bool(_half_saved(run))
    return Strike(moment, victim, seen, is_cut)


def _see_start_up(launcher: Launcher, run: Path, rank: int, rng: random.Random) -> str:
    delay = rng.uniform(0.0, 1.5)
    time.sleep(delay)  # any moment will do
    return f"{delay:.2f} s after it began"


def _see_step(launcher: Launcher, run: Path, rank: int, rng: random.Random) -> str:
    number = rng.randint(1, 10)
    _wait_for_note(launcher, rank, "steps", number)
    time.sleep(rng.uniform(0.0, 0.03))
    return f"step {number} of its life"


def _see_evaluation(launcher: Launcher, run: Path, rank: int, rng: random.Random) -> str:
    _wait_for_note(launcher, rank, "evaluates", 1)
    time.sleep(rng.uniform(0.0, 0.03))
    return "evaluation begun"


def _see_save(launcher: Launcher, run: Path, rank: int, rng: random.Random) -> str:
    later = time.monotonic() + rng.uniform(0.0, 0.5)
    _wait_until(lambda: time.monotonic() > later and bool(_half_saved(run)), launcher, poll_seconds=0.0005)
    return "being written"


_SEEN: dict[Moment, Callable[[Launcher, Path, int, random.Random], str]] = {
    "start-up": _see_start_up,
    "step": _see_step,
    "save": _see_save,
    "evaluation": _see_evaluation,
}


def _half_saved(run: Path) -> list[str]:
    """What is being written in the folder of checkpoints under a temporary name."""
    try:
        return [name for name in os.listdir(run / "checkpoints") if name.endswith(".tmp")]
    except FileNotFoundError:
        return []


def _wait_for_note(launcher: Launcher, rank: int, doing: str, count: int) -> None:
    def is_there() -> bool:
        note = read_note(launcher.notes, rank)
        return note is not None and is_alive(note.process_id) and note.doing == doing and note.count >= count

    _wait_until(is_there, launcher, poll_seconds=0.001)


def _wait_until(condition: Callable[[], bool], launcher: Launcher, *, poll_seconds: float = 0.005) -> None:
    """Returns once `condition` holds.

    Raises:
        MomentMissed: the launcher ended well before that.
        AssertionError: it did not come in time, or the launcher failed by itself.
    """
    deadline = time.monotonic() + SECONDS_TO_COME
    while True:
        code = launcher.exit_code  # first: what the launcher did before it ended holds by then
        if condition():
            return
        if code == 0:
            raise MomentMissed
        assert code is None, f"the launcher ended by itself, with exit code {code}\n{launcher.tail()}"
        assert time.monotonic() < deadline, f"waited {SECONDS_TO_COME:g} s in vain\n{launcher.tail()}"
        time.sleep(poll_seconds)
