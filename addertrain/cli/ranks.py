"""Which process of a launcher speaks for all of them."""

import os


def is_first_rank() -> bool:
    """Whether this process speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"
