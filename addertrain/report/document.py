"""A report as plain data: its sections with their sources, and the sections that are missing."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from addertrain.report.runs import Group, Run
from addertrain.report.style import Picture
from addertrain.report.tables import Table


@dataclass(frozen=True)
class Source:
    """The source of a section: recipe, seeds and runs in words, and the commands that reproduce them."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Section:
    """Tables and figures about one topic; `text` says what they show, `source` which runs they are from."""

    key: str
    title: str
    text: str
    source: tuple[Source, ...]
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The section as JSON, with figures by their file names."""
        return {
            "key": self.key,
            "title": self.title,
            "text": self.text,
            "source": [asdict(source) for source in self.source],
            "tables": [table.plain() for table in self.tables],
            "pictures": [
                {"file": f"{picture.key}.png", "caption": picture.caption} for picture in self.pictures
            ],
        }


@dataclass(frozen=True)
class Absent:
    """A section that these runs cannot fill: what it would show, and which runs it needs."""

    title: str
    reason: str


def averaged(group: Group, runs: Sequence[Run]) -> str:
    """A caption: the runs of the numbers, and over how many they are averaged."""
    n = len(runs)
    return f"{group.label}: {f'mean ± standard deviation over n = {n}' if n > 1 else 'n = 1'}."


def sources(groups: Sequence[Group], *, only: Sequence[Run] | None = None) -> tuple[Source, ...]:
    """For each recipe its name, the seeds with their runs, and the commands.

    Args:
        only: the runs that were used, if not all.
    """
    lines = []
    for group in groups:
        used = [run for run in group.runs if only is None or run in only]
        if not used:
            continue
        seeds = ", ".join(str(run.seed) for run in used)
        runs = ", ".join(run.label for run in used)
        words = "seed" if len(used) == 1 else "seeds"
        text = f"recipe {group.label}, n = {len(used)} ({words} {seeds}), runs {runs}"
        lines.append(Source(text, command_of(used)))
    return tuple(lines)


def command_of(runs: Sequence[Run]) -> str:
    """The command that reproduces these runs; a loop if only the seed differs."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    seeded = set()
    for run in runs:
        if words := shlex.split(run.command):
            command = _without_seed(words)
            seeds.setdefault(command, []).append(run.seed)
            if len(command) < len(words):
                seeded.add(command)
    return "; ".join(
        sorted(
            _over(shlex.join(command), sorted(numbers), runs[0].recipe.name)
            if command in seeded
            else shlex.join(command)
            for command, numbers in seeds.items()
        )
    )


def _over(command: str, seeds: Sequence[int], name: str) -> str:
    if len(seeds) == 1:
        return f"{command} --train.seed {seeds[0]}"
    out = shlex.quote(f"runs/{name}") + "-$s"
    return f"for s in {' '.join(map(str, seeds))}; do {command} --train.seed $s --out {out}; done"


def _without_seed(words: Sequence[str]) -> tuple[str, ...]:
    kept = [word for word in words if not word.startswith("--train.seed=")]
    while "--train.seed" in kept:
        place = kept.index("--train.seed")
        del kept[place : place + 2]
    return tuple(kept)
