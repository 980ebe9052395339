"""Which runs a report averages: those trained and evaluated alike, every seed and every weight once."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from addertrain.report.document import command_of
from addertrain.report.runs import Group, read_runs
from addertrain.report.sessions import command_of_run
from tests.report.made_up_runs import made_up_run
from tests.train.small_runs import short_recipe


def _made_up(folder: Path, name: str, *overrides: str, **settings: Any) -> Path:
    return made_up_run(folder / name, short_recipe(*overrides), **settings)


def _read(*paths: Path) -> tuple[list[Group], list[str]]:
    said: list[str] = []
    groups = read_runs(paths, lambda line: None if "gaps" in line else said.append(line))
    return groups, said


def _seeds(groups: list[Group]) -> dict[str, list[int]]:
    return {group.label: [run.seed for run in group.runs] for group in groups}


@pytest.mark.parametrize(
    ("override", "label"),
    [
        ("--train.recalibrate_batches=0", "digits-lenet5bn (train.recalibrate_batches 0)"),
        ("--train.flip_evaluation=true", "digits-lenet5bn (train.flip_evaluation true)"),
        ("--optim.nesterov=false", "digits-lenet5bn (optim.nesterov false)"),
        ("--train.ema_decay=0.5", "digits-lenet5bn (train.ema_decay 0.5)"),
    ],
)
def test_runs_trained_or_evaluated_otherwise_are_no_seeds_of_one_recipe(
    tmp_path: Path, override: str, label: str
) -> None:
    plain = _made_up(tmp_path, "a")
    other = _made_up(tmp_path, "b", "--train.seed=1", override)

    groups, said = _read(plain, other)

    assert _seeds(groups) == {"digits-lenet5bn": [0], label: [1]}
    assert said == []


def test_how_ranks_shared_the_work_makes_no_difference(tmp_path: Path) -> None:
    groups, _ = _read(
        _made_up(tmp_path, "a", "--train.seed=1"),
        _made_up(tmp_path, "b", "--train.strategy=zero2", "--train.keep_checkpoints=7"),
    )

    assert _seeds(groups) == {"digits-lenet5bn": [0, 1]}


def test_a_run_and_its_copy_count_once(tmp_path: Path) -> None:
    run = _made_up(tmp_path, "a")
    copy = Path(shutil.copytree(run, tmp_path / "copy"))

    groups, said = _read(run, copy, _made_up(tmp_path, "b", "--train.seed=1"))

    assert _seeds(groups) == {"digits-lenet5bn": [0, 1]}
    assert said == [f"{copy}: has the same weights as {run}, so only one of them is counted"]


def test_a_seed_counts_once_and_its_second_run_is_shown_by_itself(tmp_path: Path) -> None:
    again = _made_up(tmp_path, "again", shift=1.0)

    groups, said = _read(_made_up(tmp_path, "a"), again, _made_up(tmp_path, "b", "--train.seed=1"))

    assert _seeds(groups) == {"digits-lenet5bn": [0, 1], "digits-lenet5bn, run again": [0]}
    assert said == [
        f"{again}: has the same seed (0) as another run of this recipe, so it is shown separately"
    ]


def test_runs_on_other_data_are_not_averaged(tmp_path: Path) -> None:
    runs = []
    for seed, sha256 in enumerate(["one", "two", "one"]):
        data = {part: {"images": 1, "sha256": sha256} for part in ("train", "test")}
        runs.append(_made_up(tmp_path, str(seed), f"--train.seed={seed}", data=data))

    groups, _ = _read(*runs)

    (usual, usual_seeds), (other, other_seeds) = _seeds(groups).items()
    assert (usual, usual_seeds, other_seeds) == ("digits-lenet5bn", [0, 2], [1])
    assert other.startswith("digits-lenet5bn (data ")


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (["addertrain fit R.yaml"], "addertrain fit R.yaml"),
        (["addertrain fit R.yaml --out 'p/my run'"], "addertrain fit R.yaml"),
        (['addertrain fit R.yaml --out "p/it\'s" --data.root="/a b/c" --name "x y"'],
         "addertrain fit R.yaml --name 'x y'"),
        (["addertrain fit /somewhere/recipes/digits/a.yaml", "addertrain fit x/run/recipe.yaml --out x/run"],
         "addertrain fit recipes/digits/a.yaml"),
        (["addertrain fit x/run/recipe.yaml"], "addertrain fit x/run/recipe.yaml"),
        (["addertrain fit /my/folders/run/recipe.yaml"], "addertrain fit run/recipe.yaml"),
        (["addertrain fit R.yaml", "addertrain fit R.yaml --train.recalibrate_batches 0 --resume auto"],
         "addertrain fit R.yaml --train.recalibrate_batches 0"),
        (["my_script.py --epochs 3"], "a Python program"),
        (["addertrain fit p/it's"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_command_can_be_given_to_a_shell(tmp_path: Path, commands: list[str], expected: str) -> None:
    assert command_of_run(tmp_path / "run", [{"command": command} for command in commands]) == expected


def test_a_command_names_the_launcher_and_the_ranks() -> None:
    session = {"command": "/x/addertrain/__main__.py fit R.yaml", "launcher": "torchrun", "world_size": 8}

    one, two = (command_of_run(Path("run"), [{**session, "num_nodes": n}]) for n in (1, 2))

    assert one == "launch/torchrun --nproc-per-node 8 fit R.yaml"
    assert two == "launch/torchrun --nproc-per-node 4 --nnodes 2 --rdzv-endpoint HOST fit R.yaml"


def test_every_runs_own_command_is_printed(tmp_path: Path) -> None:
    commands = ["addertrain fit R --train.seed 0", "addertrain fit R --train.seed=2", "addertrain fit S"]
    runs = [
        _made_up(tmp_path, str(seed), f"--train.seed={seed}", sessions=[{"command": command}])
        for seed, command in zip((0, 2, 3), commands, strict=True)
    ]

    ((group,), _) = _read(*runs)

    assert [command_of([run]) for run in group.runs] == [
        "addertrain fit R --train.seed 0",
        "addertrain fit R --train.seed 2",
        "addertrain fit S",
    ]
    loop = "for s in 0 2; do addertrain fit R --train.seed $s --out runs/digits-lenet5bn-$s; done"
    assert command_of(group.runs) == f"addertrain fit S; {loop}"
