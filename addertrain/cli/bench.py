"""`addertrain bench`: one table of benchmarks, each a module of `addertrain.bench` with its own options."""

import argparse
import importlib

from addertrain.cli.parser import Commands
from addertrain.errors import UsageError

# Name (the module in addertrain/bench), its words, and what it shows.
_BENCHMARKS: tuple[tuple[str, str, str], ...] = (
    ("ops", "[NETWORK ...]", "elements/s of every layer of a network, beside what this processor could do"),
    ("proof", "[NETWORK ...]", "the kernels beside the reference, on every layer of a network"),
    ("step", "NETWORK", "a training step, beside that of the convolutional twin"),
    ("loader", "PICTURES", "every way to read pictures: FFCV's files, torchvision, Pillow"),
    ("checkpoint", "[NETWORK]", "what a save costs training, and the thread that writes it"),
    ("scaling", "[NETWORK]", "a step on 1, 2, ... ranks of this machine, projected to many GPUs"),
)
_NAMES = tuple(name for name, _, _ in _BENCHMARKS)


def add_parser(commands: Commands) -> None:
    """Adds the command to the list; its words are read by the benchmark itself."""
    commands.add_parser(
        "bench", help="measure speed: " + ", ".join(f"bench {name}" for name in _NAMES), add_help=False
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Runs the benchmark that `arguments.words` names with the words behind it."""
    words: list[str] = arguments.words
    if words[:1] in ([], ["-h"], ["--help"]):
        print(_help())
        return 0
    name, *rest = words
    if name not in _NAMES:
        expected = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}"
        raise UsageError(f"bench: expected {expected}, got '{name}'; see addertrain bench --help")
    # Only the one that is asked for: they import torch and networks.
    benchmark = importlib.import_module(f"addertrain.bench.{name}")
    code: int = benchmark.main(rest)
    return code


def _help() -> str:
    rows = [(f"{name} {words}", what) for name, words, what in _BENCHMARKS]
    width = max(len(call) for call, _ in rows)
    lines = [f"  {call:{width}}   {what}" for call, what in rows]
    return "\n".join(
        [
            f"usage: addertrain bench {{{','.join(_NAMES)}}} [options]",
            "",
            *lines,
            "",
            "See addertrain bench NAME --help.",
        ]
    )
