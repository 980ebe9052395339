"""Tables as values: the page, the Markdown and the JSON of a report all come from the same ones.

A cell holds a number as it was measured; how many digits are shown is its column's business.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The mean of `n` runs and their standard deviation (n - 1 in its denominator; None for one run)."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Of some runs' values; None of none."""
        known = list(values)
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Column:
    """One column: what it is called in JSON and on the page, its unit, and how its numbers are shown.

    `form` is one of Python's formats (".2f"), "si" for 4 digits with k, M or G, or "" for text. What is not
    `on_page` is in the JSON and the Markdown alone.
    """

    key: str
    label: str
    unit: str = ""
    form: str = ""
    on_page: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells, by the keys of the columns; a key that a row lacks is an empty cell."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it: a Spread becomes {"mean", "std", "n"}."""
        return {
            "key": self.key,
            "caption": self.caption,
            "columns": [asdict(column) for column in self.columns],
            "rows": [
                {column.key: _plain_cell(row.get(column.key)) for column in self.columns} for row in self.rows
            ],
        }


def cell_text(value: Any, form: str) -> str:
    """A cell of a plain table as text; "–" where there is nothing."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        mean = number_text(value["mean"], form)
        return mean if value["std"] is None else f"{mean} ± {_deviation_text(value['std'], mean)}"
    return value if isinstance(value, str) else number_text(value, form)


def number_text(value: float, form: str) -> str:
    """A number in a column's format, in decimals as far as these can be read."""
    if form == "si":
        return si_text(value)
    text = format(value, form).removesuffix(".")
    if "e" in text and 1.0 <= abs(value) < 1e7:
        text = f"{float(text):.0f}"
    return text.replace("-", "−")


def _deviation_text(std: float, mean: str) -> str:
    """With the decimals of the mean, or one digit where nothing would be left."""
    decimals = len(mean.partition(".")[2])
    return f"{std:.{decimals}f}" if std == 0.0 or std >= 0.5 * 10.0**-decimals else f"{std:.1g}"


def si_text(number: float) -> str:
    """Four digits and k, M or G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g}"


def heading(column: Mapping[str, str]) -> str:
    """A plain column's label and unit."""
    return f"{column['label']}, {column['unit']}" if column["unit"] else column["label"]


def file_name(text: str) -> str:
    """`text` as the name of a file or an anchor."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text.replace("+", "p"))


def _plain_cell(value: Cell) -> Any:
    if isinstance(value, Spread):
        return asdict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value
