"""Reads pickles of arrays and plain values without running any code that they name."""

import io
import pickle
from typing import Any


class UnsafePickle(ValueError):
    """Something in a pickle that is neither an array nor a plain value, or bytes that are no pickle."""


# What numpy of any version needs to make an array: module (old and new name) and callable.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses every name that arrays do not need."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UnsafePickle(f"a pickle that calls {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(content: bytes) -> Any:
    """Dictionaries, lists, numbers, text and numpy arrays; Python 2's text becomes text, byte by byte.

    Raises:
        UnsafePickle: anything else.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except UnsafePickle:
        raise
    except Exception as error:  # a damaged pickle raises whatever the damage leads to
        raise UnsafePickle(f"an incomplete pickle ({type(error).__name__})") from None
