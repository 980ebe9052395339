"""Pages that are made from other files: `launch/docs --write` writes them, a test compares them.

recipes/README.md lists the recipes by what their heads say. docs/api.md lists the public names with the first
sentence of their docstrings; on the site each of them leads to the whole docstring (launch/docs_site.py).
"""

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent

# Modules with public names, by area, in the order in which a reader meets them. A package's names are its
# `__all__`, a module's are its functions, classes and documented variables without an underscore.
PUBLIC_MODULES = {
    "The names that a script needs most": ("addertrain",),
    "Layers and networks": ("addertrain.nn", "addertrain.models", "addertrain.models.layers"),
    "Operators": ("addertrain.ops", "addertrain.ops.reference", "addertrain.libraries"),
    "Optimizer": ("addertrain.optim",),
    "Data": ("addertrain.data",),
    "Training": ("addertrain.recipe", "addertrain.train", "addertrain.train.run", "addertrain.errors"),
    "Before a run": ("addertrain.plan", "addertrain.proof"),
    "After a run": ("addertrain.interchange", "addertrain.report.markdown"),
}

RECIPE_FIELDS = ("source", "expected", "measured", "time", "data", "command")
DATA_SETS = {
    "digits": "Digits of scikit-learn",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenette": "Imagenette",
    "imagenet": "ImageNet",
}


@dataclass(frozen=True)
class Head:
    """What a recipe's comment says of it: a title, and a text for each of RECIPE_FIELDS that it has."""

    path: Path
    title: str
    fields: dict[str, str]


def recipe_head(path: Path) -> Head:
    """The head of one recipe.

    Raises:
        ValueError: there is no title, or a line belongs to no field.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line[2:] for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    blank = comment.index("") if "" in comment else len(comment)
    fields: dict[str, list[str]] = {}
    for line in comment[blank + 1 :]:
        name, _, text = line.partition(" ")
        if name:
            fields[name] = [text.strip()]
        elif fields:
            fields[list(fields)[-1]].append(line.strip())
    missing = {"source", "expected", "time", "command"} - set(fields)
    if not blank or missing or set(fields) - set(RECIPE_FIELDS):
        raise ValueError(
            f"{path}: expected a title, an empty comment line and the fields source, expected, time and "
            f"command, got {sorted(fields)}"
        )
    return Head(path, " ".join(comment[:blank]), {name: " ".join(text) for name, text in fields.items()})


def recipes_page() -> str:
    """recipes/README.md."""
    folder = ROOT / "recipes"
    parts = [
        "# Recipes\n\n"
        "A recipe is a YAML file that describes one training completely: network, data, optimizer,\n"
        "schedule and the result to expect. Every key can be overridden on the command line, as in\n"
        "`--optim.lr 0.05`; [Training options](../docs/training.md) explains the keys. This list is made\n"
        "from the comments at the heads of the recipes: `launch/docs --write` writes it, and a test\n"
        "compares the two."
    ]
    for name, title in DATA_SETS.items():
        heads = [recipe_head(path) for path in sorted((folder / name).glob("*.yaml"))]
        parts += [
            f"## {title}",
            _recipe_table(heads),
            *_shared(heads, "source"),
            *_shared(heads, "data"),
            _commands(heads),
        ]
    studies = sorted((folder / "studies").glob("*.txt"))
    parts += [
        "## Studies",
        "A study is a text file of many runs; `launch/study STUDY` trains them side by side and writes one\n"
        "report ([Reproducing](../docs/reproducing.md)).",
        "\n".join(_study_entry(path) for path in studies),
        "## Theory",
        "[theory](theory) builds networks that approximate given functions, every weight by formula, and\n"
        "compares their errors with the bounds of [Theory](../docs/theory.md). It is a program instead of a\n"
        "recipe, because it has a function in place of a data set, and takes a minute of one core:",
        "```bash\npython -m recipes.theory.draw_universal_approximation\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _recipe_table(heads: Sequence[Head]) -> str:
    rows = [
        f"| [{_name(head)}]({_place(head)}) | {_escaped(head.title)} | {_escaped(_result(head))} "
        f"| {_escaped(head.fields['time'])} |"
        for head in heads
    ]
    return "\n".join(["| recipe | what it trains | expected | time |", "|---|---|---|---|", *rows])


def _result(head: Head) -> str:
    measured = head.fields.get("measured")
    return head.fields["expected"] + (f"; measured {measured}" if measured else "")


def _shared(heads: Sequence[Head], field: str) -> Iterator[str]:
    """One line for each different text of a field, and the recipes that it is the text of."""
    groups: dict[str, list[str]] = {}
    for head in heads:
        if field in head.fields:
            groups.setdefault(head.fields[field], []).append(_name(head))
    if groups:
        yield "\n".join(
            f"- {field.capitalize()} of {', '.join(names)}: {_escaped(text)}"
            for text, names in groups.items()
        )


def _commands(heads: Sequence[Head]) -> str:
    return "\n".join(["```bash", *(head.fields["command"] for head in heads), "```"])


def _name(head: Head) -> str:
    return head.path.stem


def _place(head: Head) -> str:
    return head.path.relative_to(ROOT / "recipes").as_posix()


def _study_entry(path: Path) -> str:
    comment = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return f"- [{path.name}](studies/{path.name}): {' '.join(comment)}"


def _escaped(text: str) -> str:
    """For a cell of a table; a star is a star, and pages of docs/ that it names become links."""
    cell = re.sub(r"(`[^`]*`)|\*", lambda found: found[1] or r"\*", text.replace("|", r"\|"))
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](../docs/\1)", cell)


@dataclass(frozen=True)
class PublicName:
    """A public name, the module that defines it, its file, and the first sentence of its docstring."""

    module: str
    name: str
    defined_in: str
    file: Path
    summary: str

    @property
    def identifier(self) -> str:
        """Where the object is defined, in dots; a module of the same name does not hide it."""
        return f"{self.defined_in}.{self.name}"


def public_names(module: str) -> list[PublicName]:
    """What a user imports from a module, in alphabetical order, read from its source; nothing is imported."""
    found = []
    for name in sorted(_listed(_tree_of(module)), key=str.lower):
        origin = _home(module, name)
        source = _file_of(origin)
        found.append(PublicName(module, name, origin, source, _summary(source, name)))
    return found


def _home(module: str, name: str) -> str:
    """The module that defines a name, however many hand it on."""
    while (origin := dict(_imported(_tree_of(module))).get(name)) is not None:
        module = origin
    return module


@functools.cache
def _tree_of(module: str) -> ast.Module:
    return ast.parse(_file_of(module).read_text(encoding="utf-8"))


def _file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    names = [
        node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else _target(node)
        for node, after in zip(tree.body, [*tree.body[1:], None], strict=True)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) or (_is_variable(node) and _text(after))
    ]
    return [name for name in names if not name.startswith("_")]


def _is_variable(node: ast.stmt) -> TypeGuard[ast.Assign | ast.AnnAssign]:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def _text(node: ast.stmt | None) -> str:
    """The string that a statement consists of: it documents the variable above it. Empty if there is none."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return str(node.value.value) if is_text else ""


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, module) of every import at the top of a file, those for the type checker included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if alias.asname is None:
                    yield alias.name, node.module


def _summary(file: Path, name: str) -> str:
    """The first sentence of an object's docstring, on one line; empty where there is none."""
    paragraph = " ".join(docstring(file, name).split("\n\n")[0].split())
    return re.split(r"(?<!\bal)\.(?= [^a-z0-9])", paragraph)[0].removesuffix(".").removesuffix(":")


def docstring(file: Path, name: str) -> str:
    """The docstring of a function, a class or a variable at the top of a file; empty where there is none."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if _is_variable(node) and _target(node) == name:
            return _text(after)
    raise ValueError(f"{file}: expected a definition of {name}, got none")


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def api_page(*, is_site: bool = False) -> str:
    """docs/api.md. Names lead to the files that define them, on the site to their docstrings."""
    parts = [
        "# API reference\n\n"
        "These are the public names: what a script of your own may import. Everything else may change\n"
        "without notice. On the site a name leads to its signature, shapes and errors; elsewhere it leads\n"
        "to the file that defines it, whose docstrings say the same. `launch/docs --write` makes this list\n"
        "from the package, and a test compares the two."
    ]
    for area, modules in PUBLIC_MODULES.items():
        parts.append(f"## {area}")
        for module in modules:
            rows = [_api_row(each, is_site=is_site) for each in public_names(module)]
            parts += [f"### {module}", "\n".join(["| name | what it is |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _api_row(each: PublicName, *, is_site: bool) -> str:
    place = f"../{each.file.relative_to(ROOT).as_posix()}"
    target = f"[`{each.name}`][{each.identifier}]" if is_site else f"[`{each.name}`]({place})"
    return f"| {target} | {_escaped(each.summary)} |"


def module_pages() -> dict[str, str]:
    """The page of each module on the site, for mkdocstrings to fill; the package itself hands names on."""
    modules = [module for modules in PUBLIC_MODULES.values() for module in modules if "." in module]
    return {module: _module_page(module) for module in modules}


def _module_page(module: str) -> str:
    parts = [
        f"# {module}",
        f"::: {module}\n    options:\n      members: false\n      show_root_heading: false\n"
        "      show_root_toc_entry: false",
    ]
    modules = {each for area in PUBLIC_MODULES.values() for each in area} - {module}
    for each in public_names(module):
        if each.defined_in in modules:
            parts.append(f"## {each.name}\n\nSee [{each.identifier}][].")
        else:
            options = f"      heading: {each.name}\n      toc_label: {each.name}"
            parts.append(f"::: {each.identifier}\n    options:\n{options}")
    return "\n\n".join(parts) + "\n"


WRITTEN = {"recipes/README.md": recipes_page, "docs/api.md": api_page}


def main() -> None:
    """Writes every page again."""
    for name, page in WRITTEN.items():
        (ROOT / name).write_text(page(), encoding="utf-8")
        print(f"docs: {name}")


if __name__ == "__main__":
    main()
