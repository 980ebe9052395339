"""The short form of `python -m tests.faults ranks`: four ranks, where the order of a sum shows."""

import random
from pathlib import Path

import pytest

from tests.data.cifar_files import write_cifar10
from tests.faults.everywhere import STRATEGIES, training_of
from tests.faults.interruptions import INTERRUPTIONS, Event, Interruption, interrupted, left_alone

pytestmark = [pytest.mark.distributed, pytest.mark.faults]


def test_a_run_on_four_ranks_that_is_killed_and_signalled_ends_with_the_same_weights(tmp_path: Path) -> None:
    training = training_of("lenet5bn", "ddp", 4, tmp_path)
    _, expected = left_alone(training, tmp_path)
    run = tmp_path / "run"

    assert training.session(run, Event("kill", 3, rank=2, delay_seconds=0.01)) is None
    (tmp_path / "run-killed").unlink()
    assert training.session(run, Event("signal", 6, rank=1)) is None
    assert training.session(run) == expected


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_small_resnet_on_three_ranks_is_resumed_exactly(
    strategy: str, interruption: Interruption, tmp_path: Path
) -> None:
    write_cifar10(tmp_path / "data")
    training = training_of("resnet8", strategy, 3, tmp_path / "data")
    whole, _ = left_alone(training, tmp_path)

    done, found, expected = interrupted(training, tmp_path, whole, interruption, random.Random(0))

    assert found == expected, done
