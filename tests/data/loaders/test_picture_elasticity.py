"""Another number of ranks in mid-epoch through FFCV; `tests/train/test_elasticity.py` has the rest."""

from pathlib import Path

import pytest

from tests.data.test_picture_runs import recipe
from tests.train.test_elasticity import check_same_samples


@pytest.mark.long
@pytest.mark.distributed
def test_two_one_four_ranks_see_what_one_sees_through_ffcv(data_root: Path, tmp_path: Path) -> None:
    words = ("--train.save_every_steps=1", "--schedule.epochs=1", "--data.global_batch_size=8")

    check_same_samples(recipe(data_root, *words), tmp_path, (2, 3))
