"""Who imports what: the bare package nothing heavy, no module what is optional, a command what it uses."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import addertrain
from addertrain import models, nn, optim
from tests.commands import run_command
from tests.source_tree import PACKAGE, ROOT, imports, python_files

OPTIONAL = ("deepspeed", "ffcv")


def test_import_is_quiet_and_light() -> None:
    code = "import sys, addertrain; assert 'torch' not in sys.modules; print(addertrain.__version__)"

    result = run_command(sys.executable, "-W", "error", "-c", code)

    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", result.stdout)


def test_names_of_the_package_are_those_of_its_parts() -> None:
    assert sorted(addertrain.__all__) == addertrain.__all__
    for name in addertrain.__all__:
        value = getattr(addertrain, name)
        homes = [part for part in (nn, optim, models) if name in part.__all__]

        assert [getattr(part, name) for part in homes] == [value]
        assert name in dir(addertrain)
    with pytest.raises(AttributeError, match="no attribute 'AdderConv3d'"):
        _ = addertrain.AdderConv3d  # type: ignore[attr-defined]


def test_every_module_imports_without_the_optional_packages() -> None:
    behind = {
        path for path in python_files() for found in imports(path) if found.module.split(".")[0] in OPTIONAL
    }
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files()
        if path not in behind and path != PACKAGE / "__main__.py"
    ]
    code = f"import importlib, sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\n"
    code += f"for name in {modules!r}: importlib.import_module(name)"

    result = run_command(sys.executable, "-c", code)

    assert result.returncode == 0, result.stderr


# Every package that addertrain imports, and a part of torch that takes half a second.
_PACKAGES = (
    "PIL", "deepspeed", "ffcv", "jsonargparse", "lightning", "matplotlib", "multiprocessing", "numba",
    "numpy", "onnx", "onnxruntime", "safetensors", "sklearn", "tensorboard", "torch",
    "torch.distributed.tensor", "torchvision", "yaml",
)  # fmt: skip
_RUN_COMMANDS = """
import sys
from addertrain.cli import main
for words in {commands!r}:
    try:
        main(words.split())
    except SystemExit:
        pass
print()
print(*(name for name in {packages!r} if name in sys.modules))
"""
_LENET = "recipes/digits/lenet5bn.yaml"
_WORDS_ALONE = (
    "--help", "--version", "evaluate --help", "reproduce --help", "report --help", "plan --help",
    "bench --help", "preflight --help", "data --help", "data write --help", "ckpt --help",
    "ckpt convert --help", "misspelt", "--misspelt", "ckpt --misspelt", "evaluate --misspelt",
    "ckpt misspelt", "--version --misspelt",
)  # fmt: skip


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (_WORDS_ALONE, ""),
        (["fit --help", "fit --misspelt", "fit no_such_file.yaml", f"plan {_LENET} --optim.lrr 1"], "yaml"),
        ([f"fit {_LENET} --optim.lr misspelt"], "jsonargparse yaml"),
        # torch computes shapes with parts of its compiler, which imports the sharded tensors.
        ([f"plan {_LENET}"], "PIL jsonargparse multiprocessing numpy torch torch.distributed.tensor yaml"),
    ],
)
def test_commands_import_what_they_use(commands: Sequence[str], expected: str) -> None:
    code = _RUN_COMMANDS.format(commands=commands, packages=_PACKAGES)

    result = run_command(sys.executable, "-c", code)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == expected


def _is_full_setup() -> bool:
    """Whether `launch/setup all` made this environment: then nothing that it promises may be missing."""
    stamp = Path(sys.prefix, ".addertrain-setup")
    return stamp.exists() and stamp.read_text(encoding="utf-8").startswith("all ")


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("ffcv", "from ffcv.loader import Loader; from ffcv.fields.decoders import SimpleRGBImageDecoder"),
        ("deepspeed", "import deepspeed; deepspeed.initialize; deepspeed.zero.Init"),
    ],
)
def test_optional_package_really_imports(module: str, use: str) -> None:
    if importlib.util.find_spec(module) is None and not _is_full_setup():
        pytest.skip(f"{module} is not installed (launch/setup all installs it)")

    result = run_command(sys.executable, "-c", use, NUMBA_THREADING_LAYER="omp", DS_ACCELERATOR="cpu")

    assert result.returncode == 0, result.stderr


def _command_line() -> list[str]:
    if _is_full_setup():
        return [str(Path(sys.prefix, "bin", "addertrain"))]
    return [sys.executable, "-m", "addertrain"]


def test_version_says_what_is_loaded() -> None:
    result = run_command(*_command_line(), "--version")

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("addertrain 0.1.0 (torch 2.")
    assert ("_C loaded" if _is_full_setup() else "_C ") in result.stdout


def test_the_full_version_agrees_and_names_what_does_not_load(tmp_path: Path) -> None:
    """Torch's own loading finds the same libraries; a package that is broken costs a line, no more."""
    broken = tmp_path / "jsonargparse"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('its library is missing,\\nit says')\n")

    brief = run_command(*_command_line(), "--version")
    full = run_command(*_command_line(), "--version", "--full", PYTHONPATH=str(tmp_path))

    assert full.returncode == 0, full.stderr
    first, *rows = full.stdout.splitlines()
    found = {name: what for name, _, what in (row.partition("  ") for row in rows)}
    assert first == brief.stdout.rstrip()
    assert "does not load (ImportError: its library is missing, it says)" in found["jsonargparse"]
    assert {"commit", "Python", "CPU", "torch", "GPU", "lightning", "deepspeed", "ffcv"} <= found.keys()
    assert all(found.values())
