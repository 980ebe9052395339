"""Ranks start with all that they import: without, each takes seconds more, and no other test fails."""

import importlib.util
import sys

import torch

from tests.ranks import on_ranks


def _is_loaded() -> dict[str, bool]:
    return {name: name in sys.modules for name in ("addertrain.train.run", "sklearn.datasets", "deepspeed")}


def test_ranks_are_forked_from_a_process_that_has_what_they_import() -> None:
    with_deepspeed = importlib.util.find_spec("deepspeed") is not None and not torch.cuda.is_available()

    assert on_ranks(1, _is_loaded) == [
        {"addertrain.train.run": True, "sklearn.datasets": True, "deepspeed": with_deepspeed}
    ]
