"""Recipes: what is read, and the one line that every mistake gets."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from addertrain.recipe import RecipeError, load_recipe, recipe_help, recipe_to_yaml
from addertrain.recipe.keys import known_keys, sections
from tests.source_tree import ROOT

RECIPES = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(RECIPES.rglob("*.yaml"))

GOOD = """\
name: small
model:
  name: lenet5bn
data:
  name: digits
  global_batch_size: 64
optim:
  lr: 0.1
  weight_decay: 5e-4
schedule:
  epochs: 4
train:
  seed: 3
expected:
  top1: 97
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path, GOOD)


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(folder: Path, old: str, new: str) -> Path:
    assert old in GOOD
    return write(folder, GOOD.replace(old, new, 1))


def test_values_arrive_with_their_types_and_defaults(good: Path) -> None:
    recipe = load_recipe(good)
    assert recipe.name == "small"
    assert recipe.data.global_batch_size == 64
    assert recipe.data.root is None
    assert (recipe.optim.weight_decay, recipe.optim.eta, recipe.optim.nesterov) == (5e-4, 0.2, True)
    assert recipe.train.seed == 3
    assert isinstance(recipe.expected.top1, float)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_shipped_recipe_loads_and_opens_as_the_style_asks(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == f"{path.parent.name}-{path.stem}"
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in ("source", "expected", "time", "command"):
        assert any(line.startswith(f"# {word} ") for line in head), f"{path}: no '{word}' in the head"
    assert any(f"recipes/{path.parent.name}/{path.name}" in line for line in head)


def test_there_are_shipped_recipes() -> None:
    assert {path.relative_to(RECIPES).as_posix() for path in SHIPPED} >= {
        "digits/lenet5bn.yaml",
        "mnist/lenet5bn.yaml",
    }


def test_yaml_round_trip_is_exact(tmp_path: Path, good: Path) -> None:
    odd = ["--name=1e3", "--data.root=off", "--expected.source=null", "--optim.lr=0.30000000000000004"]
    for overrides in ([], odd, ["--optim.alr", "off", "--expected.source", "a: b # c\nd"]):
        recipe = load_recipe(good, overrides)
        assert load_recipe(write(tmp_path, recipe_to_yaml(recipe))) == recipe
        write(tmp_path, GOOD)


def test_written_recipe_states_every_key(good: Path) -> None:
    text = recipe_to_yaml(load_recipe(good))
    assert all(f"{dotted.rpartition('.')[2]}:" in text for dotted in known_keys())


def test_overrides_win_in_both_spellings(good: Path) -> None:
    recipe = load_recipe(
        good, ["--optim.lr", "5e-2", "--train.seed=1", "--optim.nesterov", "false", "--name", "2024"]
    )
    assert (recipe.optim.lr, recipe.train.seed, recipe.optim.nesterov) == (0.05, 1, False)
    assert recipe.name == "2024"
    assert load_recipe(good, ["--data.root", "x", "--data.root", "null"]).data.root is None


def test_an_override_can_give_a_key_that_the_file_lacks(tmp_path: Path) -> None:
    path = edited(tmp_path, "  lr: 0.1\n", "")
    assert "expected optim.lr" in error_of(path)
    assert load_recipe(path, ["--optim.lr", "0.2"]).optim.lr == 0.2


def test_off_is_a_word_and_numbers_are_decimal(tmp_path: Path) -> None:
    assert load_recipe(edited(tmp_path, "  lr: 0.1", "  lr: 1\n  alr: off")).optim.alr == "off"
    assert "got '010'" in error_of(edited(tmp_path, "seed: 3", "seed: 010"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("optim:", "optm:", ["'optm'", "did you mean 'optim'?"]),
        ("  lr:", "  lrr:", ["'optim.lrr'", "did you mean 'optim.lr'?"]),
        ("  seed: 3", "  lr: 3", ["'train.lr'", "did you mean 'optim.lr'?"]),
        ("name: small", "name: small\nepochs: 3", ["'epochs'", "did you mean 'schedule.epochs'?"]),
        ("  seed: 3", "  xyzzy: 3", ["'train.xyzzy'", "known are: train.strategy, "]),
        ("name: small", "xyzzy: small", ["'xyzzy'", "known are: name, model, "]),
        ("lr: 0.1", "lr: fast", ["optim.lr", "expected a number", "'fast'", "the learning rate"]),
        ("lr: 0.1", "lr: '0.1'", ["optim.lr", "expected a number", "'0.1'"]),
        ("lr: 0.1", "lr: true", ["optim.lr", "expected a number", "True"]),
        ("lr: 0.1", "lr:", ["optim.lr", "expected a number", "nothing"]),
        ("lr: 0.1", "lr: [1, 2]", ["optim.lr", "expected a number", "[1, 2]"]),
        ("lr: 0.1", "lr: .nan", ["optim.lr", "finite number above 0", "nan"]),
        ("lr: 0.1", "lr: 0", ["optim.lr", "finite number above 0", "got 0.0"]),
        ("epochs: 4", "epochs: 4.5", ["schedule.epochs", "a whole number", "4.5"]),
        ("epochs: 4", "epochs: 0", ["schedule.epochs", "at least 1", "--schedule.epochs VALUE"]),
        ("size: 64", "size: -64", ["data.global_batch_size", "at least 1", "-64"]),
        ("name: lenet5bn", "name: lenet5bn\n  head: linear", ["model.head", "norm for lenet5bn", "'linear'"]),
        ("seed: 3", "seed: -1", ["train.seed", "0 to 4294967295", "-1"]),
        ("seed: 3", "keep_checkpoints: 0", ["train.keep_checkpoints", "at least 1"]),
        ("seed: 3", "save_every_steps: 0", ["train.save_every_steps", "at least 1, or null"]),
        ("seed: 3", "save_every_minutes: 0", ["train.save_every_minutes", "above 0, or null"]),
        ("seed: 3", "timeout_seconds: 1e10", ["train.timeout_seconds", "to 1000000 seconds"]),
        ("seed: 3", "timeout_seconds: 0", ["train.timeout_seconds", "0.001 to 1000000 seconds"]),
        ("seed: 3", "recalibrate_batches: -1", ["train.recalibrate_batches", "0 or above"]),
        ("weight_decay: 5e-4", "weight_decay: -1", ["optim.weight_decay", "0 or above"]),
        ("weight_decay: 5e-4", "weight_decay: 0\n  momentum: 1", ["optim.momentum", "below 1"]),
        ("weight_decay: 5e-4", "weight_decay: 0\n  momentum: 0", ["optim.nesterov", "false if"]),
        ("weight_decay: 5e-4", "weight_decay: 0\n  eta: 0", ["optim.eta", "above 0"]),
        ("weight_decay: 5e-4", "weight_decay: 0\n  increase: .inf", ["optim.increase", "finite"]),
        ("weight_decay: 5e-4", "weight_decay: 0\n  alr: globl", ["optim.alr", "did you mean global?"]),
        (
            "weight_decay: 5e-4",
            "weight_decay: 0\n  nesterov: yes",
            ["optim.nesterov", "true or false", "'yes'"],
        ),
        ("name: lenet5bn", "name: vgg", ["model.name", "one of lenet5bn", "'vgg'"]),
        ("name: digits", "name: digit", ["data.name", "one of digits, mnist", "did you mean digits?"]),
        ("top1: 97", "top1: 101", ["expected.top1", "percentage", "101"]),
        ("top1: 97", "tolerance: -1", ["expected.tolerance", "percentage points"]),
        ("top1: 97", "seeds: 0", ["expected.seeds", "at least 1"]),
        ("name: small", "name: ../small", ["name", "letters, digits", "'../small'"]),
        ("name: small", "name: 5", ["name", "expected text", "got 5"]),
        ("name: small\n", "", ["expected name", "got nothing", "add it"]),
        ("  seed: 3\n", "", ["small.yaml: train", "expected keys with values", "nothing"]),
        ("train:\n  seed: 3\n", "train: 3\n", ["small.yaml: train", "expected keys with values", "got 3"]),
        ("  lr: 0.1", "  lr: 0.1\n  lr: 0.2", ["line 9", "'lr' occurs twice", "line 8"]),
        ("train:\n  seed: 3\n", "train: {seed: 3, seed: 4}\n", ["'seed' occurs twice"]),
        ("name: small", "name: small\noptim.lr: 0.3", ["expected optim.lr once", "its section", "keep one"]),
        ("  lr: 0.1", "    lr: 0.1", ["expected YAML", "line 9"]),
        ("  lr: 0.1", "\tlr: 0.1", ["expected YAML", "line 8", "column 1"]),
        ("model:", "model: [", ["expected YAML", "line 4"]),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_cure(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    message = error_of(edited(tmp_path, old, new))
    assert message.startswith(str(tmp_path / "small.yaml"))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty file"),
        ("# nothing but a comment\n", "an empty file"),
        ("[1, 2]", "expected keys with values"),
        ("hello", "got 'hello'"),
        ("a: \x01", "special characters"),
        ("a: 1\n---\nb: 1\n", "line 2"),
        ("a: !!python/object:os.system x", "line 1"),
        ("[" * 3000, "expected YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in error_of(write(tmp_path, text))


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    assert "UTF-8" in error_of(path)


def test_a_key_that_was_renamed_is_read_from_old_files_and_named_on_the_command_line(tmp_path: Path) -> None:
    text = recipe_to_yaml(load_recipe(RECIPES / "digits" / "lenet5bn.yaml"))
    old = tmp_path / "recipe.yaml"
    old.write_text(text.replace("evaluate_uncalibrated: true", "evaluate_stale: false"))

    assert load_recipe(old).train.evaluate_uncalibrated is False
    message = error_of(RECIPES / "digits" / "lenet5bn.yaml", "--train.evaluate_stale", "false")
    assert message.endswith("it is called 'train.evaluate_uncalibrated' now")


def test_a_recipe_that_was_renamed_is_answered_with_its_new_name() -> None:
    message = error_of(ROOT / "recipes" / "cifar10" / "resnet20_better.yaml")

    assert message.endswith("recipes/cifar10/resnet20_8epochs_nag_eta05.yaml now")
    assert Path(message.removesuffix(" now").rpartition(" ")[2]).is_file()


def test_a_missing_file_names_the_nearest_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)
    nearest = "did you mean recipes/digits/lenet5bn.yaml?"
    assert nearest in error_of(Path("recipes/digits/lenet5.yaml"))
    assert nearest in error_of(Path("digits/lenet5bn"))
    assert "got a folder" in error_of(Path("recipes"))
    monkeypatch.chdir(tmp_path)
    assert "check the path" in error_of(Path("digits/lenet5bn"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--optim.lrr", "1"], ["'--optim.lrr'", "did you mean 'optim.lr'?"]),
        (["--lr", "1"], ["'--lr'", "did you mean 'optim.lr'?"]),
        (["--optim", "1"], ["--optim", "got a section"]),
        (["--optim.lr"], ["--optim.lr", "expected a value"]),
        (["--optim.lr", "--train.seed", "1"], ["--optim.lr", "expected a value"]),
        (["optim.lr", "1"], ["--section.key VALUE", "'optim.lr'"]),
        (["--"], ["--section.key VALUE"]),
        (["--optim.lr", "abc"], ["--optim.lr: expected a number", "'abc'"]),
        (["--optim.lr", "[1"], ["--optim.lr: expected YAML"]),
        (["--optim.lr="], ["--optim.lr: expected a number", "nothing"]),
        (["--optim.alr", "of"], ["--optim.alr", "did you mean off?"]),
        (["--data.root="], ["data.root", "a folder, or null"]),
    ],
)
def test_a_wrong_override_is_one_line(good: Path, overrides: list[str], words: list[str]) -> None:
    message = error_of(good, *overrides)
    for word in words:
        assert word in message, message


def test_local_alr_is_refused_where_gradients_are_not_whole(good: Path) -> None:
    load_recipe(good, ["--optim.alr", "local", "--train.strategy", "ddp"])
    for strategy in ("zero1", "zero2", "zero3", "fsdp"):
        with pytest.raises(RecipeError, match=r"train.strategy: expected auto or ddp with optim.alr: local"):
            load_recipe(good, ["--optim.alr", "local", "--train.strategy", strategy])


def test_clipping_works_under_every_strategy(good: Path) -> None:
    for strategy in ("ddp", "zero1", "zero2", "zero3", "fsdp"):
        recipe = load_recipe(good, ["--optim.clip_norm", "1", "--train.strategy", strategy])
        assert recipe.optim.clip_norm == 1


def test_the_base_batch_is_one_or_more(good: Path) -> None:
    with pytest.raises(RecipeError, match=r"optim.base_batch_size: expected at least 1, or null, got 0"):
        load_recipe(good, ["--optim.base_batch_size", "0"])


def test_help_lists_every_key_once() -> None:
    options = [
        line.split()[0] for line in recipe_help().splitlines() if line.startswith("  --") and "  (" in line
    ]
    assert options == [f"--{dotted}" for dotted in known_keys()]
    assert {option[2:].partition(".")[0] for option in options} == {"name", *sections()}


def test_recipes_are_frozen(good: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe(good).optim.lr = 1.0


def test_reading_recipes_needs_no_torch() -> None:
    code = "import sys, addertrain.recipe; print('torch' in sys.modules, 'addertrain.ops' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
