"""Lists of files: labels that are what they look like, however the list was written."""

from pathlib import Path

import numpy as np
import pytest

from addertrain.data import DataError
from addertrain.data.sources.file_list import list_of_files
from addertrain.data.sources.folder import folder_of_classes


def test_a_list_of_files_takes_numbers_or_names(folder: Path, tmp_path: Path) -> None:
    files = folder_of_classes(folder)
    listed = tmp_path / "list.tsv"
    listed.write_text("".join(f"{folder / files.paths[k]}\t{files.labels[k]}\n" for k in (3, 44, 10)))
    read = list_of_files(listed)
    assert read.labels.tolist() == [0, 4, 1]
    assert read.classes == ("0", "1", "2", "3", "4")
    assert np.array_equal(read.picture(1).pixels, files.picture(44).pixels)
    listed.write_text("a.jpg\tdog\nb.jpg\tcat\n")
    assert list_of_files(listed).labels.tolist() == [1, 0]
    for text, words in [
        ("", "lines"),
        ("a.jpg\n", "line 1, got 'a.jpg'"),
        ("a.jpg\t1\n\tx\n", "on line 2"),
        ("a\t-1\n", "got -1"),
    ]:
        listed.write_text(text)
        with pytest.raises(DataError, match=words):
            list_of_files(listed)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return tmp_path / "list.tsv"


@pytest.mark.parametrize(
    ("content", "paths", "labels"),
    [
        ("\ufeffa.jpg\t0\nb.jpg\t1\n", ("a.jpg", "b.jpg"), [0, 1]),
        ("a.jpg\t0\r\nb.jpg\t1\r\n", ("a.jpg", "b.jpg"), [0, 1]),
        ("a.jpg\t0\nb.jpg\t1", ("a.jpg", "b.jpg"), [0, 1]),
        ("a.jpg\t0\nb.jpg\t1\n\n", ("a.jpg", "b.jpg"), [0, 1]),
        ("a.jpg\t +0 \nb.jpg\t01\n", ("a.jpg", "b.jpg"), [0, 1]),
        (" a\u2028b.jpg\tx\nb\x0c.jpg\ty\n", (" a\u2028b.jpg", "b\x0c.jpg"), [0, 1]),
        ("a.jpg\t\u00b2\nb.jpg\t\u00b9\n", ("a.jpg", "b.jpg"), [0, 1]),  # names, for they are no numbers
    ],
    ids=[
        "byte order mark",
        "CR LF",
        "no last end",
        "a blank last line",
        "signs",
        "odd file names",
        "raised digits",
    ],
)
def test_paths_and_labels_are_those_of_the_lines(
    listed: Path, content: str, paths: tuple[str, ...], labels: list[int]
) -> None:
    listed.write_bytes(content.encode())
    files = list_of_files(listed)
    assert files.paths == paths
    assert sorted(files.labels.tolist()) == labels


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\t0\nb\t15201119\n", "labels 0 to 1 for 2 classes, got 15201119; .* such as id15201119"),
        ("a\t0\nb\t1000000000000\n", "for 2 classes, got 1000000000000"),
        (f"a\t0\nb\t{10**30}\n", f"for 2 classes, got {10**30}"),
        ("a\t1\nb\t-2\n", "expected labels of 0 or above, got -2 on line 2"),
        ("a\t0\nb\t--1\n", "all numbers or all names, got '0' on line 1 and '--1' on line 2"),
        ("path\tlabel\na\t0\n", "all numbers or all names, got '0' on line 2 and 'label' on line 1"),
        ("a\t0\nb\t1\na\t1\n", "expected one label for a, got '0' and '1' \\(line 3\\)"),
        ("a\t0\n./a\t1\n", "expected one label for ./a, got '0' and '1'"),
        ("a\t0\t1\n", "expected 'path<TAB>label' on line 1"),
        ("a\t0\n\nb\t1\n", "on line 2, got ''"),
        ("a\t0.0\nb\t10.0\nc\t2.0\n", "whole numbers or names, got '0.0' on line 1"),
        ("a\t1e0\nb\t.5\n", "whole numbers or names, got '1e0'"),
        ("\ufeff", "expected lines 'path<TAB>label', got an empty file"),
    ],
    ids=[
        "ids",
        "large ids",
        "beyond int64",
        "below 0",
        "two signs",
        "a head",
        "two labels",
        "two spellings",
        "three",
        "blank",
        "floats",
        "exponents",
        "mark",
    ],
)
def test_labels_that_number_no_classes_are_refused(listed: Path, content: str, words: str) -> None:
    listed.write_bytes(content.encode())
    with pytest.raises(DataError, match=words):
        list_of_files(listed)


def test_a_list_in_utf_16_is_refused_in_a_line(listed: Path) -> None:
    listed.write_bytes("a.jpg\t0\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"expected lines 'path<TAB>label' in UTF-8"):
        list_of_files(listed)


def test_labels_that_count_from_1_are_told(listed: Path) -> None:
    listed.write_text("a\t1\nb\t2\nc\t3\n")
    files = list_of_files(listed)
    assert len(files.classes) == 4
    assert files.remarks == (
        "classes without images: 1 of 4 (0); if the labels count from 1, let them count from 0",
    )


def test_ids_as_names_are_few_classes(listed: Path) -> None:
    listed.write_text("a\tid15201119\nb\tid2\n")
    assert list_of_files(listed).classes == ("id15201119", "id2")
