"""The benchmark of loaders runs, and counts what it says it counts."""

import os
import re
import sys
from pathlib import Path

import pytest

import tests.ranks  # noqa: F401  (its server of processes, with all that the suite needs, is the first)
from addertrain.bench import loader
from addertrain.bench.loader import processor_seconds
from addertrain.data.beton.encode import BetonSettings
from tests.commands import run_command
from tests.data.photographs import write_folder


def test_every_way_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_FORMS", {"ffcv jpg 500": BetonSettings(max_size=500)})
    folder = write_folder(tmp_path, num_classes=2, per_class=3)
    words = ["--batch", "4", "--threads", "1", "--epochs", "1", "--repeat", "2"]
    assert loader.main([str(folder), *words]) == 0
    printed = capsys.readouterr().out
    for way in ("ffcv jpg 500", "ffcv jpg 500, whole", "torchvision v2", "Pillow, DataLoader"):
        (row,) = re.findall(rf"^{way} +(.*)$", printed, re.MULTILINE)
        speed, cpu_ms, ratio, first_s, megabytes = map(float, row.split())
        assert speed > 0
        assert cpu_ms > 0
        assert ratio > 0
        assert first_s > 0
        assert megabytes < 2000
    assert "order, boxes and flips: " in printed


def test_processor_time_counts_children_that_have_ended() -> None:
    before = processor_seconds()
    if (child := os.fork()) == 0:
        while processor_seconds() < 0.15:
            pass
        os._exit(0)
    os.waitpid(child, 0)
    assert processor_seconds() - before > 0.1


_TOUCHING = """
import mmap
from addertrain.bench.loader import anonymous_megabytes

# Pages of their own: the allocator may answer from memory that was touched before.
with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE) as pages:
    before = anonymous_megabytes()
    pages.write(b"x" * (64 << 20))
    print(anonymous_megabytes() - before)
"""


def test_memory_counts_what_is_touched() -> None:
    """In a process of its own: this one has children that come and go."""
    result = run_command(sys.executable, "-c", _TOUCHING)

    assert 60 < float(result.stdout) < 140, result.stderr  # the pages, and the bytes they are written from
