"""Going back to the last checkpoint after a numerical fault, as often as the guard asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from addertrain.checkpoint.store import CheckpointStore
from addertrain.errors import GoBack
from addertrain.train.processes import on_first_rank

Result = TypeVar("Result")


def with_rollbacks(
    train: Callable[[Path | None, int], Result],
    start: Path | None,
    store: CheckpointStore,
    warn: Callable[[str], None],
) -> Result:
    """What `train` returns in the end; every rank has to call this.

    Args:
        train: trains from a checkpoint (None: from new weights); its second argument counts the rollbacks.
            What is left of the epoch has to come in another order for every count.
        start: the first one.
        warn: is told of every rollback, on the first rank.
    """
    checkpoint, rollbacks = start, 0
    while True:
        try:
            return train(checkpoint, rollbacks)
        except GoBack as fault:
            rollbacks, message = fault.rollbacks, str(fault)
        # Outside of the handler: the error holds on to the whole training that is left behind.
        on_first_rank(lambda message=message: warn(message))  # type: ignore[misc]
        checkpoint = on_first_rank(lambda: store.newest_whole(warn))
