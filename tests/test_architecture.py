"""Who may import whom: the layers of the package, and the one place of each optional dependency."""

import sys
from functools import lru_cache

import pytest

from tests.source_tree import PACKAGE, ROOT, Import, imports, python_files

# A part may import itself, the errors, the parts listed here, and the bare package (its version and path).
MAY_IMPORT: dict[str, set[str]] = {
    "recipe": {"command_parser", "own_code"},
    "errors": set(),
    "own_code": set(),
    "command_parser": set(),
    "durable": set(),
    "compiled": set(),
    "processor": set(),
    "libraries": {"compiled"},
    "ops": {"libraries"},
    "optim": {"recipe", "libraries"},
    "data": {"recipe", "durable", "own_code", "compiled"},
    "checkpoint": {"durable"},
    "nn": {"ops"},
    "models": {"ops", "nn", "own_code"},
    "proof": {"durable", "compiled", "processor", "libraries", "ops", "optim", "nn", "models"},
    "train": {
        "proof",
        "recipe",
        "durable",
        "compiled",
        "processor",
        "libraries",
        "own_code",
        "ops",
        "optim",
        "data",
        "checkpoint",
        "nn",
        "models",
    },
    "report": {"recipe", "durable", "ops", "optim", "data", "checkpoint", "nn", "models", "train"},
    "interchange": {"recipe", "durable", "compiled", "ops", "nn", "data", "checkpoint", "models", "train"},
    "plan": {"recipe", "data", "models", "optim", "train", "report"},
    "bench": {
        "command_parser",
        "libraries",
        "own_code",
        "proof",
        "ops",
        "optim",
        "data",
        "checkpoint",
        "nn",
        "models",
        "train",
    },
    "cli": {
        "command_parser",
        "recipe",
        "compiled",
        "processor",
        "libraries",
        "checkpoint",
        "ops",
        "optim",
        "data",
        "nn",
        "models",
        "train",
        "report",
        "interchange",
        "plan",
        "bench",
    },
    "__main__": {"cli"},
    "__init__": {"nn", "optim", "models"},  # when one of their names is first read: tests/test_imports.py
}
# Third-party modules and the parts that may know them. What is not listed is free.
KNOWN_ONLY_TO: dict[str, set[str]] = {
    "lightning": {"train"},
    "deepspeed": {"train"},
    "ffcv": {"bench"},
    "numba": {"data"},
    "torchvision": {"data", "bench"},
    "sklearn": {"data"},
    "jsonargparse": {"recipe", "cli"},
    "torch.distributed": {"optim", "nn", "data", "train", "bench"},
}
# Optional packages, imported in one file each.
IN_ONE_FILE = ("deepspeed", "ffcv", "matplotlib")
RECIPE_NEEDS = {"jsonargparse", "yaml"}


def _part(path_or_module: str) -> str:
    """The part of the package that `addertrain.optim.gradient_norms` or `addertrain/cli.py` belongs to."""
    return path_or_module.split(".")[1] if "." in path_or_module else "__init__"


def _module_of(found: Import) -> str:
    return ".".join(found.path.relative_to(ROOT).with_suffix("").parts)


def _is_in(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


@lru_cache(maxsize=1)
def _all_imports() -> list[Import]:
    return [found for path in python_files() for found in imports(path)]


def _own_imports() -> list[tuple[str, str, Import]]:
    """(importing part, imported part, import) of every import of a part of the package."""
    parts = {path.stem for path in PACKAGE.iterdir()} - {"__init__"}
    return [
        (_part(_module_of(found)), _part(found.module), found)
        for found in _all_imports()
        if _is_in(found.module, "addertrain") and _part(found.module) in parts
    ]


def test_every_part_has_a_rule() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}

    assert parts <= set(MAY_IMPORT), "add the new part to MAY_IMPORT, with what it may import"


def test_parts_import_only_lower_layers() -> None:
    wrong = [
        str(found)
        for importer, imported, found in _own_imports()
        if imported not in {importer, "errors"} | MAY_IMPORT[importer]
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", KNOWN_ONLY_TO)
def test_third_party_module_is_known_only_to(module: str) -> None:
    wrong = [
        str(found)
        for found in _all_imports()
        if _is_in(found.module, module) and _part(_module_of(found)) not in KNOWN_ONLY_TO[module]
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", IN_ONE_FILE)
def test_optional_package_is_imported_in_one_file(module: str) -> None:
    files = {str(found.path.relative_to(ROOT)) for found in _all_imports() if _is_in(found.module, module)}

    assert len(files) <= 1, f"{module} is imported in {sorted(files)}"


def test_recipe_knows_no_framework() -> None:
    allowed = RECIPE_NEEDS | set(sys.stdlib_module_names) | {"addertrain"}
    wrong = [
        str(found)
        for found in _all_imports()
        if _part(_module_of(found)) == "recipe" and found.module.split(".")[0] not in allowed
    ]

    assert not wrong, "\n".join(wrong)


def test_tests_and_recipes_are_not_imported_by_the_package() -> None:
    wrong = [
        str(found)
        for found in _all_imports()
        if found.module.split(".")[0] in {"tests", "recipes", "kernels"}
    ]

    assert not wrong, "\n".join(wrong)


def test_kernels_keep_torch_out_of_device_code() -> None:
    """kernels/device knows C++ and CUDA only, and nvcc takes 10 s to read the torch headers of a .cu file."""
    kernels = ROOT / "kernels"
    sources = [*kernels.glob("device/**/*"), *kernels.rglob("*.cu"), *kernels.rglob("*.cuh")]
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources
        if path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith("#include") and "torch/" in line
    ]

    assert not wrong, "\n".join(wrong)
