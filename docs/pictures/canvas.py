"""Shapes, words and axes in two sets of colours, written as SVG: what the documents' pictures are made of.

A picture lies on a card of its own colour, so that it can be read on any page. It is 720 units wide, and its
words are 17 units high or higher: at 400 pixels, the width of a telephone, the smallest are 9 pixels high.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 720
FONT = "ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
# Teal is what adds, orange what multiplies, violet whatever else is compared, in every picture.
COLOURS = {
    "light": {
        "card": "#f6f7f9",
        "panel": "#ffffff",
        "ink": "#1c2330",
        "muted": "#566070",
        "rule": "#cfd5dd",
        "add": "#0a7770",
        "add_soft": "#d5eeeb",
        "multiply": "#b84d14",
        "multiply_soft": "#fbe3d4",
        "other": "#5a48c0",
        "other_soft": "#e4e0f8",
    },
    "dark": {
        "card": "#161b22",
        "panel": "#1f2630",
        "ink": "#e8ebf0",
        "muted": "#a2acba",
        "rule": "#3a4452",
        "add": "#58d3c6",
        "add_soft": "#143f3c",
        "multiply": "#f5a46c",
        "multiply_soft": "#4a2c18",
        "other": "#b1a5ff",
        "other_soft": "#332d5c",
    },
}
Point = tuple[float, float]


def number(value: float) -> str:
    """A coordinate with one digit behind the point, and none where that is 0."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


class Canvas:
    """Collects shapes; `svg` is the file. Colours are named by what they mean, as in COLOURS."""

    def __init__(self, height: float, title: str, theme: str) -> None:
        self._colours = COLOURS[theme]
        self._height = height
        self._title = title
        self._shapes: list[str] = []
        self.rect(0, 0, WIDTH, height, fill="card", radius=14)

    def svg(self) -> str:
        """The whole file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {number(self._height)}" '
            f'role="img" font-family="{FONT}">'
        )
        return "\n".join([head, f"<title>{escape(self._title)}</title>", *self._shapes, "</svg>", ""])

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "panel",
        line: str | None = None,
        radius: float = 0,
        opacity: float = 1,
    ) -> None:
        """A box with its upper left corner at (x, y)."""
        shade = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
        edge = f' stroke="{self._colours[line]}" stroke-width="1.5"' if line else ""
        self._shapes.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
            f'rx="{number(radius)}" fill="{self._colours[fill]}"{shade}{edge}/>'
        )

    def words(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 20,
        colour: str = "ink",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text whose baseline is at y."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}" '
            f'fill="{self._colours[colour]}"{weight}>{escape(words)}</text>'
        )

    def path(
        self,
        points: Sequence[Point],
        *,
        colour: str = "ink",
        width: float = 2.5,
        dashes: str = "",
        fill: str = "none",
        opacity: float = 1,
    ) -> None:
        """A line through the points, or the area within them where `fill` names a colour."""
        steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        shape = "polyline" if fill == "none" else "polygon"
        inside = "none" if fill == "none" else self._colours[fill]
        pattern = f' stroke-dasharray="{dashes}"' if dashes else ""
        if opacity < 1:
            pattern += f' stroke-opacity="{opacity:.2f}"'
        self._shapes.append(
            f'<{shape} points="{steps}" fill="{inside}" stroke="{self._colours[colour]}" '
            f'stroke-width="{number(width)}" stroke-linejoin="round" stroke-linecap="round"{pattern}/>'
        )

    def dot(self, x: float, y: float, *, radius: float = 5, colour: str = "ink") -> None:
        """A filled circle."""
        self._shapes.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" fill="{self._colours[colour]}"/>'
        )

    def arrow(self, start: Point, end: Point, *, colour: str = "muted") -> None:
        """A straight or level arrow from start to end."""
        (x0, y0), (x1, y1) = start, end
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        self.path([start, end], colour=colour, width=2)
        left = (x1 - 9 * dx + 5 * dy, y1 - 9 * dy - 5 * dx)
        right = (x1 - 9 * dx - 5 * dy, y1 - 9 * dy + 5 * dx)
        self.path([left, end, right], colour=colour, width=2)


@dataclass(frozen=True)
class Axes:
    """A panel of a picture: maps numbers to its pixels."""

    canvas: Canvas
    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_y: Callable[[float], float] | None = None

    def frame(self) -> None:
        """Draws the panel's background."""
        self.canvas.rect(self.left, self.top, self.width, self.height, line="rule", radius=6)

    def at(self, x: float, y: float) -> Point:
        """Where a point lies on the canvas."""
        scale = self.log_y or (lambda value: value)
        low, high = scale(self.y_range[0]), scale(self.y_range[1])
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (scale(y) - low) / (high - low)
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def curve(self, xs: Sequence[float], ys: Sequence[float], **style: object) -> None:
        """A line through points."""
        self.canvas.path([self.at(x, y) for x, y in zip(xs, ys, strict=True)], **style)  # type: ignore[arg-type]

    def rule(self, *, x: float | None = None, y: float | None = None) -> None:
        """A thin line across the panel at x, or at y."""
        if x is not None:
            ends = [self.at(x, self.y_range[0]), self.at(x, self.y_range[1])]
        else:
            assert y is not None
            ends = [self.at(self.x_range[0], y), self.at(self.x_range[1], y)]
        self.canvas.path(ends, colour="rule", width=1.2)

    def label_x(self, x: float, words: str) -> None:
        """Words below the panel at x."""
        self.canvas.words(
            self.at(x, self.y_range[0])[0],
            self.top + self.height + 22,
            words,
            size=17,
            colour="muted",
            anchor="middle",
        )

    def label_y(self, y: float, words: str) -> None:
        """Words left of the panel at y."""
        self.canvas.words(
            self.left - 8, self.at(self.x_range[0], y)[1] + 6, words, size=17, colour="muted", anchor="end"
        )
