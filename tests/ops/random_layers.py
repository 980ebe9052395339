"""Random layers through the operators, against float64, in processes of their own.

    python -m tests.ops.random_layers --number 2000 --seed 0

Layer i of a seed is always the same one: its sizes, type and layout are drawn from the two numbers. The
response and both gradients are held to the operator table's tolerances, with all that the processor has, and
with oneDNN, ATen and our kernels as on a lesser one. A process that dies is a failure with the number of the
layer that it was at, and the next process goes on behind that layer.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from tests.ops.answers import data_of, forward_answer, grad_input_answer, grad_weight_answer
from tests.ops.implementations import Implementation
from tests.ops.layers import Layer
from tests.ops.test_table import DTYPES, LAYOUTS, mistake
from tests.source_tree import ROOT

PROCESSORS: dict[str, dict[str, str]] = {
    "as it is": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "portable": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
"""Names of our kernels' instruction sets, and what limits oneDNN and ATen to the same."""


@dataclass(frozen=True)
class Case:
    """A layer with what else decides which way it is computed."""

    layer: Layer
    dtype: torch.dtype
    layout: str
    offset_free: bool
    behind_relu: bool


def drawn(seed: int, index: int) -> Case:
    """The layer with this number: widths of 1 to 70, half of the filters 1x1."""
    draw = random.Random(f"{seed} {index}")
    while True:
        numbers = [draw.randint(1, most) for most in (3, 70, 70, 12, 12)]
        kernel = (1, 1) if draw.random() < 0.5 else (draw.randint(1, 5), draw.randint(1, 5))
        stride, padding, dilation = (
            (draw.randint(low, high), draw.randint(low, high)) for low, high in ((1, 4), (0, 3), (1, 3))
        )
        layer = Layer(*numbers, *kernel, stride, padding, dilation)
        if min(layer.output) >= 1:
            break
    layout = draw.choice(list(LAYOUTS))
    return Case(layer, draw.choice(DTYPES), layout, draw.random() < 0.5, draw.random() < 0.5)


def mistakes_of(case: Case, operators: Implementation) -> list[str]:
    """What is wrong with the response and the two gradients, each by its name."""
    layer, dtype = case.layer, case.dtype
    data, given = data_of(layer, dtype), data_of(layer, dtype, case.behind_relu)
    dy, x, relu_x = (t.to(memory_format=LAYOUTS[case.layout]) for t in (data.dy, data.x, given.x))
    y = operators.forward(layer, relu_x, data.w, case.offset_free)
    expected = forward_answer(layer, dtype, case.offset_free, case.behind_relu)
    dx, dw = operators.grad_input(layer, dy, x, data.w), operators.grad_weight(layer, dy, x, data.w)
    pairs = {
        "forward": (y, expected),
        "grad_input": (dx, grad_input_answer(layer, dtype)),
        "grad_weight": (dw, grad_weight_answer(layer, dtype)),
    }
    found = {name: mistake(got, answer, layer, case.layout) for name, (got, answer) in pairs.items()}
    return [f"{name}, {dtype}: {text}" for name, text in found.items() if text]


def check(seed: int, first: int, end: int, processor: str) -> None:
    """In the child: a line `at I` before every layer, and a line for every mistake behind it."""
    with Implementation(processor).use() as operators:
        for index in range(first, end):
            print(f"at {index}", flush=True)
            for text in mistakes_of(drawn(seed, index), operators):
                print(text, flush=True)


def failures(child: Sequence[str], number: int, changes: dict[str, str]) -> Iterator[str]:
    """Runs `child first end` until every number below `number` had its turn; a line for each failure."""
    first = 0
    while first < number:
        at = None
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                [*child, str(first), str(number)], cwd=ROOT, env=os.environ | changes, text=True,
                stdout=subprocess.PIPE, stderr=errors,
            ) as process,
        ):  # fmt: skip
            assert process.stdout is not None
            for line in map(str.strip, process.stdout):
                if line.startswith("at "):
                    at = int(line.removeprefix("at "))
                elif line:
                    yield f"layer {at}: {line}"
            if process.wait() == 0:
                return
            errors.seek(0)
            last_words = errors.read().strip().splitlines()[-1:]
        yield f"layer {at}: its process ended with {process.returncode} {' '.join(last_words)}".strip()
        if at is None:
            return  # it cannot even start
        first = at + 1


def _has(processor: str) -> bool:
    try:
        with Implementation(processor).use():
            return True
    except pytest.skip.Exception:
        return False


def main(words: Sequence[str]) -> int:
    """Every processor in turn; exit code 1 if a layer was wrong or a process died."""
    parser = argparse.ArgumentParser(prog="python -m tests.ops.random_layers", description=__doc__)
    parser.add_argument("--number", type=int, default=2000, help="layers for each processor (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="decides which layers (default: 0)")
    parser.add_argument("--processor", choices=PROCESSORS, help="one alone (default: all)")
    parser.add_argument("--inside", nargs=2, type=int, metavar="INDEX", help="check these layers right here")
    arguments = parser.parse_args(words)
    if arguments.inside:
        check(arguments.seed, *arguments.inside, arguments.processor)
        return 0
    found = 0
    for name in [arguments.processor] if arguments.processor else PROCESSORS:
        if not _has(name):
            print(f"{name}: left out, this processor has no such instructions", flush=True)
            continue
        child = [sys.executable, "-m", "tests.ops.random_layers", "--seed", str(arguments.seed)]
        child += ["--processor", name, "--inside"]
        lines = list(failures(child, arguments.number, PROCESSORS[name]))
        print(
            *(f"{name}, seed {arguments.seed}, {line}" for line in lines), sep="\n", end="\n" if lines else ""
        )
        print(f"{name}: {arguments.number} layers, {len(lines)} failures", flush=True)
        found += len(lines)
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
