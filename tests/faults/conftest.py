"""The finished run that training's tests look at, too."""

from tests.train.conftest import finished

__all__ = ["finished"]
