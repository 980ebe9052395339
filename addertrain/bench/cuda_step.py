"""`addertrain bench step --device cuda`: a training step on a GPU, in images/s, and where its time goes."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch

from addertrain.bench.gpu import require_gpu

_KERNELS = {
    "norm": ("adder_norm", "batch_norm", "bn_fw", "bn_bw", "batchnorm"),
    "adder": ("adder_",),
    "convolution": ("convolve", "conv", "wgrad", "cutlass", "gemm", "xmma", "cudnn"),
}
"""Parts of kernels' names, the first that matches; filter gradients are the library's convolutions."""


def part_of(kernel: str) -> str:
    """The phase of a step to which a GPU kernel belongs, by its name."""
    name = kernel.lower()
    return next((part for part, words in _KERNELS.items() if any(word in name for word in words)), "other")


def split_of(step: Callable[[], object], *, steps: int = 3) -> dict[str, float]:
    """Milliseconds of GPU time that a step spends in each part, by torch's profiler."""
    step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    spent: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        spent[part_of(event.key)] += event.self_device_time_total / 1000 / steps
    return dict(spent)


def report(name: str, batch: int, median_s: float, split_ms: Mapping[str, float]) -> str:
    """One line: images/s, and the parts of a step."""
    total = sum(split_ms.values()) or 1.0
    parts = ", ".join(
        f"{part} {ms:.2f} ms ({100 * ms / total:.0f} %)"
        for part, ms in sorted(split_ms.items(), key=lambda p: -p[1])
    )
    return f"{name}: {batch / median_s:.0f} images/s, {1000 * median_s:.2f} ms per step; GPU time: {parts}"


def device() -> torch.device:
    """The current CUDA device. Raises RunError without one (`require_gpu`)."""
    require_gpu()
    return torch.device("cuda", torch.cuda.current_device())
