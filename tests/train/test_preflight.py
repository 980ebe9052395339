"""preflight: one line a check, every rank heard, one broken machine named."""

import os
import time
from pathlib import Path

import pytest

from addertrain.cli import main
from addertrain.errors import RunError
from addertrain.train import preflight_checks as checks
from addertrain.train.preflight import Result, preflight
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, SHORT, launched, short_recipe

CHECKS = [
    "processes",
    "all-reduce",
    "versions",
    "device",
    "operators",
    "data",
    "kernels",
    "disk",
    "folder",
    "clocks",
]


def test_one_process_with_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", str(DIGITS), *SHORT, "--out", str(tmp_path / "run")]) == 0

    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == CHECKS
    assert all(line.startswith("ok ") for line in lines)
    assert last.startswith("preflight: ready to run, in ")
    assert not list(tmp_path.iterdir())


def _two_ranks(out: Path, is_second_broken: bool) -> tuple[bool, list[Result]]:
    launched()
    overrides = []
    if is_second_broken and os.environ["RANK"] == "1":
        time_here = time.time
        time.time = lambda: time_here() + 60.0
        checks.versions_here = lambda: {"torch": "1.0"}
        checks.libraries.status = lambda: "_C not built"
        checks.find_marker = _find_nothing
        overrides = ["--data.name=mnist", "--data.root=absent"]
    results: list[Result] = []
    return preflight(short_recipe(*overrides), out, results.append), results


def _find_nothing(marker: Path) -> Path:
    raise RunError("expected the file that the first rank wrote")


def test_two_ranks_with_nothing_wrong(tmp_path: Path) -> None:
    (first, results), (second, nothing) = on_ranks(2, _two_ranks, tmp_path / "run", False)

    assert first
    assert second
    assert [result.name for result in results] == CHECKS
    assert nothing == [], "one rank speaks"
    assert results[0].text.startswith("2 on cpu")
    assert results[1].text.startswith("right; 4 bytes in")


def test_every_trouble_of_one_rank_is_named(tmp_path: Path) -> None:
    (is_fine, results), (is_fine_there, _) = on_ranks(2, _two_ranks, tmp_path, True)

    assert not is_fine
    assert not is_fine_there
    assert [result.name for result in results] == CHECKS, "one failure hides no other"
    failed = {result.name: result.text for result in results if not result.is_fine}
    assert failed.keys() == {"versions", "operators", "data", "folder", "clocks"}
    assert "1.0 on rank 1" in failed["versions"]
    assert "rank 1 on " in failed["operators"]
    assert "expected a folder absent" in failed["data"]
    assert "rank 1 on " in failed["folder"]
    assert "expected clocks within 5 s of each other, got 60." in failed["clocks"]
    assert str(results[-1]).startswith("FAIL  clocks")


def test_a_full_disk_is_found_before_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: full)

    assert main(["preflight", str(DIGITS), *SHORT, "--out", str(tmp_path / "run")]) == 1

    said = capsys.readouterr().out
    assert "FAIL  disk          rank 0 on" in said
    assert "0 MiB free; free some space" in said
    assert "preflight: not ready to run" in said
