"""Runs the trainings of a study in parallel; `launch/study` starts it with file, folder and number of
jobs.
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

FAILED, BAD_USAGE, SAVED, INTERRUPTED = 1, 2, 75, 130
ADDERTRAIN = (sys.executable, "-P", "-m", "addertrain")
OWN_KEYS = ("--out", "--train.seed", "--resume")  # which the study itself sets for every run
SECONDS_BETWEEN_LOOKS = 0.1


class StudyError(ValueError):
    """A study that cannot be read; the message is one line."""


@dataclass(frozen=True)
class Run:
    """One setting with one seed; `name` is that of its folder."""

    name: str
    recipe: str
    seed: int
    keys: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The arguments of `addertrain`, without the folder."""
        return ["fit", self.recipe, "--train.seed", str(self.seed), *self.keys]


def runs_of(text: str, source: str) -> list[Run]:
    """A run for every seed of every line; lines are split into words as a shell does it, with its quotes.

    Raises:
        StudyError: a line cannot be read, two lines have the same name, or there is no line.
    """
    runs: list[Run] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, line_runs = _runs_of_line(line, f"{source}, line {number}")
        if name in lines_of:
            raise StudyError(
                f"{source}: expected different names for the settings, got {name!r} in lines "
                f"{lines_of[name]} and {number}; rename one, or put the seeds into one line"
            )
        lines_of[name] = number
        runs += line_runs
    if not runs:
        raise StudyError(f"{source}: expected a line for each setting, got none; see launch/study --help")
    return runs


def _runs_of_line(line: str, place: str) -> tuple[str, list[Run]]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise StudyError(f"{place}: expected words as in a shell, got: {error}; close the quotes") from None
    name, recipe, seeds, *keys = [*words, "", "", ""][: max(3, len(words))]
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", seeds):
        raise StudyError(
            f"{place}: expected a name, a recipe, seeds such as 0,1,2, and keys; got: "
            f"{' '.join((name, recipe, seeds)).strip()}"
        )
    if re.search(r"[/\x00-\x1f\x7f]|^[.-]|^$", name):
        raise StudyError(
            f"{place}: expected a name for a folder, without / and not beginning with . or -, got {name!r}"
        )
    if "\0" in line:
        raise StudyError(f"{place}: expected text, got a NUL; save the study as plain text")
    if taken := next((key for key in keys if key.partition("=")[0] in OWN_KEYS), None):
        raise StudyError(
            f"{place}: expected keys of the recipe, got {taken}, which the study itself sets for every run; "
            "remove it"
        )
    numbers = [int(seed) for seed in seeds.split(",")]
    if len(set(numbers)) < len(numbers):
        raise StudyError(f"{place}: expected every seed once, got {seeds}; leave duplicates out")
    return name, [Run(f"{name}-{seed}", recipe, seed, tuple(keys)) for seed in numbers]


class Trainings:
    """Trains some runs at a time, each with its output in a file next to its folder.

    A signal is passed to the runs, which save and end; no further run is started then.
    """

    def __init__(self, runs: Sequence[Run], out: Path, *, jobs: int) -> None:
        self.failed: list[Run] = []
        self.signal: int | None = None
        self._waiting, self._out, self._jobs = list(runs), out, jobs
        self._running: dict[subprocess.Popen[bytes], tuple[Run, BinaryIO, int]] = {}

    def finish(self) -> None:
        """Returns when every run has ended or, after a signal, those that were running."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        while self._running or (self._waiting and self.signal is None):
            while self._waiting and self.signal is None and len(self._running) < self._jobs:
                self._start(self._waiting.pop(0))
            for process in [process for process in self._running if process.poll() is not None]:
                self._end(process, *self._running.pop(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _start(self, run: Run) -> None:
        try:
            log = (self._out / f"{run.name}.log").open("a+b")
        except OSError as error:
            self._complain(run, f"expected a log that can be written, got: {error.strerror}")
            return
        command = [*ADDERTRAIN, *run.words, "--out", str(self._out / run.name)]
        began = log.seek(0, 2)
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._running[process] = (run, log, began)
        if self.signal is not None:  # it came before this process was known
            process.send_signal(self.signal)

    def _end(self, process: subprocess.Popen[bytes], run: Run, log: BinaryIO, began: int) -> None:
        """Prints the outcome of a run, by its output in this session."""
        with log:
            log.seek(began)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        if process.returncode:
            is_killed = process.returncode < 0
            how = f"by {signal.Signals(-process.returncode).name}" if is_killed else "without a word"
            self._complain(run, how if is_killed or not lines else lines[-1])
        else:
            print(
                f"{run.name}: {next((line for line in reversed(lines) if 'top-1' in line), 'done')}",
                flush=True,
            )

    def _complain(self, run: Run, reason: str) -> None:
        self.failed.append(run)
        word = "failed" if self.signal is None else "ended"
        print(f"launch/study: {run.name} {word}: {reason}", file=sys.stderr, flush=True)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for process in list(self._running):
            process.send_signal(number)


def main(argv: Sequence[str]) -> int:
    """Trains, reports what has finished, and returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("jobs", type=int)
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    try:
        runs = runs_of(arguments.study.read_text(encoding="utf-8-sig"), str(arguments.study))
        out.mkdir(parents=True, exist_ok=True)
    except UnicodeDecodeError as error:
        return _refuse(f"{arguments.study}: expected text in UTF-8, got {error.reason}")
    except StudyError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename}: expected a readable and writable file, got: {error.strerror}")
    trainings = Trainings(runs, out, jobs=arguments.jobs)
    trainings.finish()
    if trainings.signal is not None:
        print("launch/study: received a signal to end; the same command resumes", file=sys.stderr, flush=True)
        return INTERRUPTED if trainings.signal == signal.SIGINT else SAVED
    finished = [
        str(out / run.name)
        for run in runs
        if run not in trainings.failed and (out / run.name / "summary.json").exists()
    ]
    if not finished:
        return FAILED
    report = subprocess.run([*ADDERTRAIN, "report", *finished, "--out", str(out / "report")], check=False)
    return FAILED if trainings.failed else report.returncode


def _refuse(message: str) -> int:
    print(f"launch/study: {message}", file=sys.stderr)
    return BAD_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
