"""The pictures of the documents: as docs/pictures draws them, legible on a telephone, in both themes."""

import json
import re
from xml.etree import ElementTree

import pytest

from docs.pictures import method, recalibration
from docs.pictures.canvas import COLOURS, WIDTH
from docs.pictures.draw import FOLDER, drawn
from tests.source_tree import ROOT, project_files

DRAWN = drawn()
SVG = "{http://www.w3.org/2000/svg}"


def _luminance(colour: str) -> float:
    """Of #rrggbb, as WCAG 2 defines it."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_files_are_what_is_drawn() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}

    assert there == DRAWN, "draw them anew: python -m docs.pictures"


@pytest.mark.parametrize("name", DRAWN)
def test_words_are_large_enough_and_inside(name: str) -> None:
    """Letters of most fonts are at most 0.58 of their size wide, on average over a line."""
    root = ElementTree.fromstring(DRAWN[name])
    height = float(root.attrib["viewBox"].split()[-1])
    for text in root.iter(f"{SVG}text"):
        x, y, size = (float(text.attrib[key]) for key in ("x", "y", "font-size"))
        width = 0.58 * size * len(text.text or "")
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]] * width

        assert size >= 17
        assert 0 <= left <= left + width <= WIDTH, text.text
        assert size <= y <= height - 4, text.text


@pytest.mark.parametrize("theme", COLOURS)
def test_words_stand_out(theme: str) -> None:
    """A contrast of 4.5 to 1, what WCAG 2 asks of text, on cards and on panels."""
    colours = COLOURS[theme]
    for name in ("ink", "muted", "add", "multiply", "other"):
        for ground in ("card", "panel"):
            low, high = sorted(_luminance(colours[key]) for key in (name, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_numbers_of_the_method_page_are_those_of_its_pictures() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    curves = json.loads((FOLDER / "recalibration.json").read_text(encoding="utf-8"))
    first, second = ([values[epoch] for values in curves.values()] for epoch in (0, 1))
    raw, _ = method.response_statistics()
    gradients = {kind: [row[kind] for row in method.layer_gradients()] for kind in (1, 2)}

    assert "the readings are {:.2f}, {:.2f} and {:.2f} %".format(*first) in text
    assert f"offset-free one {first[1]:.0f} and {second[1]:.0f}; recalibrated it reads" in text
    assert f"lie {-float(raw.mean()):.0f} standard deviations below 0" in text
    assert f"between {min(gradients[1]):.0e} and {max(gradients[1]):.0e}".replace("e-0", "e-") in text
    assert f"between {min(gradients[2]):.1g} and {max(gradients[2]):.1g}" in text


def test_measured_variances_are_near_equation_9() -> None:
    """2000 values estimate a variance to 3.2 % (one standard deviation)."""
    for num_channels in (16, 512):
        expected = method.predicted_variance(num_channels)
        assert abs(method.measured_variance(num_channels) / expected - 1) < 0.1


def test_recalibration_is_what_an_early_reading_needs() -> None:
    """The measurement behind the picture, two of its epochs long."""
    curves = recalibration.curves(2)

    assert curves["uncalibrated, Eq. 2"][0] < 20 < curves["uncalibrated, offset-free"][0]
    assert curves["recalibrated"][0] > 80


def test_every_picture_is_shown_in_both_themes() -> None:
    pages = [path for path in project_files() if path.suffix == ".md"]
    shown = {
        str((page.parent / target).resolve().relative_to(ROOT))
        for page in pages
        for target in re.findall(r'(?:src|srcset)="([^"]+\.svg)"', page.read_text(encoding="utf-8"))
    }

    assert shown == {str((FOLDER / name).relative_to(ROOT)) for name in DRAWN}
