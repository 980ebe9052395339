"""What a launcher such as torchrun says to the processes that it starts; knows no framework."""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def launcher_variables() -> tuple[int, ...] | None:
    """The values of `VARIABLES`; None where they are not all there, and whole numbers that go together.

    Half of them, as a shell may have kept them from something else, make no rank of a process.
    """
    try:
        rank, size, local_rank, local_size = values = tuple(int(os.environ[name]) for name in VARIABLES)
    except (KeyError, ValueError):
        return None
    is_possible = 0 <= rank < size and 0 <= local_rank < local_size <= size
    return values if is_possible else None
