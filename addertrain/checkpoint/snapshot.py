"""Copies of live tensors, so that a thread can write them while training changes the originals."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def snapshot(
    tensors: Mapping[str, Mapping[str, Tensor]],
) -> tuple[dict[str, dict[str, Tensor]], Callable[[], None]]:
    """Copies of the tensors in host memory, and a function to call before they are read.

    From a GPU the copies are made to pinned memory, in the order of its stream: later steps do not touch
    them, and the host does not wait for them here.
    """
    copies = {
        file: {name: _copy(tensor) for name, tensor in contents.items()} for file, contents in tensors.items()
    }
    devices = {t.device for contents in tensors.values() for t in contents.values() if t.is_cuda}
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return copies, wait


def _copy(tensor: Tensor) -> Tensor:
    # torch keeps pinned memory for the next snapshot; making it takes longer than filling it.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
