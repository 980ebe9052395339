"""Every error that a user can fix; its message is one line: what was expected, what came, what to do."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, otherwise: str) -> str:
    """The advice for a misspelt word: "did you mean NAME?", or `otherwise` if no known name is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


class _OneLine(Exception):
    """An error whose message is kept on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RecipeError(_OneLine, ValueError):
    """A recipe that cannot be used."""


class CheckpointError(_OneLine, ValueError):
    """A checkpoint that is damaged, incomplete, or of another run."""


class InterchangeError(_OneLine, ValueError):
    """A file of another program that cannot be read, or a network that the file format cannot represent."""


class DataError(_OneLine, ValueError):
    """Data that is missing or damaged."""


class PictureError(DataError):
    """An image that cannot be used; `reason` says what was expected and what came, without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; replace it or leave it out")
        self.name, self.reason = name, " ".join(reason.split())


class ReadError(DataError):
    """An image that cannot be read during an epoch; other ranks read other images and do not meet the error.

    `is_of_one_rank` makes the command line print the error on every rank that has it.
    """

    is_of_one_rank = True


class RunError(_OneLine, RuntimeError):
    """A run that cannot start or continue."""


class UsageError(RunError):
    """A command that contradicts what is on disk or how the processes were started."""


class NonFiniteError(RunError):
    """A loss or a gradient that is NaN or infinite; its optimizer step was not made."""


class GoBack(NonFiniteError):
    """Asks the training loop to roll back to the last checkpoint; `rollbacks` includes this one."""

    def __init__(self, message: str, rollbacks: int) -> None:
        super().__init__(message)
        self.rollbacks = rollbacks


class OutOfMemory(RunError):
    """A GPU or the host is out of memory, often on one rank only."""

    is_of_one_rank = True


class LostRankError(RunError):
    """Another rank ended, or did not answer in time; this rank is healthy."""


class SavedAfterSignal(RunError):
    """The run saved and ended because a signal asked for it; starting it again resumes."""
