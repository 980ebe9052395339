"""docs/notebook/tutorial.ipynb: what it shows is what its cells print and draw, and its commands exist."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from addertrain.cli import main
from addertrain.recipe import load_recipe
from tests.commands import run_command
from tests.source_tree import ROOT
from tests.tutorial import TUTORIAL, execute, printed, read_notebook, source_sha256, sources

MAX_BYTES = 1_000_000
EPOCH = re.compile(r"^epoch +(\d+)/10 ", re.MULTILINE)
TOP1 = re.compile(r"float32: (\d+\.\d+) %|onnxruntime: top-1 (\d+\.\d+) %")


def _commands(code: str) -> list[str]:
    """What the cells hand to `shell`, with the variable FIT put in."""
    commands, values = [], {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            values |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "shell":
            commands.append(ast.unparse(node.args[0]))
    return [eval(command, {}, values) for command in commands]


def check_story(notebook: dict[str, Any]) -> None:
    """Every part of the tutorial came to its end, whatever the processor's last bits."""
    text = printed(notebook)
    pictures = [
        output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output
    ]

    assert printed(notebook, "stderr") == ""
    assert [int(epoch) for epoch in EPOCH.findall(text)] == list(range(1, 11))
    assert re.findall(r"^exit code (\d+)$", text, re.MULTILINE) == ["0", "75", "0", "0", "0"]
    assert re.search(r"10 epochs, ddp over 2 processes on \w+; resuming epoch_0004_step_\d+ in", text)
    evaluated, exported = (float(a or b) for a, b in TOP1.findall(text))
    assert evaluated == exported >= 97
    assert len(pictures) == 2


def test_kept_outputs_are_of_the_kept_cells() -> None:
    notebook = read_notebook()
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert notebook["metadata"]["source_sha256"] == source_sha256(notebook), "run python -m tests.tutorial"
    assert counts == list(range(1, len(counts) + 1))
    assert TUTORIAL.stat().st_size < MAX_BYTES
    check_story(notebook)


def test_commands_of_the_tutorial_parse() -> None:
    commands = _commands("\n".join(sources(read_notebook())))

    assert {command.split()[0] for command in commands} == {"addertrain", "launch/torchrun"}
    for command in commands:
        words = shlex.split(command)
        if "fit" in words:
            recipe, *options = words[words.index("fit") + 1 :]
            overrides = options[: options.index("--out")]
            assert load_recipe(str(ROOT / recipe), overrides).schedule.epochs == 10
        elif words[1] != "--version":
            verbs = [word for word in words[1:] if not word.startswith(("-", "runs/", "int8"))]
            with pytest.raises(SystemExit) as ended:
                main([*verbs, "--help"])
            assert ended.value.code == 0


def test_names_that_the_tutorial_imports_exist() -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("onnxruntime")
    imports = [
        node
        for node in ast.walk(ast.parse("\n".join(sources(read_notebook()))))
        if isinstance(node, ast.ImportFrom)
    ]

    for node in imports:
        module = importlib.import_module(str(node.module))
        missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
        assert not missing, f"{node.module}: {missing}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the notebook lies in a folder that looks like the checkout, so that nobody's runs/ is touched."""
    for name in ("recipes", "launch", ".venv"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / "docs" / "notebook"
    folder.mkdir(parents=True)
    return folder


def test_first_cells_print_what_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two that need no training: the environment, and the layer against its definition."""
    pytest.importorskip("matplotlib")
    kept = read_notebook()
    code = [number for number, cell in enumerate(kept["cells"]) if cell["cell_type"] == "code"]
    short = kept | {"cells": kept["cells"][: code[1] + 1]}
    monkeypatch.chdir(folder)

    executed = execute(short)

    assert "addertrain --version" in printed(executed)
    assert printed(executed).splitlines()[-1] == printed(short).splitlines()[-1]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_whole_tutorial_runs(folder: Path) -> None:
    out = folder / "executed.ipynb"

    result = run_command(
        sys.executable, "-m", "tests.tutorial", str(out), cwd=folder, timeout_s=1100, PYTHONPATH=str(ROOT)
    )

    assert result.returncode == 0, result.stdout + result.stderr
    check_story(read_notebook(out))
    assert printed(read_notebook(out)).count("runs/tutorial") >= 5
