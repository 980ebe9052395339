"""Every error that a user can mend; each message is one line: what was expected, what came, what to do."""


class _OneLine(Exception):
    """Keeps the message on one line, whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RecipeError(_OneLine, ValueError):
    """A recipe that cannot be used."""


class CheckpointError(_OneLine, ValueError):
    """A checkpoint that is damaged, incomplete, or belongs elsewhere."""


class InterchangeError(_OneLine, ValueError):
    """A file of another format that is not what it should be, or a network that the format cannot hold."""


class DataError(_OneLine, ValueError):
    """Data that is missing or damaged."""


class PictureError(DataError):
    """One picture that cannot be used; `reason` says what was expected and what came, without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; replace it or leave it out")
        self.name, self.reason = name, " ".join(reason.split())


class ReadError(DataError):
    """A picture that cannot be read in the middle of an epoch; the other ranks read others and know nothing.

    `is_of_one_rank` tells the command line to print the error on every rank that has it.
    """

    is_of_one_rank = True


class RunError(_OneLine, RuntimeError):
    """A run that cannot start or go on."""


class UsageError(RunError):
    """A command that contradicts what is on disk or how the processes were started."""


class NonFiniteError(RunError):
    """A loss or a gradient that is NaN or infinite; the update it belongs to was not made."""


class GoBack(NonFiniteError):
    """Asks whoever trains for the last checkpoint and another order; `rollbacks` counts this one."""

    def __init__(self, message: str, rollbacks: int) -> None:
        super().__init__(message)
        self.rollbacks = rollbacks


class OutOfMemory(RunError):
    """An allocator, a GPU's or the host's, has no more to give; often one rank's alone."""

    is_of_one_rank = True


class LostRankError(RunError):
    """Another rank ended, or did not answer in time; this rank is healthy."""


class SavedAfterSignal(RunError):
    """The run saved and ended because a signal asked for it; starting it again resumes."""
