"""The state that a training pass changes besides gradients (statistics and counts), so that it can be
restored.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from addertrain.train.module import AdderClassifier


class ForwardState:
    """A copy of the module's buffers and of its training counts, as they are now."""

    def __init__(self, module: AdderClassifier) -> None:
        counts = module.train_counts.tensors if module.train_counts is not None else []
        self._live = [*module.buffers(), *counts]
        self._kept = [tensor.clone() for tensor in self._live]

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores the state."""
        torch._foreach_copy_(self._live, self._kept)

    @torch.no_grad()
    def put_back_unless(self, is_sound: Tensor) -> None:
        """Restores the state if the flag is false, bit for bit, without a host sync on GPUs."""
        if is_sound.device.type == "cpu":
            if not is_sound:
                self.put_back()
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in self._live):
            chosen = [index for index, tensor in enumerate(self._live) if tensor.dtype == dtype]
            live, kept = [self._live[index] for index in chosen], [self._kept[index] for index in chosen]
            right = torch.where(is_sound, _flat(live), _flat(kept))  # a few launches, however many norms
            parts = right.split([tensor.numel() for tensor in live])
            torch._foreach_copy_(
                live, [part.view(tensor.shape) for part, tensor in zip(parts, live, strict=True)]
            )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
