"""What all ranks learn at the same step about wishes that one of them may have: to save, to stop.

A collective that a rank waits for would hold up its GPU at every step. One whose result is read a step later
does not: it runs beside the step, between the processors, and is over by then.
"""

import datetime
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor


class Agreement:
    """Exchanges flags between the ranks; all of them make it, and call it, the same number of times.

    Args:
        timeout_s: how long a rank may keep the others waiting; torch's own half an hour would outlast the
            time-out of the steps.
    """

    def __init__(self, num_flags: int, *, timeout_s: float = 600.0) -> None:
        is_shared = dist.is_initialized() and dist.get_world_size() > 1
        # gloo's, whatever the run's is: NCCL would bring the flags onto the GPU and its stream.
        self._group = cast(dist.ProcessGroup, _new_group(timeout_s)) if is_shared else None
        self._flags = torch.zeros(num_flags, dtype=torch.uint8)
        self._bytes = self._flags.numpy()  # the same memory, ten times as fast to write
        self._work: dist.Work | None = None
        # The group's own method: torch.distributed.all_reduce spends twice as long around it.
        self._options = dist.AllreduceOptions()
        self._options.reduceOp = dist.ReduceOp.MAX

    def exchange(self, *flags: bool) -> list[bool]:
        """Hands this rank's flags in; returns those that some rank handed in at the call before this one.

        In a run of one process they come back at once.
        """
        if self._group is None:
            return list(flags)
        agreed = [bool(flag) for flag in self._arrived().tolist()]
        for index, flag in enumerate(flags):
            self._bytes[index] = flag
        self._work = self._group.allreduce([self._flags], self._options)
        return agreed

    def close(self) -> None:
        """Waits for the last exchange, which nobody reads; the ranks may then leave the group."""
        self._arrived()

    def _arrived(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._flags


def _new_group(timeout_s: float) -> object:
    return dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))
