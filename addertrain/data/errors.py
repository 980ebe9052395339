"""The errors that data can raise."""


class DataError(ValueError):
    """Data that is missing or damaged; the message is one line: what was expected, what came, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class PictureError(DataError):
    """One picture that cannot be used; `reason` says what was expected and what came, without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; replace it or leave it out")
        self.name, self.reason = name, " ".join(reason.split())


class ReadError(DataError):
    """A picture that cannot be read in the middle of an epoch; the other ranks read others and know nothing.

    `is_of_one_rank` tells the command line not to leave the word to the first rank.
    """

    is_of_one_rank = True
