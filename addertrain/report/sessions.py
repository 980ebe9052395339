"""The sessions of a run, and the command that reproduces it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from addertrain.train.session import SESSIONS

Session = Mapping[str, Any]

# Options of this machine, or of where a run resumed, which another machine has to choose itself.
_LOCAL = ("--out", "--data.root", "--resume")


def sessions_of(path: Path, manifest: Mapping[str, Any]) -> tuple[Session, ...]:
    """The sessions that led to a run's checkpoint, the first one first.

    Earlier versions recorded them only in environment.json, including those that saved nothing.
    """
    sessions = manifest.get(SESSIONS)
    if sessions is None:
        try:
            sessions = json.loads((path / "environment.json").read_text(encoding="utf-8"))[SESSIONS]
        except (OSError, ValueError, LookupError, TypeError):
            return ()
    is_list = isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions)
    return tuple(sessions) if is_list else ()


def command_of_run(path: Path, sessions: Sequence[Session]) -> str:
    """The last command that did more than resume from the run's own recipe.yaml, in a form that others can
    repeat.
    """
    commands = [_words(session) for session in sessions]
    own = Path(path.resolve().name) / "recipe.yaml"
    is_own = [any(Path(*Path(word).parts[-2:]) == own for word in words) for words in commands]
    for session, words, goes_on in reversed(list(zip(sessions, commands, is_own, strict=True))):
        if words and (not goes_on or all(is_own)):
            return repeatable_command(session)
    return ""


def repeatable_command(session: Session) -> str:
    """A session's command without this machine's folders and with its launcher."""
    program, *rest = _words(session) or [""]
    if not program:
        return ""
    if Path(program).name != "addertrain" and not program.endswith("addertrain/__main__.py"):
        return "a Python program"
    kept = ["addertrain"]
    if session.get("launcher") == "torchrun":
        kept = ["launch/torchrun", *_ranks(session)]
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name in _LOCAL:
            del rest[: 0 if equals else 1]
        else:
            kept.append(_short(word) if word.endswith(".yaml") else word)
    return shlex.join(kept)


def _short(recipe: str) -> str:
    """A recipe's path from recipes/ on, or only its file name if it is elsewhere."""
    if "/recipes/" in recipe:
        return recipe[recipe.index("recipes/") :]
    return str(Path(*Path(recipe).parts[-2:])) if recipe.startswith("/") else recipe


def _words(session: Session) -> list[str]:
    try:
        return shlex.split(session.get("command", ""))
    except (ValueError, AttributeError):  # an earlier version lost the quotes
        return []


def _ranks(session: Session) -> list[str]:
    size, machines = session.get("world_size", 1), session.get("num_nodes", 1)
    words = ["--nproc-per-node", str(size // machines)]
    return words if machines == 1 else [*words, "--nnodes", str(machines), "--rdzv-endpoint", "HOST"]
