"""Streams that take nothing more end no command and no training."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from addertrain.cli import main
from addertrain.train.output import ForgivingStream, complain, say
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.train.small_runs import DIGITS, short_recipe


def _full_disk() -> TextIO:
    return open("/dev/full", "w")


def _left_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", closefd=True)


def _closed_file() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [_full_disk, _left_pipe, _closed_file, lambda: None])
def test_a_line_that_cannot_be_written_is_left_out(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, make())  # type: ignore[operator]

    say("a line")
    complain("a line")
    assert not ForgivingStream(sys.stderr).isatty()


def test_what_an_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = ForgivingStream(io.TextIOWrapper(raw, encoding="latin-1", write_through=True))

    stream.write("γ é \udcff")

    assert raw.getvalue() == b"\\u03b3 \xe9 \\udcff"


@pytest.mark.parametrize("make", [_full_disk, _left_pipe, lambda: None])
def test_a_training_whose_log_takes_nothing_ends_as_it_should(
    make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, make())  # type: ignore[operator]

    fit(short_recipe("--schedule.epochs=1"), tmp_path / "run")

    assert RunDirectory(tmp_path / "run").read_summary() is not None


def test_what_is_told_has_been_handed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that sends SIGKILL at an epoch's line finds that epoch's save under way."""
    saved: list[str] = []

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("epoch"):
                saved.extend(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
            return len(text)

    monkeypatch.setattr("addertrain.checkpoint.background.ThreadPoolExecutor.submit", _at_once)
    monkeypatch.setattr(sys, "stdout", Watched())
    fit(short_recipe("--schedule.epochs=1"), tmp_path / "run")

    assert "epoch_0001_step_000005" in saved


def _at_once(self: object, job: object) -> object:
    from concurrent.futures import Future

    future: Future[None] = Future()
    future.set_result(job())  # type: ignore[operator]
    return future


def test_a_result_that_cannot_be_printed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _full_disk())

    assert main(["plan", str(DIGITS)]) == 1

    assert "stdout: expected to print the result, got: No space left on device" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _left_pipe())

    assert main(["plan", str(DIGITS)]) == 0

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [("fit nosuch.yaml 2>&-", 2), ("fit --help | head -c 0", 0), ("fit --help > /dev/full 2>&-", 0)],
)
def test_the_process_ends_with_its_own_code(words: str, code: int) -> None:
    command = f"set -o pipefail; {sys.executable} -m addertrain {words}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (code, "")
