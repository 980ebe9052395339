"""Filters in the kernels' order, kept by a module in evaluation so that its calls need not pack them.

They are no state of the module: checkpoints, copies and pickled modules do without them, because another
processor may read another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing  # torch.jit does not declare it


class KeptPacking:
    """pack(weight) of one module, computed in its first call and again after its weight changed.

    A weight has changed if it is another tensor (as after `module.to`), if it lies elsewhere, or if it was
    written in place (as by `load_state_dict`). torch does not tell what is written through `weight.data` or
    through a numpy array that shares its memory: assign a new tensor instead.
    """

    def __init__(self, pack: Callable[[Tensor], Tensor]) -> None:
        self._pack = pack
        self._kept: tuple[Tensor, int, int, Tensor] | None = None

    def of(self, weight: Tensor) -> Tensor:
        """The packed filters of `weight`."""
        # A graph packs for itself, a tensor of inference mode does not tell that it was written, and a tensor
        # of another class may hold nothing.
        is_plain = type(weight) in (Tensor, nn.Parameter) and not weight.is_inference()
        if not is_plain or torch.compiler.is_compiling() or is_tracing():
            return self._pack(weight)
        kept, state = self._kept, _state_of(weight)  # read once: another thread may replace it
        if kept is not None and kept[0] is weight and kept[1:3] == state:
            return kept[3]
        # The state is that before packing: the next call packs what another thread has written meanwhile.
        with torch.inference_mode(False):
            packed = self._pack(weight)
        # The reference packs nothing on CPUs, and compiled kernels may serve the next call.
        if type(packed) is Tensor and (packed.numel() > 0 or not weight.is_cpu):
            self._kept = (weight, *state, packed)
        return packed

    def __reduce__(self) -> tuple[type["KeptPacking"], tuple[Callable[[Tensor], Tensor]]]:
        return KeptPacking, (self._pack,)


def _state_of(weight: Tensor) -> tuple[int, int]:
    return weight._version, weight.data_ptr()
