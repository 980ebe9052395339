"""Lets all ranks learn at the same step that one of them wants to save or stop.

A collective that a rank waits for would delay its GPU at every step. One whose result is read a step later
does not, because it runs between the hosts during the step.
"""

import datetime
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor


class Agreement:
    """Exchanges flags between the ranks; every rank has to create it and call it the same number of times.

    Args:
        timeout_s: how long ranks wait for one of them; torch's default of half an hour would outlast the
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
        """Sends this rank's flags; returns those that any rank sent at the previous call.

        In a run of one process they are returned at once.
        """
        if self._group is None:
            return list(flags)
        agreed = [bool(flag) for flag in self._arrived().tolist()]
        for index, flag in enumerate(flags):
            self._bytes[index] = flag
        self._work = self._group.allreduce([self._flags], self._options)
        return agreed

    def close(self) -> None:
        """Waits for the last exchange, whose result is not read; the ranks may then leave the group."""
        self._arrived()

    def _arrived(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._flags


def _new_group(timeout_s: float) -> object:
    return dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))
