"""What is read of /proc/cpuinfo."""

import platform
from pathlib import Path

import pytest

from addertrain import processor

TWO_CORES = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: A Processor 7: 8 Cores
flags\t\t: fpu avx2

processor\t: 1
cpu family\t: 6
model name\t: Another
"""


def _read(monkeypatch: pytest.MonkeyPatch, path: Path) -> tuple[str, str]:
    monkeypatch.setattr(processor, "_CPUINFO", path)
    return processor.processor_name(), processor.processor_family()


def test_the_first_core_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(TWO_CORES)

    assert _read(monkeypatch, path) == ("A Processor 7: 8 Cores", "cpu family 25, model 1")


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nCPU part\t: 0xd0c\n"])
def test_without_a_name_it_is_the_architecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)

    assert _read(monkeypatch, path) == (platform.machine(), "")
