"""Tables as text: digits, units, and the same numbers in JSON, Markdown and on the page."""

import json

import pytest

from addertrain.report.markdown import markdown_table
from addertrain.report.tables import Column, Spread, Table, cell_text, file_name

TABLE = Table(
    "accuracy",
    "A caption.",
    (
        Column("name", "network"),
        Column("top1", "top-1", "%", ".2f"),
        Column("additions", "additions", "", "si"),
        Column("command", "command", on_page=False),
    ),
    (
        {"name": "a|b", "top1": Spread.of([99.43, 99.37, 99.41]), "additions": 833_040, "command": "do"},
        {"name": "c", "top1": Spread.of([98.0]), "additions": float("nan")},
    ),
)


def test_spread_is_mean_and_sample_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])

    assert spread == Spread(3.0, pytest.approx(7.0**0.5), 3)
    assert Spread.of([5.0]) == Spread(5.0, None, 1)
    assert Spread.of([]) is None


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, ".2f", "–"),
        ("words", "", "words"),
        (-3.4567, ".2f", "−3.46"),
        (1136.4, ".3g", "1140"),
        (0.00012345, ".3g", "0.000123"),
        (1.3, "#.3g", "1.30"),
        (384.0, "#.3g", "384"),
        (833_040, "si", "833 k"),
        (3_969_122_304, "si", "3.969 G"),
        ({"mean": 0.00393, "std": 0.00032181, "n": 3}, ".3g", "0.00393 ± 0.00032"),
        ({"mean": 8.0, "std": 0.0012, "n": 3}, ".2f", "8.00 ± 0.001"),
        ({"mean": 8.0, "std": 0.0, "n": 3}, ".2f", "8.00 ± 0.00"),
        ({"mean": 99.4, "std": None, "n": 1}, ".2f", "99.40"),
    ],
)
def test_cells(value: object, form: str, text: str) -> None:
    assert cell_text(value, form) == text


def test_json_keeps_every_digit_and_has_no_nan() -> None:
    plain = json.loads(json.dumps(TABLE.plain(), allow_nan=False))

    assert plain["rows"][0]["top1"]["mean"] == pytest.approx(99.40333333333334, abs=1e-12)
    assert plain["rows"][0]["top1"]["n"] == 3
    assert plain["rows"][1]["additions"] is None
    assert plain["rows"][1]["command"] is None


def test_markdown_comes_from_the_json() -> None:
    plain = json.loads(json.dumps(TABLE.plain()))

    assert markdown_table(plain, ["name", "top1"]).splitlines() == [
        "| network | top-1, % |",
        "| --- | --- |",
        "| a\\|b | 99.40 ± 0.03 |",
        "| c | 98.00 |",
    ]
    assert "| command |" in markdown_table(plain)
    with pytest.raises(KeyError):
        markdown_table(plain, ["nothing"])


def test_file_names_hold_no_separators() -> None:
    assert file_name("mnist-a/b (x: 1) lenet++") == "mnist-a_b__x__1__lenetpp"
