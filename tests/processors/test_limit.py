"""`launch/test --instruction-set` reaches every process of a run: workers, ranks, commands."""

import os
import sys

import pytest
import torch

from addertrain import libraries
from tests import instruction_sets
from tests.commands import run_command
from tests.ranks import on_ranks
from tests.source_tree import ROOT, python_files

KERNELS = {"avx512": "AVX-512", "avx2": "AVX2", "portable": "portable"}
# What torch.backends.cpu calls the limits of ATen.
ATEN = {"avx2": "AVX2", "portable": "DEFAULT"}

when_limited = pytest.mark.skipif(instruction_sets.limit() is None, reason="this run is not limited")


def in_use() -> tuple[str, str, str | None]:
    return (
        libraries.cpu_kernels(),
        torch.backends.cpu.get_cpu_capability(),
        os.environ.get("ONEDNN_MAX_CPU_ISA"),
    )


def expected() -> tuple[str, str, str | None]:
    most = instruction_sets.limit()
    assert most is not None
    onednn = instruction_sets.libraries_limited_to(most).get("ONEDNN_MAX_CPU_ISA")
    return KERNELS[most], ATEN.get(most, torch.backends.cpu.get_cpu_capability()), onednn


@when_limited
def test_this_process_is_limited_and_goes_back_to_the_limit() -> None:
    assert in_use() == expected()
    with instruction_sets.chosen("portable"):
        assert libraries.cpu_kernels() == "portable"
    assert in_use() == expected()


@when_limited
def test_ranks_are_limited() -> None:
    assert on_ranks(1, in_use) == [expected()]


@when_limited
def test_commands_are_limited() -> None:
    result = run_command(sys.executable, "-m", "addertrain", "--version", "--full")

    assert f"on CPUs: {expected()[0]})" in result.stdout


@when_limited
def test_what_is_beyond_the_limit_is_skipped_with_a_reason() -> None:
    names = instruction_sets.NAMES
    beyond = names[: names.index(instruction_sets.limit() or "")]

    assert beyond
    assert not any(instruction_sets.choose(name) for name in beyond)
    for name in beyond:
        with pytest.raises(pytest.skip.Exception, match="limited to"), instruction_sets.chosen(name):
            pass


def test_a_limited_run_is_limited_everywhere() -> None:
    """To what every processor has and none has as its best."""
    if not libraries.is_loaded("_C"):
        pytest.skip(f"the CPU library is missing: {libraries.status()}")
    file = ROOT / "tests" / "processors" / "test_limit.py"
    options = (
        "--instruction-set",
        "portable",
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        "-k",
        "this_process or commands",
    )

    result = run_command(sys.executable, "-m", "tests.whole_run", *options, str(file))

    assert result.returncode == 0, result.stdout + result.stderr
    assert " 2 passed " in result.stdout.splitlines()[-1], result.stdout


def test_no_test_goes_back_to_the_best_past_the_limit() -> None:
    """Who chooses a set does so through `tests.instruction_sets`, which knows what to go back to."""
    word = "use_cpu_instruction_set" + "("
    may = {"instruction_sets.py", "sitecustomize.py", "test_libraries.py"}
    wrong = [
        str(path)
        for path in python_files(ROOT / "tests")
        if path.name not in may and word in path.read_text()
    ]

    assert not wrong, f"use tests.instruction_sets.choose and restore, or chosen: {wrong}"
