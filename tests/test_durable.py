"""Files that are whole or absent, and what killed processes leave beside them."""

import os
from pathlib import Path

import pytest

from addertrain.durable import hidden_name, remove_leftovers, write_text

NOBODY = 99999999  # above every process number that Linux gives


def test_a_file_is_replaced_and_nothing_else_appears(tmp_path: Path) -> None:
    file = tmp_path / "latest"
    write_text(file, "one")
    write_text(file, "α")

    assert file.read_text(encoding="utf-8") == "α"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_leaves_the_old_one_alone(tmp_path: Path) -> None:
    file = tmp_path / "latest"
    write_text(file, "one")

    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\udc80")

    assert file.read_text(encoding="utf-8") == "one"
    assert list(tmp_path.iterdir()) == [file]


def test_the_next_one_to_write_a_file_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    _die_before_the_rename(tmp_path / "summary.json")
    (left,) = tmp_path.iterdir()

    write_text(tmp_path / "other.json", "")
    assert left.exists(), "another file's"
    write_text(tmp_path / "summary.json", "{}")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "summary.json"]


def _die_before_the_rename(file: Path) -> None:
    child = os.fork()
    if child == 0:
        Path.replace = lambda *_: os._exit(0)  # type: ignore[assignment, method-assign]
        write_text(file, "half")
    os.waitpid(child, 0)


def test_only_what_dead_processes_left_goes(tmp_path: Path) -> None:
    gone = [f".a.{NOBODY}.tmp", f".b.{NOBODY}.old", hidden_name(tmp_path / "a", "old").name]
    kept = [f".c.{NOBODY}.tmp", f".a.{os.getppid()}.tmp", f".ab.{NOBODY}.tmp", "a", ".a.tmp"]
    for name in gone + kept:
        (tmp_path / name).mkdir()

    remove_leftovers(tmp_path, "a|b")

    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_folder_that_is_not_there_holds_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "absent", ".*")

    assert not list(tmp_path.iterdir())
