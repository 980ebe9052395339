"""The one error of checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that is damaged, incomplete, or belongs elsewhere; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
