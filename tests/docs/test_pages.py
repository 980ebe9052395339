"""Pages that are made from other files are what `launch/docs --write` would write."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, ROOT, launch_module

PAGES = launch_module("docs_pages")
MODULES = [module for modules in PAGES.PUBLIC_MODULES.values() for module in modules]


@pytest.mark.parametrize("name", PAGES.WRITTEN)
def test_a_made_page_equals_its_sources(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES.WRITTEN[name](), "run launch/docs --write"


def test_every_recipe_and_study_is_listed() -> None:
    text = PAGES.recipes_page()
    files = [path for path in (ROOT / "recipes").rglob("*") if path.suffix in (".yaml", ".txt")]

    assert len(files) > 50
    assert not [
        path.name for path in files if f"]({path.relative_to(ROOT / 'recipes').as_posix()})" not in text
    ]


def test_a_head_that_lacks_its_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("# A network.\n#\n# expected  97 %\n# time      a minute\n# command   fit\nname: own\n")

    with pytest.raises(ValueError, match="fields source, expected, time and command, got"):
        PAGES.recipe_head(path)


def test_a_field_of_a_head_may_have_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    lines = [
        "A network,",
        "on data.",
        "",
        "source    a book,",
        "          page 3",
        "expected  97 %",
        "time      a minute",
    ]
    path.write_text("".join(f"# {line}\n" for line in [*lines, "command   fit"]) + "name: own\n")
    head = PAGES.recipe_head(path)

    assert (head.title, head.fields["source"]) == ("A network, on data.", "a book, page 3")


@pytest.mark.parametrize("module", MODULES)
def test_a_public_name_is_there_under_its_module(module: str) -> None:
    found = importlib.import_module(module)

    assert not [each.name for each in PAGES.public_names(module) if not hasattr(found, each.name)]


def test_every_package_with_public_names_is_in_the_reference() -> None:
    packages = {
        f"addertrain.{path.parent.name}"
        for path in PACKAGE.glob("*/__init__.py")
        if "__all__" in path.read_text()
    }

    assert packages - {"addertrain.cli", "addertrain.checkpoint"} <= set(MODULES)


def _public_objects(module: str) -> list[tuple[str, str, object]]:
    """(name, docstring, object) of every public name of a module."""
    found = importlib.import_module(module)
    return [
        (f"{module}.{each.name}", PAGES.docstring(each.file, each.name), getattr(found, each.name))
        for each in PAGES.public_names(module)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_a_public_name_says_what_it_is(module: str) -> None:
    objects = _public_objects(module)
    silent = [name for name, text, _ in objects if len(text.split()) < 2]

    assert objects
    assert not silent


@pytest.mark.parametrize("module", MODULES)
def test_the_arguments_that_a_docstring_explains_exist(module: str) -> None:
    wrong = []
    for name, text, found in _public_objects(module):
        named = _explained(text)
        if named and callable(found):
            parameters = set(inspect.signature(found).parameters)
            wrong += [f"{name}: {each}" for each in named if each not in parameters]

    assert not wrong


def _explained(text: str) -> list[str]:
    """The names in the section Args of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, flags=re.M)
    lines = re.findall(r"^    (\w+(?:, \w+)*):", section[1], flags=re.M) if section else []
    return [name for line in lines for name in line.split(", ")]


def test_operators_and_layers_say_their_shapes_and_errors() -> None:
    texts = {
        name: text
        for module in ("addertrain.ops", "addertrain.nn")
        for name, text, _ in _public_objects(module)
    }
    own = ("addertrain.ops.adder2d", "addertrain.nn.AdderConv2d", "addertrain.nn.AdderLinear")

    for name in own:
        assert re.search(r"\w_nchw|\(\.\.\., ", texts[name]), name
        assert "Raises:" in texts[name], name
        assert re.search(r"Eq\. 2|-sum", texts[name]), name
