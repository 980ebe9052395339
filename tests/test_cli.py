"""The command line in this process: what it says and the exit codes."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from addertrain.cli import main, split_overrides
from tests.commands import run_command
from tests.source_tree import ROOT
from tests.train.small_runs import DIGITS, SHORT

FIT = ["fit", str(DIGITS), *SHORT]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main([*FIT, "--schedule.epochs=1", "--out", str(path)]) == 0
    return path


def _complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("addertrain: ")
    return line


def test_fit_ends_with_the_result_and_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my run"

    assert main([*FIT, "--schedule.epochs=1", "--out", str(out)]) == 0

    captured = capsys.readouterr()
    *_, checkpoint, curves, evaluate, result = captured.out.splitlines()
    assert checkpoint.endswith(f"{out}/checkpoints/epoch_0001_step_000005")
    assert curves.endswith(f"tensorboard --logdir '{out}'")  # as a shell reads it
    assert evaluate.endswith(f"addertrain evaluate '{out}'")
    assert result.startswith("digits-lenet5bn: top-1 ")
    assert captured.err == ""


def test_the_default_folder_is_named_after_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main([*FIT, "--schedule.epochs=1"]) == 0

    assert (tmp_path / "runs" / "digits-lenet5bn" / "summary.json").exists()


def test_evaluate_prints_the_same_accuracy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--schedule.epochs=1", "--out", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "finished already" in said[0]

    assert main(["evaluate", str(run)]) == 0

    line = capsys.readouterr().out.strip()
    assert line.startswith(said[-1].split(" after ")[0])
    assert "on 360 images" in line


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "required: COMMAND"),
        (["fti"], 2, "invalid choice: 'fti'"),
        (["fit"], 2, "required: RECIPE"),
        (["fit", "absent.yaml"], 2, "absent.yaml: expected a recipe file"),
        ([*FIT, "--optim.lrr", "3"], 2, "did you mean 'optim.lr'?"),
        ([*FIT, "--optim.lr"], 2, "--optim.lr: expected a value"),
        ([*FIT, "--optim.lr", "fast"], 2, "expected a number, got 'fast'"),
        ([*FIT, "--resum", "none"], 2, "did you mean --resume?"),
        ([*FIT, "--data.name", "mnist", "--data.root", "absent"], 1, "expected a folder absent"),
        ([*FIT, "--model.name", "resnet20"], 2, "expected images of 3 channels for model.name resnet20, got"),
        ([*FIT, "--data.global_batch_size", "2000"], 1, "lower data.global_batch_size"),
        (["evaluate", "absent"], 1, "absent: expected the folder of a run or of a checkpoint, got nothing"),
        (["evaluate", "runs", "--optim.lr", "3"], 2, "expected keys of a recipe with fit"),
        (["bench", "speed"], 2, "got 'speed'"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")] if words[:1] == ["fit"] else []

    assert main([*words, *out]) == code

    assert message in _complaint(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[1, 2]", "model: {"])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)

    assert main(["fit", str(file), "--out", str(tmp_path / "run")]) == 2

    assert "mine.yaml: expected" in _complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")

    assert main([*FIT, "--out", str(tmp_path / "file" / "run")]) == 1

    assert "expected a folder that can be written, got: Not a directory" in _complaint(capsys)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "none"], "expected a new run directory for --resume none"),
        (["--optim.lr", "0.05"], "optim.lr: 0.1 there, 0.05 here"),
    ],
)
def test_an_existing_run_is_never_overwritten(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(run)
    capsys.readouterr()

    assert main([*FIT, "--schedule.epochs=1", "--out", str(run), *words]) == 2

    assert message in _complaint(capsys)
    assert _files(run) == before


def test_a_runs_folder_of_checkpoints_stands_for_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    for path in (run, run / "checkpoints"):
        assert main(["ckpt", "inspect", str(path)]) == 0

    said = capsys.readouterr().out
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    assert "from new weights: single process, 1 on 1 of " in said
    assert "1437 train images, 360 test images" in said


def test_a_finished_run_whose_checkpoints_are_gone_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "checkpoints")
    capsys.readouterr()

    assert main([*FIT, "--schedule.epochs=1", "--out", str(copy)]) == 0

    assert "checkpoint   none: it has been removed since" in capsys.readouterr().out


def test_a_run_without_a_whole_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "summary.json").unlink()
    (damaged / "checkpoints" / "epoch_0001_step_000005" / "manifest.json").write_text("{}")
    before = _files(damaged)
    capsys.readouterr()

    assert main([*FIT, "--schedule.epochs=1", "--out", str(damaged)]) == 1
    assert "epoch_0001_step_000005" in _complaint(capsys)
    assert main(["evaluate", str(damaged)]) == 1
    assert "epoch_0001_step_000005" in _complaint(capsys)

    assert _files(damaged) == before


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "evaluate", "absent"]) == 1

    assert "Traceback" in capsys.readouterr().err


def _second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def test_only_the_first_rank_complains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _second_of_two(monkeypatch)
    monkeypatch.setattr("addertrain.cli._SECONDS_FOR_THE_FIRST_RANK", 0.0)

    assert main(["fit", "absent.yaml"]) == 2

    assert capsys.readouterr().err == ""


def test_a_rank_that_is_alone_with_its_error_speaks_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _second_of_two(monkeypatch)
    monkeypatch.setattr("addertrain.cli._SECONDS_FOR_THE_FIRST_RANK", 0.0)

    assert main(["data", "info", "absent.beton"]) == 1

    assert "[rank 1] absent.beton: expected a .beton file" in _complaint(capsys)


@pytest.mark.parametrize(
    "variables", [{"RANK": "1"}, {"RANK": ""}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "x"}]
)
def test_half_a_launchers_variables_silence_nobody(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main(["fit", "absent.yaml"]) == 2
    assert "absent.yaml: expected a recipe file" in _complaint(capsys)
    assert main([*FIT, "--schedule.epochs=1"]) == 2
    said = _complaint(capsys)
    assert all(f"{name}={value}" in said for name, value in variables.items())
    assert "to run one process, or start with torchrun" in said


def test_the_recipes_words_are_told_from_our_own() -> None:
    words = ["fit", "--optim.lr", "-1", "a.yaml", "--out", "b", "--name=mine", "--train.seed", "3", "--debug"]

    assert split_overrides(words) == (
        ["fit", "a.yaml", "--out", "b", "--debug"],
        ["--optim.lr", "-1", "--name=mine", "--train.seed", "3"],
    )


@pytest.mark.parametrize("command", [[], ["fit"], ["evaluate"], ["preflight"], ["bench"]])
def test_help_is_for_newcomers(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main([*command, "--help"]) == 0

    said = capsys.readouterr().out
    assert f"usage: addertrain {' '.join(command)}".strip() in said
    if command != ["bench"]:
        assert "examples:" in said
        assert "exit codes:" in said
    if command == ["fit"]:
        assert "--optim.eta" in said
        assert "--resume auto|none|PATH" in said


@pytest.mark.parametrize(
    "words",
    [
        ["fit", str(DIGITS), "--out", ""],
        ["fit", str(DIGITS), "--out="],
        ["fit", str(DIGITS), "--init-from", ""],
        ["evaluate", ""],
        ["report", ""],
        ["ckpt", "convert", "", "network.pt"],
        ["data", "info", ""],
    ],
    ids=" ".join,
)
def test_an_empty_word_stands_for_no_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(words) == 2

    assert "got an empty word; check whether a shell variable is unset" in _complaint(capsys)
    assert list(tmp_path.iterdir()) == []


def test_help_and_typos_answer_without_torch() -> None:
    code = (
        "import sys; from addertrain.cli import main; main(['fit', 'absent.yaml']);"
        "print('torch' in sys.modules, 'lightning' in sys.modules)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False False"


def test_commands_draw_into_files_whatever_backend_the_environment_names() -> None:
    """Lightning and the report import matplotlib, which refuses an unknown name in MPLBACKEND."""
    code = (
        "from addertrain.cli import main; main(['fit', 'absent.yaml']);"
        "import matplotlib; print(matplotlib.get_backend())"
    )

    done = run_command(sys.executable, "-c", code, MPLBACKEND="not_installed")

    assert done.stdout == "agg\n", done.stderr
