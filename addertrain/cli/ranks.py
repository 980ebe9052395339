"""Which process of a launcher speaks for the others."""

from addertrain.train.launcher import launcher_variables


def rank() -> int:
    """This process's number among all of them; 0 where no launcher has started it."""
    values = launcher_variables()
    return values[0] if values else 0


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return launcher_variables() is not None


def is_first_rank() -> bool:
    """Whether this process speaks for all of them."""
    return rank() == 0


def is_first_of_machine() -> bool:
    """Whether this process speaks for those of its machine."""
    values = launcher_variables()
    return values is None or values[2] == 0
