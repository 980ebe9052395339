"""Files for people who use or change the project: citation, issue forms, and the public workflow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from addertrain import __version__
from tests.source_tree import ROOT

GITHUB = ROOT / ".github"
FILES = [*sorted(GITHUB.rglob("*.yml")), ROOT / "CITATION.cff"]


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _commands(workflow: dict[str, Any]) -> Iterator[str]:
    for job in workflow["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_a_yaml_mapping(path: Path) -> None:
    assert isinstance(_read(path), dict)


def test_citation_is_of_this_version() -> None:
    citation = _read(ROOT / "CITATION.cff")

    assert citation["version"] == __version__
    assert citation["authors"] == [{"name": "The addertrain developers"}]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires


def test_public_workflow_runs_what_a_developer_runs() -> None:
    commands = list(_commands(_read(GITHUB / "workflows" / "ci.yml")))
    named = [word for command in commands for word in command.split() if word.startswith((".ci/", "launch/"))]

    assert any(command.startswith("bash .ci/run") for command in commands), commands
    assert all((ROOT / name).is_file() for name in named), named


@pytest.mark.parametrize(
    "path", sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_issue_form_asks_for_the_versions(path: Path) -> None:
    form = _read(path)
    (version,) = [field for field in form["body"] if field.get("id") == "version"]

    assert {"name", "description", "body"} <= set(form)
    assert "`addertrain --version --full`" in version["attributes"]["label"]
    identifiers = [field["id"] for field in form["body"] if "id" in field]
    assert len(identifiers) == len(set(identifiers)) >= 2
