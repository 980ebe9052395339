"""Image files named in a list of paths with labels."""

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addertrain.data.decoding.modes import AS_IT_IS, Rendering
from addertrain.data.sources.folder import PictureFiles
from addertrain.errors import DataError

_NUMBER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def list_of_files(path: Path, *, rendering: Rendering = AS_IT_IS) -> PictureFiles:
    """Lines of `path<TAB>label`; paths are relative to the list, labels all numbers or all names.

    Numbers count the classes from 0, and most of them must be used; names are sorted.

    Raises:
        DataError: a line has another format, numbers are below 0 or far apart, or a path has two labels.
    """
    rows = _rows(path)
    names = [label for _, label in rows]
    labels, classes = _numbered(path, names) if _are_numbers(path, names) else _named(names)
    known: dict[str, str] = {}
    for number, (file, label) in enumerate(rows, start=1):
        if (other := known.setdefault(os.path.normpath(file), label)) != label:
            raise DataError(
                f"{path}: expected one label for {file}, got '{other}' and '{label}' (line {number}); "
                "remove one of the lines"
            )
    return PictureFiles(
        path.parent,
        tuple(file for file, _ in rows),
        labels,
        classes,
        f"list {path}",
        rendering,
        _remarks(labels, len(classes)),
    )


def _rows(path: Path) -> list[tuple[str, str]]:
    """Path and label of every line; spreadsheets begin with a byte order mark and end lines with CR LF."""
    try:
        # Not splitlines: names of files may hold other characters that it takes for the end of a line.
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: expected lines 'path<TAB>label' in UTF-8, got: {error}; save it as UTF-8 text"
        ) from None
    if lines == [""]:
        raise DataError(f"{path}: expected lines 'path<TAB>label', got an empty file; write a line per image")
    rows = []
    for number, line in enumerate(lines, start=1):
        file, _, label = line.partition("\t")
        label = label.strip(" ")
        if not file or not label or "\t" in label:
            raise DataError(
                f"{path}: expected 'path<TAB>label' on line {number}, got '{line:.80}'; use one tab"
            )
        rows.append((file, label))
    return rows


def _are_numbers(path: Path, names: list[str]) -> bool:
    """Whether the labels are numbers; a list with both is refused."""
    is_number = [_NUMBER.fullmatch(name) is not None for name in names]
    if any(is_number) and not all(is_number):
        number, name = is_number.index(True), is_number.index(False)
        raise DataError(
            f"{path}: expected labels that are all numbers or all names, got '{names[number]}' on line "
            f"{number + 1} and '{names[name]}' on line {name + 1}; make them alike"
        )
    if all(map(_FLOAT.fullmatch, names)) and not all(is_number):
        raise DataError(
            f"{path}: expected labels that are whole numbers or names, got '{names[0]}' on line 1; write "
            "numbers without a decimal point or exponent"
        )
    return all(is_number)


def _numbered(path: Path, names: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    numbers = [int(name) for name in names]
    low, high = min(numbers), max(numbers)
    if low < 0:
        line = numbers.index(low) + 1
        raise DataError(
            f"{path}: expected labels of 0 or above, got {low} on line {line}; correct or remove the line"
        )
    in_use = len(set(numbers))
    if 2 * in_use < high + 1:
        raise DataError(
            f"{path}: expected labels 0 to {in_use - 1} for {in_use} classes, got {high}; if labels are "
            f"identifiers, write them as names, such as id{high}"
        )
    return np.array(numbers, dtype=np.int64), tuple(str(number) for number in range(high + 1))


def _named(names: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    classes = tuple(sorted(set(names)))
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], dtype=np.int64), classes


def _remarks(labels: NDArray[np.int64], num_classes: int) -> tuple[str, ...]:
    empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if not len(empty):
        return ()
    shown = ", ".join(str(number) for number in empty[:3])
    why = "; if the labels count from 1, let them count from 0" if empty.tolist() == [0] else ""
    return (f"classes without images: {len(empty)} of {num_classes} ({shown}){why}",)
