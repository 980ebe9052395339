"""kernels/ as kernels/README.md describes it: its map, its layers, one name for one thing."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT

KERNELS = ROOT / "kernels"
README = (KERNELS / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(path for path in KERNELS.rglob("*") if path.suffix in {".h", ".cpp", ".cu"})
TEXTS = {path.relative_to(KERNELS).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
OF_THE_EMULATOR = {"emulator.h", "pairs_emulated.h"}

# A file may include what stands in its own line or in one above; the torch side comes last.
FLOORS = [
    {"device"},
    {
        "csrc/cpu/kernels.h",
        "csrc/cpu/dispatch.h",
        "csrc/cpu/choices.h",
        "csrc/cpu/simd",
        "csrc/cpu/int8",
        "csrc/cpu/power_fit.h",
    },
    {"csrc/cpu/movement", "csrc/cpu/norm", "csrc/cpu/squares.h", "csrc/cpu/ceilings.h"},
    {"csrc/cpu/forward", "csrc/cpu/grad_input", "csrc/cpu/grouped", "csrc/cpu/power"},
    {"csrc/cpu/instruction_sets", "csrc/cpu/dispatch.cpp"},
]
KNOWS_TORCH = {
    "csrc/tensors.h",
    "csrc/cuda/torch_side.h",
    "csrc/cuda/operators.cpp",
    "csrc/cuda/norm_operators.cpp",
    "csrc/cuda/squares_operator.cpp",
}
ADDED_BY_THE_STEPS = {"filter_peaks.h"}
MANY_TIMES = {"Simd", "Bytes", "Words"}  # one for each instruction set, by design


def _includes(text: str) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', text, re.M)


def _floor(name: str) -> int | None:
    return next((i for i, floor in enumerate(FLOORS) if floor & {name, str(Path(name).parent)}), None)


def _mapped() -> Iterator[str]:
    """The files that the map names, each under the heading of its folder."""
    _, _, text = README.partition("\n## Map\n")
    for section in text.split("\n### ")[1:]:
        folder = section.splitlines()[0]
        for name, what in re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.M):
            assert what.strip(), f"{folder}/{name}: expected a line that says what it is"
            yield Path(folder, name).as_posix()


def test_the_map_names_every_file_once() -> None:
    files = [path.relative_to(KERNELS).as_posix() for path in KERNELS.rglob("*") if path.is_file()]

    assert sorted(_mapped()) == sorted(name for name in files if not name.endswith(".md"))


@pytest.mark.parametrize("page", ["README.md", "ladder/README.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (KERNELS / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    named = set(re.findall(r"`([\w*./]+\.(?:h|cpp|cu|py|txt|md))`", text))
    named |= set(re.findall(r"\b(tests/\S+\.py)", text))

    assert named
    missing = {name for name in named if not any(KERNELS.rglob(name)) and not any(ROOT.glob(name))}
    assert missing <= ADDED_BY_THE_STEPS, missing


def test_includes_name_files_from_the_top() -> None:
    wrong = [
        f"{name} includes {other}"
        for name, text in TEXTS.items()
        for other in _includes(text)
        if other not in TEXTS and other not in OF_THE_EMULATOR
    ]

    assert not wrong, "\n".join(wrong)


def test_includes_form_no_circle() -> None:
    left = {name: {other for other in _includes(text) if other in TEXTS} for name, text in TEXTS.items()}
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]

    assert not left, f"these include each other: {sorted(left)}"


def test_no_file_includes_upwards() -> None:
    wrong = [
        f"{name} includes {other}"
        for name, text in TEXTS.items()
        for other in _includes(text)
        if (floor := _floor(name)) is not None and ((above := _floor(other)) is None or above > floor)
        if other not in OF_THE_EMULATOR
    ]

    assert not wrong, "\n".join(wrong)


def test_only_the_torch_side_knows_torch() -> None:
    knows = {name for name, text in TEXTS.items() if re.search(r"^#include <torch/", text, re.M)}
    through = {name for name, text in TEXTS.items() if KNOWS_TORCH & set(_includes(text))}

    allowed = KNOWS_TORCH | {name for name in TEXTS if name.startswith("csrc/cpu/operators/")}
    assert knows | through <= allowed, sorted((knows | through) - allowed)


def test_a_type_has_a_name_of_its_own() -> None:
    """Two structs of one name in two namespaces compile, and readers take one for the other."""
    places = defaultdict(set)
    for name, text in TEXTS.items():
        for type_ in re.findall(
            r"^(?:struct|class|enum class|concept) (?:alignas\(.+?\) )?(\w+)\b[^;]*$", text, re.M
        ):
            places[type_].add(name)
    twice = {type_: sorted(names) for type_, names in places.items() if len(names) > 1}

    assert twice.keys() == MANY_TIMES, twice


def test_the_concept_lists_what_the_passes_use() -> None:
    """A new instruction set is written from SimdOperations: it names all that is asked, and no more."""
    listed = set(re.findall(r"\bS::(\w+)", TEXTS["csrc/cpu/simd/operations.h"]))
    used = {
        operation
        for name, text in TEXTS.items()
        if not name.startswith("csrc/cpu/simd/")
        for line in text.splitlines()
        for operation in re.findall(r"\bSimd::(\w+)", line.partition("//")[0])
    }

    assert used == listed


@pytest.mark.parametrize("lacks", [False, True], ids=["whole", "lacking"])
def test_the_compiler_says_what_a_set_lacks(tmp_path: Path, lacks: bool) -> None:
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    simd = TEXTS["csrc/cpu/simd/portable.h"].replace("#pragma once\n", "")
    assert simd.count("keep_nan") == 1
    source = tmp_path / "set.cpp"
    text = simd.replace("keep_nan", "lose_nan") if lacks else simd
    source.write_text(f'{text}#include "csrc/cpu/instruction_sets/passes.h"\n', encoding="utf-8")

    options = ("-std=gnu++20", "-fsyntax-only", f"-I{KERNELS}")
    compiled = run_command(compiler, *options, str(source))

    assert (compiled.returncode != 0) == lacks, compiled.stderr
    if lacks:
        first = next(line for line in compiled.stderr.splitlines() if "error:" in line)
        assert "Simd lacks an operation" in first
        assert "keep_nan" in compiled.stderr
