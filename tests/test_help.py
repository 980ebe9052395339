"""Help texts: grouped by section, as wide as the terminal, and a hint where an option is nearly right."""

import argparse
import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence

import pytest

from addertrain import cli
from addertrain.cli import bench, main
from addertrain.command_parser import filled, similar_options
from addertrain.recipe import recipe_help
from addertrain.recipe.keys import known_keys, sections

WIDTHS = (60, 80, 120, 200)


def _commands(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[str, ...]]:
    """The words that lead to a parser, and to every parser below it."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _commands(below, *words, name)


# Each benchmark has a parser of its own, which no other parser knows.
COMMANDS = [*_commands(cli._parser()), *(("bench", name) for name in bench.NAMES)]


def _help(words: Sequence[str], capsys: pytest.CaptureFixture[str], *section: str) -> str:
    with contextlib.suppress(SystemExit):
        main([*words, "--help", *section])
    return capsys.readouterr().out


def _complaint(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_every_command_is_among_those_whose_help_is_tested() -> None:
    assert {(), ("fit",), ("data", "write"), ("ckpt", "convert"), ("bench", "infer")} <= set(COMMANDS)
    assert len(COMMANDS) == len(set(COMMANDS)) > 20


def test_help_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(columns))
        for command in COMMANDS:
            said = _help(command, capsys)
            wide = [line for line in said.splitlines() if len(line) > min(columns, 120)]
            # Commands that can be copied, and an option with its value, are not broken.
            unbroken = re.compile(r"  addertrain |  launch/|  torchrun |  --|usage:| +\[--[a-z-]+ \S")
            assert all(map(unbroken.match, wide)), (columns, command, wide)


def test_help_that_no_terminal_reads_has_100_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)

    longest = max(map(len, _help(["fit"], capsys).splitlines()))

    assert 95 < longest <= 100


@pytest.mark.parametrize("section", sections())
def test_help_shows_one_section(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = _help(["fit"], capsys, section)

    shown = [line.split()[0][2:] for line in said.splitlines() if line.startswith("  --") and "  (" in line]
    assert shown == [dotted for dotted in known_keys() if dotted.startswith(f"{section}.")]
    assert said.startswith(f"{section}: ")
    assert _help(["plan"], capsys, section) == said


def test_an_unknown_section_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    line = _complaint(["fit", "--help", "optimizer"], capsys)

    assert f"expected a section of a recipe ({', '.join(sections())}), got 'optimizer'" in line


def test_every_key_has_a_sentence_and_its_default_or_is_required() -> None:
    blocks = recipe_help(width=100).split("\n  --")[1:]
    assert len(blocks) == len(known_keys())
    for block, (dotted, key) in zip(blocks, known_keys().items(), strict=True):
        head = block.splitlines()[0]
        assert head.split()[0] == dotted
        assert ("(required)" in head) == (key.default is dataclasses.MISSING)
        assert key.meaning[0].isupper(), dotted
        assert key.meaning.endswith("."), dotted
        assert key.default is not None or "null" in key.meaning, f"{dotted}: say what null means"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fit", "recipe.yaml", "--lr", "0.1"], "got --lr; did you mean --optim.lr?"),
        (["fit", "--lr=0.1", "recipe.yaml"], "got --lr; did you mean --optim.lr?"),
        (["plan", "recipe.yaml", "--epochs", "3"], "got --epochs; did you mean --schedule.epochs?"),
        (["fit", "recipe.yaml", "--batch-size", "8"], "--data.global_batch_size?"),
        (
            ["fit", "recipe.yaml", "--timeout-seconds", "8"],
            "did you mean --data.timeout_seconds or --train.timeout_seconds?",
        ),
        (["fit", "recipe.yaml", "--resum", "none"], "did you mean --resume?"),
        (["evaluate", "run", "--lr", "3"], "got --lr; see addertrain evaluate --help"),
        (["data", "write", "a", "b.beton", "--qualty", "3"], "did you mean --quality?"),
        (["fit", "recipe.yaml", "other.yaml"], "expected no more arguments, got 'other.yaml'"),
    ],
)
def test_an_unknown_option_gets_a_hint(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in _complaint(words, capsys)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["plan", "recipe.yaml", "--world-size", "0"], "expected a whole number of 1 or more, got '0'"),
        (["plan", "recipe.yaml", "--memory", "-3"], "expected a number above 0, got '-3'"),
        (["reproduce", "recipe.yaml", "--seeds", "x"], "expected a whole number of 1 or more, got 'x'"),
        (["bench", "step", "lenet5bn", "--threads", "0"], "expected a whole number of 1 or more, got '0'"),
        (["bench", "infer", "resnet20", "--seconds", "-1"], "expected a number of 0 or more, got '-1'"),
        (["bench", "loader", "images", "--batch", "1.5"], "expected a whole number of 1 or more, got '1.5'"),
        (["bench", "checkpoint", "--saves", "0"], "expected a whole number of 1 or more, got '0'"),
        (["bench", "scaling", "--compute-ms", "nan"], "expected a number above 0, got 'nan'"),
        (["bench", "proof", "--batch", "0"], "expected a whole number of 1 or more, got '0'"),
        (
            ["plan", "recipe.yaml", "--rate", "fast"],
            "expected images per second above 0, or measure, got 'fast'",
        ),
        (["plan", "recipe.yaml", "--decode-ms", "-1"], "expected a number above 0, got '-1'"),
        (["bench", "checkpoint", "--folder", "nowhere"], "expected a folder that exists, got 'nowhere'"),
        (
            ["bench", "ops", "--json", "nowhere/a.json"],
            "expected a file in a folder that exists, got 'nowhere/",
        ),
        (["bench", "proof", "--json", "."], "expected a file in a folder that exists, got '.'"),
        (
            ["bench", "scaling", "--json", "no/a.json"],
            "expected a file in a folder that exists, got 'no/a.json'",
        ),
        (
            ["bench", "loader", "images", "--step", "lenet5bn"],
            "expected one of resnet18, resnet50, got 'lenet5bn'",
        ),
    ],
)
def test_a_word_of_no_use_is_refused_before_anything_begins(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _complaint(words, capsys)

    assert f"argument {words[-2]}: {complaint}" in line


@pytest.mark.parametrize("benchmark", ["ops", "step"])
def test_a_type_that_a_cpu_would_ignore_is_refused(
    benchmark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _complaint(["bench", benchmark, "resnet20", "--dtype", "float16"], capsys)

    assert f"bench {benchmark}: expected --dtype float16 with --device cuda, got it for a CPU" in line


@pytest.mark.parametrize("words", [["--classes", "10"], ["--image", "3", "32", "32"]])
def test_the_shape_of_a_network_that_is_known_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = _complaint(["bench", "step", "resnet20", *words], capsys)

    assert "bench step: expected --image and --classes with a function of your own only, got resnet20" in line


def test_preflight_takes_the_words_of_fit() -> None:
    words = ["recipe.yaml", "--out", "a", "--resume", "none", "--init-from", "b", "--profile"]
    fit, preflight = (vars(cli._parser().parse_args([name, *words])) for name in ("fit", "preflight"))

    assert fit == {**preflight, "command": "fit"}


def test_an_unknown_network_is_told_of_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    line = _complaint(["bench", "ops", "resnet19"], capsys)

    assert "expected one of lenet5bn, resnet20, resnet18, resnet50, got 'resnet19'; did you mean" in line
    assert "[]" not in line


def test_an_exact_last_part_comes_before_what_is_only_similar() -> None:
    assert similar_options("--out", ["--out-dir"], ["report.out"]) == ["--report.out"]
    assert similar_options("--nothing-like-it", ["--out"], ["optim.lr"]) == []


def test_commands_are_never_broken() -> None:
    text = (
        "A sentence of some words.\n\n  run --with a --long list of words   explains what it does, at length"
    )

    assert filled(text, width=40).splitlines() == [
        "A sentence of some words.",
        "",
        "  run --with a --long list of words",
        "      explains what it does, at length",
    ]
