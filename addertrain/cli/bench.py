"""`addertrain bench`: lists the benchmarks and runs one; each is a module of `addertrain.bench`."""

import argparse
import importlib

from addertrain.cli.parser import Commands
from addertrain.command_parser import filled, help_width
from addertrain.errors import UsageError

# The name (a module in addertrain/bench), the arguments, and what the benchmark measures.
_BENCHMARKS: tuple[tuple[str, str, str], ...] = (
    (
        "ops",
        "[NETWORK ...]",
        "the adder operators on every layer of a network, against what the device can reach",
    ),
    (
        "proof",
        "[NETWORK ...]",
        "whether the compiled kernels agree with the reference on every layer of a network",
    ),
    ("step", "NETWORK", "a training step, against that of the convolutional baseline"),
    ("infer", "NETWORK", "an evaluation in 8 bits, against convolutions in float32 and in 8 bits"),
    ("loader", "IMAGES", "all ways of reading images: FFCV files, torchvision, Pillow"),
    (
        "checkpoint",
        "[NETWORK]",
        "the time that saving a checkpoint takes from training and from its writer thread",
    ),
    ("scaling", "[NETWORK]", "a training step on 1, 2, ... ranks of this machine, projected to many GPUs"),
)
NAMES = tuple(name for name, _, _ in _BENCHMARKS)


def add_parser(commands: Commands) -> None:
    """Adds the command to the list; each benchmark reads its own arguments."""
    commands.add_parser(
        "bench", help=f"run a benchmark: {', '.join(NAMES[:-1])} or {NAMES[-1]}", add_help=False
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Runs the benchmark that the first of `arguments.words` names; the rest are its arguments."""
    words: list[str] = arguments.words
    if words[:1] in ([], ["-h"], ["--help"]):
        print(_help())
        return 0
    name, *rest = words
    if name not in NAMES:
        expected = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
        raise UsageError(f"bench: expected {expected}, got '{name}'; see addertrain bench --help")
    # Import only this benchmark, because it imports torch.
    benchmark = importlib.import_module(f"addertrain.bench.{name}")
    code: int = benchmark.main(rest)
    return code


def _help() -> str:
    rows = [(f"{name} {words}", what) for name, words, what in _BENCHMARKS]
    width = max(len(call) for call, _ in rows)
    lines = [f"  {call:{width}}   {what}" for call, what in rows]
    text = [
        f"usage: addertrain bench {{{','.join(NAMES)}}} [options]",
        "",
        "Measures the speed of this package's parts, or checks the compiled kernels.",
        "",
        *lines,
        "",
        "addertrain bench NAME --help explains the arguments of a benchmark.",
    ]
    return filled("\n".join(text), width=help_width())
