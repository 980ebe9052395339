"""Which compiled libraries serve, and what is said where none does."""

import warnings
from pathlib import Path

import pytest
import torch

from addertrain import compiled, libraries
from addertrain.ops import schemas
from tests import instruction_sets


def test_status_names_both_libraries() -> None:
    assert libraries.status().startswith("_C ")
    assert ", _C_cuda " in libraries.status()
    assert "\n" not in libraries.status()


def test_a_damaged_library_is_named_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path,))
    monkeypatch.setattr(libraries, "_status", dict(libraries._status))

    libraries.load()

    assert libraries.status().startswith("_C not loaded (")
    assert "_C.so" in libraries.status()
    assert "_C_cuda not built" in libraries.status() or not torch.version.cuda


def test_the_reference_is_announced_once_per_device_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_warned_of", set())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for device_type in ("cpu", "cuda", "cpu", "cuda", "cpu"):
            schemas._warn_of_reference(device_type)

    messages = [str(one.message) for one in caught]
    assert len(messages) == 2
    assert "no compiled kernels for cpu" in messages[0]
    assert "no compiled kernels for cuda" in messages[1]
    assert "`addertrain --version`" in messages[0]


def test_instruction_sets_are_chosen_by_number() -> None:
    if "_C loaded" not in libraries.status():
        pytest.skip(f"the CPU library is missing: {libraries.status()}")
    portable, unknown, best = 3, 9, 0
    try:
        assert torch.ops.addertrain.use_cpu_instruction_set(portable)
        assert libraries.cpu_kernels() == "portable"
        assert not torch.ops.addertrain.use_cpu_instruction_set(unknown)
        assert libraries.cpu_kernels() == "portable"
        assert torch.ops.addertrain.use_cpu_instruction_set(best)
    finally:
        instruction_sets.restore()
