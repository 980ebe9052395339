"""Run a function on several gloo ranks of this machine and collect what each returns."""

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Threads of the server below do not come along into a forked rank, whose first parallel region would wait for
# them for ever. OpenMP reads this when the server loads it, and Lightning when it sets the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A server that has imported torch once forks the ranks (forking the test process would copy its threads).
# DeepSpeed settles on a device when it is imported.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.preloaded", *([] if torch.cuda.is_available() else ["tests.preloaded_deepspeed"])]
)


def on_ranks(
    world_size: int, function: Callable[..., Any], *args: object, timeout_s: float = 60.0
) -> list[Any]:
    """What `function(*args)` returns on each rank, in rank order; `function` must be importable by name.

    Ranks meet through a file, so no port is taken. A rank that fails, or is late, fails the test with its
    traceback, and the others are stopped.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            _CONTEXT.Process(target=_run, args=(rank, world_size, folder, function, args), daemon=True)
            for rank in range(world_size)
        ]
        for rank in ranks:
            rank.start()
        try:
            _join(ranks, folder, time.monotonic() + timeout_s)
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def _join(ranks: list[Any], folder: Path, deadline: float) -> None:
    running = list(ranks)
    while running:
        ended = wait([rank.sentinel for rank in running], timeout=max(0.0, deadline - time.monotonic()))
        assert ended, f"{len(running)} of {len(ranks)} ranks were still running at the time limit"
        for rank in running:
            rank.join(timeout=0.0)
        failed = [rank for rank in running if rank.exitcode not in (None, 0)]
        errors = [path.read_text() for path in sorted(folder.glob("*.error"))]
        assert not failed, "\n".join(errors) or f"a rank ended with exit code {failed[0].exitcode}"
        running = [rank for rank in running if rank.exitcode is None]


def _run(
    rank: int, world_size: int, folder: Path, function: Callable[..., Any], args: tuple[object, ...]
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world_size)
        torch.save(function(*args), folder / f"{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise
