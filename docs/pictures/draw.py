"""The list of pictures, each in light and in dark colours. A test compares the files with what is drawn."""

from collections.abc import Callable
from pathlib import Path

from docs.pictures import front, method
from docs.pictures.canvas import COLOURS

FOLDER = Path(__file__).resolve().parent
PICTURES: dict[str, Callable[[str], str]] = {
    "layer": front.layer,
    "architecture": front.architecture,
    "similarity": method.similarity,
    "gradients": method.gradients,
    "variance": method.variance,
    "norm": method.norm,
    "adaptive_rate": method.adaptive_rate,
    "power": method.power,
    "recalibration": method.recalibration,
}


def drawn() -> dict[str, str]:
    """What every file of a picture holds, by its name."""
    return {f"{name}_{theme}.svg": draw(theme) for name, draw in PICTURES.items() for theme in COLOURS}


def write_all() -> None:
    """Writes every picture beside this file."""
    for name, text in drawn().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
