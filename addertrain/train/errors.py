"""The errors of a run that a user can mend; each message is one line."""


class RunError(RuntimeError):
    """A run that cannot start or go on: what was expected, what came, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


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
    """Another rank ended, or did not answer in time; this one is well."""


class SavedAfterSignal(RunError):
    """The run saved and ended because a signal asked for it; starting it again resumes."""
