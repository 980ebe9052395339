"""Checkpoints under every strategy and number of ranks, loaded under every other; those of format 2, too.

The whole matrix (15 places to save, 20 to load; of those of format 2 the part that loads on three ranks):
pytest -m long tests/train/test_load_matrix.py
"""

from pathlib import Path

import pytest
import torch

from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.train.load_matrix import (
    STRATEGIES,
    Place,
    apart,
    copy_old,
    load_all,
    old,
    resumed,
    save_all,
    tensors,
)

pytestmark = [pytest.mark.distributed, needs_deepspeed]

# Sums in another order, and ten steps that carry them on: measured 5e-7.
_ROUNDING = 1e-4
# A part of the matrix that cuts all that can be cut, joins it and cuts it anew for three ranks.
REFERENCE = Place("ddp", 2)
SOURCES = ("ddp", "zero2", "zero3", "fsdp")
TARGETS = [
    (Place("ddp", 2), "zero1"),
    (Place("zero2", 2), "fsdp"),
    (Place("zero3", 2), "ddp"),
    (Place("fsdp", 2), "zero3"),
]
OLD_TARGETS = [(Place("zero3", 4), "fsdp"), (Place("fsdp", 2), "zero2"), (Place("zero1", 4), "ddp")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix")
    on_ranks(2, _save_and_go_on, path, timeout_s=170)
    copy_old(path)
    pairs = [*TARGETS, *((old(source), strategy) for source, strategy in OLD_TARGETS)]
    on_ranks(3, load_all, path, pairs, timeout_s=170)
    return path


def _save_and_go_on(path: Path) -> None:
    save_all(path, SOURCES)
    load_all(path, [(REFERENCE, REFERENCE.strategy)])


def _assert_loads(
    folder: Path, source: Place | str, target: Place, reference: Place | str, home: Place
) -> None:
    """The state comes back bit for bit, and training goes on as `reference` does at its own place, `home`."""
    saved = folder / str(source)
    start, end = resumed(folder, source, target)
    expected, found = tensors(saved), tensors(start)
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not different, f"{source} -> {target}: {different}"
    expected_end = resumed(folder, reference, home)[1]
    assert apart(end, expected_end, since=saved) < _ROUNDING, f"{source} -> {target}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", [Place(strategy, 2) for strategy in SOURCES], ids=str)
def test_all_strategies_save_the_same_state(source: Place, folder: Path) -> None:
    saved, expected = tensors(folder / str(source)), tensors(folder / str(REFERENCE))

    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-4, atol=1e-5)
    assert all(tensor.any() for name, tensor in saved.items() if name.endswith("momentum_buffer"))


@pytest.mark.parametrize(("source", "strategy"), TARGETS, ids=str)
def test_a_checkpoint_of_two_ranks_loads_on_three(source: Place, strategy: str, folder: Path) -> None:
    _assert_loads(folder, source, Place(strategy, 3), REFERENCE, REFERENCE)


@pytest.mark.parametrize(("source", "strategy"), OLD_TARGETS, ids=str)
def test_a_checkpoint_of_an_earlier_version_loads_on_three(
    source: Place, strategy: str, folder: Path
) -> None:
    _assert_loads(folder, old(source), Place(strategy, 3), REFERENCE, REFERENCE)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_whole_matrix(tmp_path: Path) -> None:
    sources = [Place(strategy, num_ranks) for num_ranks in (1, 2, 4) for strategy in STRATEGIES]
    for num_ranks in (1, 2, 4):
        on_ranks(num_ranks, save_all, tmp_path, STRATEGIES, timeout_s=600)
    copy_old(tmp_path)
    for num_ranks in (1, 2, 3, 4):
        named: list[Place | str] = [*sources, *(old(each) for each in sources if num_ranks == 3)]
        pairs = [(name, strategy) for name in named for strategy in STRATEGIES]
        on_ranks(num_ranks, load_all, tmp_path, pairs, timeout_s=3000)
    for source in sources:
        for target in (Place(strategy, num_ranks) for num_ranks in (1, 2, 3, 4) for strategy in STRATEGIES):
            _assert_loads(tmp_path, source, target, reference=source, home=source)
            if target.num_ranks == 3:
                _assert_loads(tmp_path, old(source), target, reference=source, home=source)
