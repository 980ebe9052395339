"""The one error of reading and writing others' formats."""


class InterchangeError(ValueError):
    """A file that is not what it should be; one line: what was expected, what came, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
