"""`addertrain data` as a user calls it: what it says, what it leaves, its exit codes."""

import json
import re
import shutil
from pathlib import Path

import pytest

from addertrain.cli import main
from addertrain.data.beton import part_decoder
from addertrain.data.beton.format import read_index
from addertrain.data.beton.kept import can_mark
from addertrain.data.beton.side_file import side_path
from tests.data.photographs import write_folder


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", num_classes=2, per_class=3)


@pytest.mark.distributed
def test_write_verify_and_info(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.beton"
    words = ["--max-size", "300", "--quality", "80", "--workers", "1", "--page-mib", "2", "--keep-jpegs"]
    assert main(["data", "write", str(few), str(path), *words]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        f"{path}: written\nsamples    6 of 2 classes (3 to 3 a class)\nimages     jpg"
    )
    assert captured.err.endswith("6 of 6 images\n")
    assert max(read_index(path).heights.max(), read_index(path).widths.max()) == 300
    assert main(["data", "verify", str(path)]) == 0
    assert "the structure is intact (6 images)" in capsys.readouterr().out
    assert main(["data", "verify", str(path), "--deep", "--threads", "2"]) == 0
    assert "intact, every page and every image" in capsys.readouterr().out
    assert main(["data", "info", str(path)]) == 0
    described = capsys.readouterr().out
    assert "max_size 300, quality 80" in described
    assert f"markers    in {6 if can_mark() else 3} of 6 JPEGs; 3 kept as they came" in described
    assert main(["data", "write", str(few), str(path)]) == 1
    assert "expected a new file, got one that exists" in capsys.readouterr().err


def test_where_no_markers_can_be_put_in_that_is_said_first(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(part_decoder, "library", lambda: None)
    (tmp_path / "there.beton").touch()  # so that nothing is written

    assert main(["data", "write", str(few), str(tmp_path / "there.beton"), "--keep-jpegs"]) == 1

    warning, refusal = capsys.readouterr().err.splitlines()
    assert "no library _C_pictures" in warning
    assert "expected a new file, got one that exists" in refusal


@pytest.fixture
def copy(beton: Path, tmp_path: Path) -> Path:
    shutil.copy(side_path(beton), tmp_path)
    return Path(shutil.copy(beton, tmp_path))


def test_a_damaged_image_fails_a_deep_verification(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with copy.open("r+b") as file:
        file.seek(int(read_index(copy).offsets[5]) + 300)
        file.write(b"damage")
    assert main(["data", "verify", str(copy), "--deep"]) == 1
    captured = capsys.readouterr()
    assert re.search(r"page \d+: its checksum differs", captured.out)
    assert "sample 5: expected the image that was written" in captured.out
    assert "got 2 damaged pages or images" in captured.err.splitlines()[-1]


@pytest.mark.parametrize("words", [["info"], ["verify"], ["verify", "--adopt"]], ids=" ".join)
@pytest.mark.parametrize("folder", [".", "pictures.beton"])
def test_a_folder_is_no_beton(
    words: list[str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(exist_ok=True)

    assert main(["data", *words, folder]) == 1

    assert capsys.readouterr().err.endswith("expected a .beton file, got a folder; name a file\n")


def test_another_programs_file_is_adopted(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    side_path(copy).unlink()
    assert main(["data", "verify", str(copy)]) == 1
    assert "addertrain data verify --adopt" in capsys.readouterr().err
    assert main(["data", "verify", "--adopt", str(copy)]) == 0
    assert json.loads(side_path(copy).read_text())["count"] == 45
    assert "adopted, 45 images of 5 classes" in capsys.readouterr().out


@pytest.mark.distributed
def test_pictures_left_out_are_listed(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (few / "class_0" / "001.jpg").write_bytes(b"no picture")
    words = ["data", "write", str(few), str(tmp_path / "small.beton"), "--workers", "1"]
    assert main(words) == 1
    assert (
        "got 1 of 6 that cannot: class_0/001.jpg (expected an image, got 10 bytes"
        in capsys.readouterr().err.splitlines()[-1]
    )
    assert main([*words, "--skip-bad"]) == 0
    assert "left out   1 that could not be stored\n           class_0/001.jpg: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ([], 2, "the following arguments are required: write|verify|info"),
        (["write", "nowhere", "x.beton"], 1, "expected a folder with one folder of images per class"),
        (["write", "nowhere", "x.ffcv"], 2, "expected an output file that ends in .beton"),
        (["write", "torchvision:Nothing", "x.beton"], 1, "name of a class of torchvision.datasets"),
        (
            ["write", "nowhere", "x.beton", "--page-mib", "12"],
            2,
            "expected a power of two from 1 to 2048, got '12'",
        ),
        (
            ["write", "nowhere", "x.beton", "--background", "whyte"],
            2,
            "expected a colour such as black or #ff8000",
        ),
        (["write", "nowhere", "x.beton", "--white", "-1"], 2, "expected a number above 0, got '-1'"),
        (["write", "nowhere", "x.beton", "--workers", "\u00b2"], 2, "of 1 or more, got '\u00b2'"),
        (["write", "nowhere", "x.beton", "--workers", "0"], 2, "of 1 or more, got '0'"),
        (["verify", "x.beton", "--threads", "0"], 2, "of 1 or more, got '0'"),
        (["write", "nowhere", "x.beton", "--proportion", "half"], 2, "a number of 0 or more, got 'half'"),
        (["verify", "x.beton", "--threads", "many"], 2, "expected a whole number of 1 or more, got 'many'"),
        (["info", "nowhere.beton"], 1, "expected a .beton file, got none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    words: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
