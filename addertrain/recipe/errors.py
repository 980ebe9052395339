"""The one error a recipe can raise."""


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one line: what was expected, what came, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
