"""What `test_matrix` runs in every cell, in a process limited to it, which is given this file by name.

The operator table is cut: the cells share its layers out, so that all of them together meet each one.
"""

import os
from pathlib import Path

import pytest
import torch

from addertrain.recipe import load_recipe
from addertrain.train.run import fit
from tests import instruction_sets
from tests.ops import test_table
from tests.ops.implementations import Implementation
from tests.ops.layers import TABLE
from tests.train.small_runs import DIGITS, assert_same_bits, final_weights

SHARE = "ADDERTRAIN_TESTS_SHARE"  # "2/6": the third of six cells
# Seeds 0 and 1 end at 95.0 and 92.2 % after two epochs; chance is 10 %.
LEAST_TOP1 = 85.0


@pytest.fixture
def shared_table(monkeypatch: pytest.MonkeyPatch) -> None:
    first, step = map(int, os.environ[SHARE].split("/"))
    for group, layers in TABLE.items():
        monkeypatch.setitem(TABLE, group, layers[first::step])


def _mistakes(operators: Implementation, dtype: torch.dtype) -> list[str]:
    return [
        mistake
        for group in TABLE
        for of in (
            test_table.forward_mistakes,
            test_table.grad_input_mistakes,
            test_table.grad_weight_mistakes,
        )
        for mistake in of(operators, group, dtype)
    ]


@pytest.mark.usefixtures("shared_table")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_operator_table(dtype: torch.dtype) -> None:
    name = instruction_sets.limit()
    assert name is not None
    mistakes = _mistakes(Implementation(name), dtype)

    assert not mistakes, "\n".join(mistakes[:20])


def test_two_epochs_of_the_digits_train_and_repeat_bit_by_bit(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, ["--schedule.epochs=2"])

    summaries = [fit(recipe, tmp_path / name) for name in ("once", "again")]

    assert summaries[0].top1 > LEAST_TOP1
    weights = final_weights(tmp_path / "once")
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert_same_bits(weights, final_weights(tmp_path / "again"))
