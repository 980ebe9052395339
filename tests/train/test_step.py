"""What `train/step.py` says of a step, against real steps under every strategy: every act, in that order."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from lightning.pytorch import Callback

from addertrain.train.run import fit
from addertrain.train.step import CALLBACKS, OWN, STEP, in_order
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks
from tests.train.small_runs import launched, short_recipe

ALL_ACTS = (
    "--optim.clip_norm=1",
    "--train.ema_decay=0.9",
    "--train.on_nonfinite=skip",
    "--schedule.epochs=1",
)
ACTS = {act.where: act.name for act in STEP}


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """The acts of everything that happens meanwhile, in order."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("addertrain."):
            name = ACTS.get(f"{module.removeprefix('addertrain.')}:{frame.f_code.co_qualname}")
            if name is not None:
                found.append(name)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _steps(found: list[str]) -> list[list[str]]:
    """Each step's acts once, in the order in which they first come; the first and the last step left out."""
    starts = [i for i, name in enumerate(found) if name == "keep"]
    taken = [max(j for j in range(i) if found[j] == "take") for i in starts]
    return [list(dict.fromkeys(found[i:j])) for i, j in itertools.pairwise(taken[1:])]


def _acts_under(strategy: str, folder: Path) -> list[list[str]]:
    launched()
    with _recorded() as found:
        fit(short_recipe(*ALL_ACTS, f"--train.strategy={strategy}"), folder / strategy)
    return _steps(found)


@pytest.mark.distributed
@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        pytest.param("zero2", marks=needs_deepspeed),
        pytest.param("zero3", marks=needs_deepspeed),
        "fsdp",
    ],
)
def test_a_step_does_what_the_list_says_in_its_order(strategy: str, tmp_path: Path) -> None:
    for steps in on_ranks(2, _acts_under, strategy, tmp_path):
        first_rank_alone = {"record"} - set(steps[0])
        expected = [act.name for act in STEP if act.name not in first_rank_alone]
        assert steps == [expected] * len(steps)
        assert len(steps) == 3


def _named(*names: str) -> list[Callback]:
    modules = {name: "addertrain.train" if name in CALLBACKS else "theirs" for name in names}
    return [type(name, (Callback,), {"__module__": modules[name]})() for name in names]


def test_callbacks_stand_in_one_order() -> None:
    right = _named(*("Anything" if name == OWN else name for name in CALLBACKS))

    assert in_order(right) == right
    with pytest.raises(AssertionError, match="Anything has to come before SaveCheckpoints"):
        in_order(_named("SaveCheckpoints", "Anything"))
