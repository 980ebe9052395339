"""Which process of a launcher speaks for the others."""

import os


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return "RANK" in os.environ


def is_first_rank() -> bool:
    """Whether this process speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


def is_first_of_machine() -> bool:
    """Whether this process speaks for those of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
