"""The benchmark of loaders runs, and counts what it says it counts."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import tests.ranks  # noqa: F401  (its server of processes, with all that the suite needs, is the first)
from addertrain.bench import ffcv_loader, loader
from addertrain.bench.loader import processor_seconds
from addertrain.bench.step import training_step
from addertrain.data.beton.encode import BetonSettings
from addertrain.data.beton.write import write_beton
from addertrain.data.sources.folder import folder_of_classes
from tests.commands import run_command
from tests.data.photographs import write_folder


def test_every_way_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_SETTINGS", {"ffcv jpg 500": BetonSettings(max_size=500)})
    monkeypatch.setattr(ffcv_loader, "is_there", lambda: False)  # it compiles for ten seconds: see below
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
    assert "FFCV's Loader" not in printed


@pytest.mark.parametrize("shape", [(2,), (2, 1)], ids=["ours", "FFCV's Loader"])
def test_a_model_trains_on_the_labels_of_every_way(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def recorded(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> None:
        training_step(model, optimizer, images, labels)
        trained.append((labels.tolist(), all(param.grad is not None for param in model.parameters())))

    monkeypatch.setattr(loader, "training_step", recorded)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)

    loader._training("resnet18")((images, torch.tensor([3, 1]).view(shape)))

    assert trained == [([3, 1], True)]


@pytest.mark.long
def test_ffcvs_own_loader_is_a_row_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    if not ffcv_loader.is_there():
        pytest.skip("no FFCV")
    monkeypatch.setattr(loader, "_SETTINGS", {"ffcv jpg 500": BetonSettings(max_size=500)})
    folder = write_folder(tmp_path, num_classes=2, per_class=3)
    words = ["--batch", "4", "--threads", "1", "--epochs", "1", "--repeat", "2"]

    assert loader.main([str(folder), *words]) == 0

    (row,) = re.findall(r"^FFCV's Loader, jpg 500 +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert float(row.split()[1]) > 0
    assert torch.get_num_threads() == threads


@pytest.mark.long
def test_ffcvs_own_loader_gives_batches_as_ours_does(tmp_path: Path) -> None:
    """Each image as often as it is asked for, in bytes and channels last; stopping early ends its thread."""
    if not ffcv_loader.is_there():
        pytest.skip("no FFCV")
    files = folder_of_classes(write_folder(tmp_path, num_classes=3, per_class=2))
    write_beton(files, tmp_path / "six.beton", BetonSettings(max_size=100))
    begin = ffcv_loader.ffcv_epochs(
        tmp_path / "six.beton", np.tile(np.arange(6), 2), batch=4, num_threads=1, image_size=64
    )

    found = [(images.clone(), labels.clone()) for images, labels in begin()]

    labels = torch.cat([labels for _, labels in found])
    assert sorted(labels.flatten().tolist()) == sorted([0, 0, 1, 1, 2, 2] * 2)
    for images, _ in found:
        assert (images.shape, images.dtype) == ((4, 3, 64, 64), torch.uint8)
        assert images.is_contiguous(memory_format=torch.channels_last)
    num_threads = threading.active_count()
    batches = begin()
    next(batches)
    assert threading.active_count() == num_threads + 1
    batches.close()
    assert threading.active_count() == num_threads


def test_processor_time_counts_children_that_have_ended() -> None:
    """In a process of its own: a fork of this one may meet a lock that another thread held then."""
    before = processor_seconds()
    subprocess.run([sys.executable, "-S", "-c", _BUSY], check=True)
    assert processor_seconds() - before > 0.1


_BUSY = """
import time
while time.process_time() < 0.15:
    pass
"""


def test_children_are_found_though_a_thread_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, process = os.listdir("/proc/self/task"), os.getpid()
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", lambda path: [*threads, "0"])  # no thread has the number 0
            assert child.pid in loader._children(process)
    finally:
        child.communicate(b"\n")
    assert child.pid not in loader._children(process)


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
