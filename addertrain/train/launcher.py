"""Reads the variables that a launcher such as torchrun sets for its processes; imports no framework."""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launcher_variables() -> tuple[int, ...] | None:
    """The values of `VARIABLES`; None unless all of them are set to consistent integers.

    A shell may contain some of them for other reasons, which does not make a process a rank.
    """
    try:
        rank, size, local_rank, local_size = values = tuple(int(os.environ[name]) for name in VARIABLES)
    except (KeyError, ValueError):
        return None
    is_possible = 0 <= rank < size and 0 <= local_rank < local_size <= size
    return values if is_possible else None
