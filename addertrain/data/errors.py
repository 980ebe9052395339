"""The one error that data can raise."""


class DataError(ValueError):
    """Data that is missing or damaged; the message is one line: what was expected, what came, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
