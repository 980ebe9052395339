"""Functions of a user's own: how a recipe names them, and the one line that every mistake with them gets."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from addertrain.errors import RecipeError, RunError
from addertrain.own_code import OwnFunction, load_function
from addertrain.recipe import Recipe, load_recipe, recipe_to_yaml
from addertrain.recipe.data_sets import DATA_SETS
from addertrain.recipe.settings import NETWORKS
from addertrain.train.recipe_record import differing_keys, recipe_from_record, recipe_to_record
from tests.train.small_runs import DIGITS

MODULE = """
class Nets:
    @staticmethod
    def wide(*, num_classes, in_channels, kind, width=8, depth): return (num_classes, width, depth)

def narrow(num_classes, kind): pass
def open_ended(**everything): return everything
def fails(num_classes, in_channels, kind): raise KeyError("no such layer")
number = 3
"""
GIVEN = ("num_classes", "in_channels", "kind")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def _named(name: str) -> OwnFunction:
    return OwnFunction.named("model.name", name, given=GIVEN)


def test_a_function_gets_what_is_given_and_its_own_arguments(module: str, tmp_path: Path) -> None:
    wide = _named(f"{module}:Nets.wide")

    assert wide({"depth": 3}, num_classes=10, in_channels=1, kind="adder") == (10, 8, 3)
    assert _named(f"{module}:open_ended")({"a": 1}, kind="conv") == {"a": 1, "kind": "conv"}
    sha256 = hashlib.sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    assert wide.record() == {
        "part": "model.name", "name": f"{module}:Nets.wide", "module": module,
        "distribution": None, "version": None, "sha256": sha256,
    }  # fmt: skip


def test_the_record_names_the_distribution() -> None:
    record = OwnFunction.named("model.name", "yaml:safe_load", given=()).record()

    assert (record["distribution"], record["version"].count(".") >= 1) == ("PyYAML", True)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("Nets.wide", {"depth": 1, "witdh": 4}, r"model\.args\.witdh: .* got witdh; did you mean width\?"),
        ("Nets.wide", {"depth": 1, "x": 4}, r"model\.args\.x: .*; it takes width, depth"),
        (
            "Nets.wide",
            {},
            r"model\.args: expected depth, which .* needs, got nothing; add it there, or with --model",
        ),
        (
            "Nets.wide",
            {"depth": 1, "kind": "conv"},
            r"model\.args\.kind: .* kind, which addertrain passes itself",
        ),
        ("narrow", {}, "takes num_classes, in_channels, kind by keyword, got .* does not take in_channels"),
        ("fails", {"x": 1}, r"model\.args\.x: .*; it takes none; leave it out"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(
    module: str, function: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        _named(f"{module}:{function}").check(arguments)


def test_what_cannot_be_imported_or_called_is_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}_broken.py").write_text("import this_is_nowhere\n")
    for name, message in (
        ("no_such_module_of_mine:net", "ModuleNotFoundError: No module named .*; install its package, or"),
        (f"{module}_broken:net", "ModuleNotFoundError: No module named 'this_is_nowhere'"),
        (f"{module}.py:narrow", f"name the module, not its file: {module}:narrow"),
        (f"{module}:narow", "expected a function narow in .*, got none; did you mean narrow?"),
        ("__main__:no_such_net", "got none; that is the script which runs now; move the function into a"),
        (f"{module}:number", "expected a function as .*:number, got int"),
    ):
        with pytest.raises(RecipeError, match=message):
            _named(name)
    with pytest.raises(RunError, match=r"expected .*:fails to return, got KeyError: 'no such layer'"):
        _named(f"{module}:fails")({}, num_classes=1, in_channels=1, kind="adder")


def _recipe(*words: str) -> Recipe:
    return load_recipe(DIGITS, words)


def test_a_recipe_holds_arguments_and_the_command_line_changes_them(tmp_path: Path) -> None:
    text = DIGITS.read_text(encoding="utf-8").replace(
        "name: lenet5bn\n", "name: mine.nets:net\n  args: {width: 3, names: [a, b]}\n", 1
    )
    (tmp_path / "own.yaml").write_text(text)

    recipe = load_recipe(tmp_path / "own.yaml", ["--model.args.width=5", "--model.args.slope", "1e-3"])

    assert recipe.model.args == {"width": 5, "names": ["a", "b"], "slope": 1e-3}
    assert _recipe("--model.name=a:b", "--model.args={x: 1, y: 2}", "--model.args.y=3").model.args == {
        "x": 1, "y": 3,
    }  # fmt: skip
    (tmp_path / "written.yaml").write_text(recipe_to_yaml(recipe))
    assert load_recipe(tmp_path / "written.yaml") == recipe
    assert recipe_from_record(recipe_to_record(recipe), source="") == recipe
    hash(recipe.model)  # reports keep what they have counted by it
    other = load_recipe(tmp_path / "own.yaml", ["--model.args.width=5"])
    assert differing_keys(recipe, other) == [
        f"model.args: {other.model.args} there, {recipe.model.args} here"
    ]


def test_a_record_of_an_earlier_version_has_no_arguments() -> None:
    recipe = _recipe()
    record = recipe_to_record(recipe)
    del record["model"]["args"], record["data"]["args"]

    assert recipe_from_record(record, source="") == recipe


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.name=resnet2"], "model.name: expected one of lenet5bn, .*, or package.module:function, "),
        (["--model.name=resnet200"], r"did you mean resnet20\?"),
        (["--data.name=digit"], r"did you mean digits\?"),
        (["--model.name=mine:"], "or package.module:function, got 'mine:'"),
        (["--model.name=mine/nets.py:net"], "or package.module:function, got"),
        (
            ["--model.args.width=3"],
            "model.args: expected no arguments for lenet5bn, which is not a function of your own",
        ),
        (["--data.args.width=3"], "data.args: expected no arguments for digits"),
        (["--model.name=a:b", "--model.arg.width=3"], r"did you mean 'model\.args\.width'\?"),
        (["--model.name=a:b", "--model.args=3"], "--model.args: expected keys with values"),
        (["--model.name=a:b", "--model.head=linear"], "model.head: expected norm for a:b"),
    ],
)
def test_names_and_arguments_are_checked_before_anything_is_imported(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(*words)


def test_every_data_set_of_ours_has_a_function_that_opens_it() -> None:
    for name, data_set in DATA_SETS.items():
        assert callable(load_function(data_set.opens)), name


def test_recipes_and_networks_know_the_same_names() -> None:
    from addertrain.models import MODELS

    assert list(MODELS) == list(NETWORKS)
