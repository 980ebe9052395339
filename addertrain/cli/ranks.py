"""Decides which of the processes that a launcher started prints for all of them."""

from addertrain.train.launcher import launcher_variables


def rank() -> int:
    """The rank of this process; 0 if no launcher started it."""
    values = launcher_variables()
    return values[0] if values else 0


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return launcher_variables() is not None


def is_first_rank() -> bool:
    """Whether this process prints for all ranks."""
    return rank() == 0


def is_first_of_machine() -> bool:
    """Whether this process prints for the ranks of its machine."""
    values = launcher_variables()
    return values is None or values[2] == 0
