"""What proving ResNet-50's kernels costs on a GPU, counted: no GPU is asked."""

from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from addertrain.bench import roofline
from addertrain.models import build_model
from addertrain.proof import CompiledOperators, ProvenLayer, layers_of
from addertrain.proof.trials import trials_of

LAUNCH_SECONDS = 10e-6
"""Of an operator called from Python, which is what the reference waits for, not a GPU."""


class _Launches(TorchDispatchMode):
    """Counts operators, and the bytes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.bytes = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count += 1
        if isinstance(result, torch.Tensor):
            self.bytes += result.nbytes
        return result


def _launches_and_bytes(layer: ProvenLayer) -> tuple[int, int]:
    """Of a layer's trials as on a GPU, on three images; each is run twice."""
    operators = CompiledOperators(torch.device("cpu"))
    operators.has_sums = operators.saturates = True
    few = replace(layer, forward_images=3, gradient_images=3)
    with torch.no_grad(), _Launches() as launches:
        for trial in trials_of(few, operators, with_int8=True):
            trial.run(), trial.run(), trial.answers()
    return launches.count, launches.bytes


def test_the_proof_of_resnet50_is_a_matter_of_three_seconds() -> None:
    with torch.device("meta"):
        model = build_model("resnet50", kind="adder", num_classes=1000)
    layers = layers_of(
        model, (3, 224, 224), images=128, autocast=None, channels_last=True, device_type="cuda"
    )
    largest = min(layers, key=lambda layer: layer.C * layer.O)  # the launches are the same for every width
    num_launches, num_bytes = _launches_and_bytes(largest)
    images = max(largest.forward_images, largest.gradient_images)

    def elements(layer: ProvenLayer, images: int) -> int:
        p, q = layer.output
        return images * p * q * layer.O * layer.C * layer.R * layer.S

    # Response, sums, evaluation and bytes; both gradients; everything twice.
    passes = sum(
        8 * elements(layer, layer.forward_images) + 4 * elements(layer, layer.gradient_images)
        for layer in layers
    )
    ceiling = roofline.MULTIPROCESSORS * roofline.LANES * roofline.CLOCK_HZ / 2
    kernels_s = passes / (roofline.in_sum("resnet50", 128, "float32", "grad_input") * ceiling)
    launches_s = len(layers) * num_launches * LAUNCH_SECONDS
    memory = roofline.MEMORY_BYTES_PER_CLOCK * roofline.CLOCK_HZ
    moved_s = 3 * len(layers) * num_bytes * images / 3 / memory  # what is written, and read for it

    print(f"{num_launches} operators a layer; s: {kernels_s:.2f}, {launches_s:.2f}, {moved_s:.2f}")
    assert kernels_s < 0.2
    assert kernels_s + launches_s + moved_s < 3.0
