"""The command of random layers: a few of them, and that it notices what is wrong."""

import sys

import pytest

from tests.ops.random_layers import PROCESSORS, drawn, failures, main


@pytest.mark.parametrize(
    "processor", [pytest.param("avx2"), pytest.param("portable", marks=pytest.mark.long)]
)
def test_random_layers_are_right_on_a_lesser_processor(
    processor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--number", "20", "--seed", "1", "--processor", processor])

    assert code == 0, capsys.readouterr().out


def test_a_layer_is_its_seed_and_number() -> None:
    assert drawn(3, 7) == drawn(3, 7)
    assert len({drawn(3, index) for index in range(50)}) == 50
    assert drawn(3, 7) != drawn(4, 7)


def test_a_dead_process_is_a_failure_and_the_rest_goes_on() -> None:
    child = """
import os, signal, sys
for index in range(int(sys.argv[1]), int(sys.argv[2])):
    print("at", index, flush=True)
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if index == 4:
        print("forward: 1, expected 2", flush=True)
    if index == 5:
        raise SystemExit("no such type")
"""
    found = list(failures([sys.executable, "-c", child], 8, {}))

    assert found == [
        "layer 2: its process ended with -9",
        "layer 4: forward: 1, expected 2",
        "layer 5: its process ended with 1 no such type",
    ]


def test_a_process_that_cannot_start_is_not_started_again() -> None:
    found = list(
        failures([sys.executable, "-c", "raise SystemExit('nothing here')"], 100, PROCESSORS["avx2"])
    )

    assert found == ["layer None: its process ended with 1 nothing here"]
