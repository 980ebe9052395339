"""Estimates the memory of one rank from the shapes of the tensors of a step; nothing is computed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from addertrain.data import ImageData
from addertrain.recipe import OptimRecipe, Recipe
from addertrain.train.autocast import AUTOCAST
from addertrain.train.building import initial_network
from addertrain.train.loss import checked_logits
from addertrain.train.normalisation import normalised, scale_and_shift

_FLOAT_BYTES = 4
# Which of momentum, gradients and parameters a strategy cuts over the ranks.
_CUT = {
    "zero1": {"momentum"},
    "zero2": {"momentum", "gradients"},
    "zero3": {"momentum", "gradients", "parameters"},
    "fsdp": {"momentum", "gradients", "parameters"},
}


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank; activations are what a micro-batch saves for the backward pass."""

    parameters: int
    gradients: int
    momentum: int
    buffers: int
    activations: int

    @property
    def total(self) -> int:
        """The sum; the allocator, cuDNN's workspaces and the loader are not included."""
        return self.parameters + self.gradients + self.momentum + self.buffers + self.activations


def estimate_memory(
    recipe: Recipe, data: ImageData, *, image_shape: tuple[int, int, int], batch_size: int, world_size: int
) -> Memory:
    """Follows one forward pass over `batch_size` images with tensors that only have shapes; without a
    teacher.
    """
    saved = _SavedBytes()
    dtype = AUTOCAST[recipe.train.precision]
    with torch.device("meta"):  # as before a run; fake tensors answer fewer questions of a network's own code
        model = initial_network(
            recipe,
            num_classes=data.num_classes,
            in_channels=len(data.mean),
            steps_per_epoch=1,
            to_train=False,
        )
    with FakeTensorMode(allow_non_fake_inputs=True):
        scale, shift = scale_and_shift(data.mean, data.std)
        _to_processor(model)
        numel = sum(param.numel() for param in model.parameters())
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
        saved.ignore(model.parameters())
        images = torch.empty(batch_size, *image_shape, dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        with (
            torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor),
            torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            checked_logits(model(normalised(images, scale, shift, channels_last=recipe.train.channels_last)))
    cut = _CUT.get(recipe.train.strategy, set())
    share = {name: -(-numel // world_size) if name in cut else numel for name in ("parameters", "gradients")}
    momentum = -(-numel // world_size) if "momentum" in cut else numel
    return Memory(
        parameters=_FLOAT_BYTES * share["parameters"],
        gradients=_FLOAT_BYTES * share["gradients"],
        momentum=_FLOAT_BYTES * momentum * _state_tensors(recipe.optim),
        buffers=buffers,
        activations=saved.bytes,
    )


def _state_tensors(optim: OptimRecipe) -> int:
    """How many tensors of a parameter's size the optimizer keeps."""
    return {"sgd": int(optim.momentum > 0), "adamw": 2, "lion": 1, "muon": 1}[optim.name]


def _to_processor(model: nn.Module) -> None:
    """Replaces the tensors of a network on the meta device by ones that claim to be on the CPU; shared
    ones stay so.
    """
    twins: dict[Tensor, Tensor] = {}
    for module in model.modules():
        own: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for held in own:
            for name, tensor in held.items():
                if not isinstance(tensor, Tensor):
                    continue
                if tensor not in twins:
                    twin = torch.empty_strided(
                        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
                    )
                    is_parameter = isinstance(tensor, nn.Parameter)
                    twins[tensor] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
                held[name] = twins[tensor]


class _SavedBytes:
    """Adds up what autograd saves, each storage once; parameters are counted elsewhere."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # a storage that is gone could give its address to the next one

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self._new(tensor)

    def note(self, tensor: Tensor) -> Tensor:
        if self._new(tensor):
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor

    def _new(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen:
            return False
        self._seen.add(storage._cdata)
        self._kept.append(storage)
        return True
