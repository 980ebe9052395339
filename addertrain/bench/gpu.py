"""The upper limit of a GPU at its current clock, and times measured by CUDA events."""

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from addertrain.bench.timing import Timing
from addertrain.errors import RunError

_LANES = 128
"""float32 instructions of a multiprocessor a clock, from compute capability 8.6 on (8.0 has half)."""
_BUSY_S = 0.5


@dataclass(frozen=True)
class Gpu:
    """A device and the limit of its float32 CUDA cores, at two instructions per element."""

    name: str
    multiprocessors: int
    lanes: int

    def ceiling(self, clock_ghz: float) -> float:
        """1e9 elements/s: multiprocessors x lanes x clock / 2."""
        return self.multiprocessors * self.lanes * clock_ghz / 2


def require_gpu() -> Gpu:
    """The current CUDA device.

    Raises:
        RunError: without one, or without the library that runs on it.
    """
    if not torch.cuda.is_available():
        raise RunError("bench: expected a GPU for --device cuda, got none; leave the option out")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("addertrain::adder2d", "CUDA"):
        raise RunError(
            "bench: expected the compiled CUDA library, got none; install nvcc and a CUDA build of torch, "
            "and run launch/setup"
        )
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    lanes = _LANES // 2 if (properties.major, properties.minor) == (8, 0) else _LANES
    return Gpu(properties.name, properties.multi_processor_count, lanes)


def clock_under(load: Callable[[], object]) -> float:
    """GHz of the multiprocessors, asked of nvidia-smi while calls of `load` are queued and running."""
    for _ in range(3):
        load()
    torch.cuda.synchronize()
    start = time.perf_counter()
    load()
    torch.cuda.synchronize()
    one_s = max(time.perf_counter() - start, 1e-5)
    for _ in range(min(10_000, int(_BUSY_S / one_s) + 1)):
        load()
    device = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    query = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", f"--id=GPU-{device}"]
    answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    torch.cuda.synchronize()
    return float(answer.strip()) / 1000


def interleaved_on_gpu(
    calls: Mapping[str, Callable[[], object]], *, seconds: float, rounds: int = 5
) -> dict[str, Timing]:
    """Seconds of every call between two events on the current stream, in turn, round after round.

    Between two turns a buffer larger than the second-level cache is written, so that each starts cold.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    torch.cuda.synchronize()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < rounds:
        for name, call in calls.items():
            flush.zero_()
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            last.synchronize()
            taken[name].append(first.elapsed_time(last) / 1000)
    return {name: Timing(statistics.median(times), min(times)) for name, times in taken.items()}
