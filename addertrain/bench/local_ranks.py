"""Times training steps on several ranks of this machine, with communication and computation separated."""

import math
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from addertrain.bench.projection import BUCKET_BYTES
from addertrain.bench.step import CASES, training_step
from addertrain.errors import RunError
from addertrain.nn import param_groups
from addertrain.optim import AdderSGD


@dataclass(frozen=True)
class LocalTimes:
    """Median seconds on `num_ranks` ranks: a step, one without communication, the all-reduce by itself."""

    num_ranks: int
    step: float
    compute: float
    all_reduce: float
    gradient_bytes: int

    @property
    def exposed(self) -> float:
        """What communication adds to a step."""
        return self.step - self.compute


def measure_ranks(network: str, num_ranks: int, *, batch: int, threads: int, seconds: float) -> LocalTimes:
    """Starts the ranks, each with `batch` images, and returns the first one's times.

    Raises:
        RunError: a rank failed; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")  # CUDA and OpenMP do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        ranks = [
            context.Process(
                target=_rank, args=(rank, num_ranks, folder, network, batch, threads, seconds, answers)
            )
            for rank in range(num_ranks)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            codes = [process.exitcode for process in ranks]
            raise RunError(
                f"bench scaling: expected {num_ranks} ranks to exit with code 0, got exit codes {codes}; "
                "see the output above, and try fewer ranks or a smaller --batch"
            )
        times: LocalTimes = answers.get()
        return times


def _rank(
    rank: int,
    num_ranks: int,
    folder: str,
    network: str,
    batch: int,
    threads: int,
    seconds: float,
    answers: object,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    has_cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank) if has_cuda else torch.device("cpu")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if has_cuda else "gloo", f"file://{Path(folder) / 'meet'}", rank=rank, world_size=num_ranks
    )
    times = measure(network, batch=batch, seconds=seconds, device=device)
    if rank == 0:
        answers.put(times)  # type: ignore[attr-defined]
    dist.destroy_process_group()


def measure(network: str, *, batch: int, seconds: float, device: torch.device) -> LocalTimes:
    """The times of this rank; every rank of the group calls it."""
    case = CASES[network]()
    c, h, w = case.image_chw
    model = case.adder.to(device).to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers gets another name in time
        wrapped = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=0.1)
    images = torch.randn(batch, h, w, c, device=device).permute(0, 3, 1, 2)
    labels = torch.randint(case.num_outputs, (batch,), device=device)
    gradient_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    buckets = [torch.zeros(size // 4, device=device) for size in _bucket_sizes(gradient_bytes)]

    def compute() -> None:
        with wrapped.no_sync():
            training_step(wrapped, optimizer, images, labels)

    medians = _in_turn(
        {
            "step": lambda: training_step(wrapped, optimizer, images, labels),
            "compute": compute,
            "all_reduce": lambda: _reduce_all(buckets),
        },
        seconds,
        device,
    )
    return LocalTimes(dist.get_world_size(), **medians, gradient_bytes=gradient_bytes)


def _bucket_sizes(gradient_bytes: int) -> list[int]:
    """Bytes of the buckets that DistributedDataParallel would cut."""
    num = math.ceil(gradient_bytes / BUCKET_BYTES)
    return [gradient_bytes // num] * num


def _reduce_all(buckets: list[Tensor]) -> None:
    for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
        assert work is not None
        work.wait()


def _in_turn(
    calls: dict[str, Callable[[], None]], seconds: float, device: torch.device, *, rounds: int = 5
) -> dict[str, float]:
    """Median wall-clock seconds; all ranks start every call together and agree on when to stop."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    is_over = torch.zeros(1, dtype=torch.int32, device=device)
    first = next(iter(taken))
    for call in calls.values():
        call()
    while len(taken[first]) < rounds or not is_over:
        for name, call in calls.items():
            _wait_for(device)
            dist.barrier()
            start = time.perf_counter()
            call()
            _wait_for(device)
            taken[name].append(time.perf_counter() - start)
        is_over.fill_(time.perf_counter() > end)
        dist.all_reduce(is_over, dist.ReduceOp.MAX)
    return {name: statistics.median(times) for name, times in taken.items()}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
