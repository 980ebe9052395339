"""The files of a run besides its checkpoints: the recipe, the environment, the result."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from addertrain.checkpoint.store import FOLDER, CheckpointStore
from addertrain.durable import write_text
from addertrain.errors import RunError, UsageError
from addertrain.recipe import Recipe, RecipeError, load_recipe, parse_recipe, recipe_to_yaml
from addertrain.train.session import SESSIONS


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a run, as in `summary.json`; top1 and top5 in percent, the hash over all weights.

    `steps` includes skipped ones; `skipped_steps` and `rollbacks` count numerical faults.
    `checkpoint` is the name of the one that was evaluated; `sessions` are the sessions of the run, and
    `strategy` is that of the last one.
    """

    top1: float
    top5: float
    loss: float
    epochs: int
    steps: int
    images_per_second: float
    seconds: float
    world_size: int
    seed: int
    recipe: str
    weights_sha256: str
    skipped_steps: int = 0
    rollbacks: int = 0
    checkpoint: str = ""
    strategy: str = ""
    sessions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def store(self) -> CheckpointStore:
        """Its checkpoints."""
        return CheckpointStore(self.path / FOLDER)

    @property
    def is_bound(self) -> bool:
        """Whether a run has saved something here; one that ended earlier leaves the folder free."""
        return (self.path / "summary.json").exists() or bool(self.store.newest_first())

    def read_recipe(self) -> Recipe | None:
        """The resolved recipe of the run, if one has been written."""
        return load_recipe(self._recipe) if self._recipe.exists() else None

    def check_names_are_free(self) -> None:
        """Makes sure that `open` will only replace files of a run.

        Raises:
            UsageError: there is a file of that name that no run wrote.
        """
        files = ((self._environment, self._is_own_environment()), (self._recipe, self._is_own_recipe()))
        for file, is_own in files:
            if file.exists() and not is_own:
                raise UsageError(
                    f"{file}: expected no such file, or one of a run, got another file; rename it, or "
                    "choose another --out"
                )

    def read_summary(self) -> Summary | None:
        """The result, if the run has finished.

        Raises:
            RunError: there is a file, but it is not a summary.
        """
        file = self.path / "summary.json"
        if not file.exists():
            return None
        try:
            plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            known: dict[str, Any] = {
                key: math.nan if value is None else value for key, value in plain.items()
            }
            return Summary(**known)
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{file}: expected the summary of a run, got something else ({error}); remove the file"
            ) from None

    def open(self, recipe: Recipe, session: dict[str, Any]) -> None:
        """Writes the recipe and adds a session to the environment, before the first step.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            self.store.sweep()
            self._add_session(session)
            if not self._has_comments_on(recipe):
                write_text(self._recipe, recipe_to_yaml(recipe))
        except OSError as error:
            raise RunError(
                f"{self.path}: expected a folder that can be written, got: {error.strerror}; "
                "choose another --out"
            ) from None

    def write_summary(self, summary: Summary) -> None:
        """Writes the result, the last file of a run; NaN becomes null, because JSON has no NaN."""
        plain = {
            key: value if not isinstance(value, float) or math.isfinite(value) else None
            for key, value in asdict(summary).items()
        }
        write_text(self.path / "summary.json", json.dumps(plain, indent=1) + "\n")

    @property
    def _recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def _environment(self) -> Path:
        return self.path / "environment.json"

    def _sessions(self) -> list[Any] | None:
        """The sessions so far; None if environment.json is missing or is not a run's."""
        try:
            sessions = json.loads(self._environment.read_text(encoding="utf-8"))[SESSIONS]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return sessions if isinstance(sessions, list) else None

    def _is_own_environment(self) -> bool:
        return self._sessions() is not None

    def _is_own_recipe(self) -> bool:
        """Whether recipe.yaml is a run's: there are sessions, or it looks as `open` writes it."""
        if self._is_own_environment():
            return True
        try:
            text = self._recipe.read_text(encoding="utf-8")
            return text == recipe_to_yaml(parse_recipe(text, source=str(self._recipe)))
        except (OSError, ValueError):
            return False

    def _has_comments_on(self, recipe: Recipe) -> bool:
        """Whether recipe.yaml has the same values as `recipe`, perhaps with comments or another layout."""
        try:
            return load_recipe(self._recipe) == recipe
        except RecipeError:
            return False

    def _add_session(self, session: dict[str, Any]) -> None:
        """Adds a session to environment.json, because a resumed run may have other versions or another
        machine.
        """
        sessions = [*(self._sessions() or []), session]
        write_text(self._environment, json.dumps({SESSIONS: sessions}, indent=1) + "\n")
