"""Every command that a page shows is one that its parser takes: program, options, files, keys of recipes."""

import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator

import pytest
from torch.distributed.run import get_args_parser

from addertrain import cli
from addertrain.errors import RecipeError, UsageError
from addertrain.recipe import load_recipe
from tests.commands import run_command
from tests.source_tree import ROOT, project_files

PAGES = [str(path.relative_to(ROOT)) for path in project_files() if path.suffix == ".md"]
SHELLS = ("", "bash", "sh", "console")
PROGRAM = re.compile(
    r"(?:\./)?(addertrain|torchrun|sbatch|kubectl|launch/[\w-]+|findings/[\w-]+\.sh|python -m \w+)\b"
)
# A word in capitals stands for a user's own value; a number suits every option that gets one in the pages.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*…?")
ANY_RECIPE = "recipes/digits/lenet5bn.yaml"


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """(command, whether it is complete): in blocks of code it is, within a sentence it may lack arguments."""
    prose = []
    for number, part in enumerate(re.split(r"^(```+\w*\n.*?^```+)[ \t]*$", text, flags=re.M | re.S)):
        if number % 2 == 0:
            prose.append(part)
        elif re.match(r"```+(\w*)", part)[1] in SHELLS:  # type: ignore[index]
            yield from ((line, True) for line in _lines(part.split("\n", 1)[1]))
    rest = "".join(prose)
    for block in re.findall(r"(?:^|\n)\n((?:    [^\n]*(?:\n|$))+)", rest):
        yield from ((line, True) for line in _lines(block))
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", rest):
        yield from ((line, False) for line in _lines(code))


def _lines(block: str) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        for part in re.split(r"\s*(?:;|&&)\s+", line.strip().removeprefix("$ ")):
            command = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part)
            if PROGRAM.match(command):
                yield command


def mistake(command: str, *, is_complete: bool = True) -> str | None:
    """What is wrong with a command; None: nothing."""
    words = [word.strip("[]").rstrip("…") for word in shlex.split(command, comments=True)]
    words = [word for word in words if word not in ("", "...", "KEY", "VALUE")]
    words = words[: words.index("|")] if "|" in words else words  # one command of several
    program, *rest = words
    program = program.removeprefix("./")
    absent = [word for word in words if _is_path(word) and not (ROOT / word).exists()]
    if absent:
        return f"no {absent[0]}"
    if program == "python" and rest[1:2] == ["addertrain"]:
        program, rest = "addertrain", rest[2:]
    if program == "python":
        return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    if program in ("launch/torchrun", "torchrun", "launch/preflight"):
        return _launched(program, rest, is_complete=is_complete)
    if program in ("sbatch", "launch/deepspeed"):
        start = next((place for place, word in enumerate(rest) if word == "fit"), None)
        return None if start is None else _own(rest[start:], is_complete=is_complete)
    if program == "addertrain":
        return _own(rest, is_complete=is_complete)
    if program.startswith("launch/"):
        unknown = [
            word
            for word in rest
            if word.startswith("--") and word not in f"--help {_help_of_script(program)}"
        ]
        return f"{program} has no {unknown[0]}" if unknown else None
    return None


def _is_path(word: str) -> bool:
    return re.match(r"(?:launch|recipes|findings|tests)/[\w./-]+$", word) is not None and "NAME" not in word


def _launched(program: str, words: list[str], *, is_complete: bool) -> str | None:
    """A launcher's options are torchrun's; behind them stand a command of ours and its words."""
    options = get_args_parser()._option_string_actions
    while words and words[0].startswith("-"):
        name = words.pop(0).partition("=")[0]
        if name == "-m":
            assert words.pop(0) == "addertrain"
            continue
        if name not in options:
            return f"{program} has no {name}"
        if options[name].nargs != 0:
            words.pop(0)
    return _own(["preflight", *words] if program == "launch/preflight" else words, is_complete=is_complete)


def _own(words: list[str], *, is_complete: bool) -> str | None:
    """What `addertrain` would answer to these words before it does anything."""
    if words[:1] == ["bench"]:
        return _bench(words[1:])
    if words[:1] in ([], ["--version"], ["--help"]) or "--help" in words:
        return None
    own, overrides = cli.split_overrides(words)
    filled = [
        "1" if before.startswith("--") and PLACEHOLDER.fullmatch(word) else word
        for before, word in zip(["", *own], own, strict=False)
    ]
    for num_missing in range(1 if is_complete else 4):
        try:
            cli._parser().parse_args([*filled, *["X"] * num_missing])
        except UsageError as error:
            if is_complete or not re.search("arguments are required|expected one argument", str(error)):
                return str(error)
        else:
            return _keys(own, overrides)
    return "too many arguments are missing"


def _keys(own: list[str], overrides: list[str]) -> str | None:
    given = ["1" if PLACEHOLDER.fullmatch(word) or "|" in word else word for word in overrides]
    recipe = next(
        (word for word in own if word.startswith("recipes/") and (ROOT / word).is_file()), ANY_RECIPE
    )
    if any(word.startswith(("--model.args", "--data.args")) for word in given):
        return None  # arguments of a user's own function
    try:
        load_recipe(ROOT / recipe, given)
    except RecipeError as error:
        return str(error)
    return None


def _bench(words: list[str]) -> str | None:
    if not words:
        return None
    if importlib.util.find_spec(f"addertrain.bench.{words[0]}") is None:
        return f"no benchmark {words[0]}"
    unknown = [word for word in words if word.startswith("--") and word not in _help_of_benchmark(words[0])]
    return f"bench {words[0]} has no {unknown[0]}" if unknown else None


@functools.cache
def _help_of_benchmark(name: str) -> str:
    benchmark = importlib.import_module(f"addertrain.bench.{name}")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        benchmark.main(["--help"])
    return out.getvalue()


@functools.cache
def _help_of_script(program: str) -> str:
    return run_command(program, "--help").stdout


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_understood(page: str) -> None:
    found = list(commands((ROOT / page).read_text(encoding="utf-8")))
    wrong = [
        f"{command}\n    {trouble}"
        for command, is_complete in found
        if (trouble := mistake(command, is_complete=is_complete)) is not None
    ]

    assert not wrong, "\n".join(wrong)


def test_the_pages_show_commands() -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]

    assert len([command for text in texts for command in commands(text)]) > 150


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ("addertrain fitt RECIPE", "invalid choice"),
        ("addertrain fit recipes/digits/lenet5bn.yaml --optim.lrr 0.1", "optim.lrr"),
        ("addertrain fit recipes/digits/lenet6.yaml", "no recipes/digits/lenet6.yaml"),
        ("addertrain bench ops resnet20 --kernel-only", "--kernel-only"),
        ("addertrain plan RECIPE --world-sizes N", "--world-sizes"),
        ("launch/torchrun --nnode 2 fit RECIPE", "--nnode"),
        ("launch/test --limits 3", "--limits"),
        ("python -m addertrain.bench.rooflines", "no module"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, trouble: str) -> None:
    assert trouble in str(mistake(command))
