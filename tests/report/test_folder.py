"""The folder of a report: what an earlier report wrote is replaced, what somebody else wrote is not."""

import json
from pathlib import Path

import pytest

from addertrain.errors import UsageError
from addertrain.report.folder import check_folder, write_folder


def _files(*names: str, made: str = "addertrain 1, from 1 run(s) of x") -> dict[str, bytes]:
    all_names = ["index.html", "report.md", "report.json", *names]
    record = json.dumps({"made": made, "sections": [], "files": all_names}).encode()
    return {name: record if name == "report.json" else name.encode() for name in all_names}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_report_replaces_the_earlier_ones_files_and_no_others(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_folder(out, _files("a.png", "b.png"))
    (out / "my_notes.md").write_text("mine")
    (out / "figures").mkdir()

    check_folder(out)
    write_folder(out, _files("b.png", "c.png"))

    assert _names(out) == {*_files("b.png", "c.png"), "my_notes.md", "figures"}
    assert (out / "my_notes.md").read_text() == "mine"
    assert _names(tmp_path) == {"report"}


def test_a_file_of_the_users_under_a_reports_name_is_not_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path, _files())
    (tmp_path / "curves.png").write_bytes(b"mine")

    with pytest.raises(UsageError, match=r"curves\.png: expected no such file"):
        write_folder(tmp_path, _files("curves.png"))

    assert (tmp_path / "curves.png").read_bytes() == b"mine"
    assert _names(tmp_path) == {*_files(), "curves.png"}


def test_a_report_of_an_earlier_version_is_known_by_its_pictures(tmp_path: Path) -> None:
    sections = [{"pictures": [{"file": "a.png"}]}]
    old = {"made": "addertrain 0.0.9, from 1 run(s)", "sections": sections}
    (tmp_path / "report.json").write_text(json.dumps(old))
    for name in ("index.html", "report.md", "a.png", "a.svg", "b.svg"):
        (tmp_path / name).write_text("old")

    write_folder(tmp_path, _files())

    assert _names(tmp_path) == {*_files(), "b.svg"}


@pytest.mark.parametrize(
    "text", ['{"tests": []}', "[]", "not JSON", '{"made": "another tool", "sections": []}', '{"made": 3}']
)
def test_a_report_json_of_another_tool_makes_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(UsageError, match="expected a new folder or an earlier report, got other files"):
        check_folder(tmp_path)


def test_the_working_folder_and_a_link_are_folders_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    monkeypatch.chdir(target)
    for out in (Path("."), link, link):
        check_folder(out)
        write_folder(out, _files("a.png"))

    assert link.is_symlink()
    assert _names(target) == set(_files("a.png"))
    assert _names(tmp_path) == {"target", "link"}


def test_a_link_to_nothing_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="got a broken link"):
        check_folder(tmp_path / "link")
    with pytest.raises(UsageError, match="got a file"):
        check_folder(tmp_path / "file")
