"""Projects the time of a step from one GPU to many, by a cost model of data parallelism.

Weak scaling: every GPU keeps its batch. All GPUs compute equally fast. B bytes of gradients are summed in K
buckets of 25 MiB, as DistributedDataParallel cuts them, by a hierarchical all-reduce over g GPUs a machine
and m machines:

    T = 2 (g-1)/g B/b_in  +  2 (m-1)/m B/b_out  +  K (2 (g-1) l_in + 2 ceil(log2 m) l_out)

a reduce-scatter and an all-gather inside (rings), a tree between machines; b_in is a GPU's bandwidth inside a
machine, b_out a machine's to the others, l_in and l_out the latencies of one hop. A bucket can travel as soon
as its gradients are there, the last one only after the backward pass, which is 2/3 of the computation C:

    step = C + max(T/K, T - 2/3 C (1 - 1/K)) + S,

S being the latency of ALR's own all-reduce, which sharded strategies need (a number per layer), DDP does not.
Left out: stragglers, contention in the network, loading, what communication takes from computation.
"""

import math
from dataclasses import dataclass

BUCKET_BYTES = 25 * 2**20
_BACKWARD_SHARE = 2 / 3


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines of equal GPUs; bandwidths in bytes/s, latencies in seconds.

    The defaults are those of machines of eight H100 or H200: NVLink at 360 of its 450 GB/s in one direction,
    eight network cards of 400 Gb/s at 80 %, and latencies as NCCL's users measure them.
    """

    gpus_per_machine: int = 8
    bandwidth_in: float = 360e9
    bandwidth_out: float = 320e9
    latency_in: float = 2e-6
    latency_out: float = 10e-6


@dataclass(frozen=True)
class Projection:
    """A step on `num_gpus`: seconds of computation, of the complete all-reduce, and of its exposed part."""

    num_gpus: int
    compute: float
    all_reduce: float
    exposed: float

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.compute + self.exposed

    @property
    def efficiency(self) -> float:
        """Computation's share of the step, which is the speed per GPU relative to that of a single GPU."""
        return self.compute / self.step


def project(
    num_gpus: int, *, compute: float, gradient_bytes: int, cluster: Cluster, is_sharded: bool = False
) -> Projection:
    """The step on `num_gpus` of a cluster, from `compute` seconds of one GPU alone."""
    inside = min(num_gpus, cluster.gpus_per_machine)
    machines = -(-num_gpus // cluster.gpus_per_machine)
    hops = 2 * (inside - 1) * cluster.latency_in + 2 * math.ceil(math.log2(machines)) * cluster.latency_out
    buckets = max(1, math.ceil(gradient_bytes / BUCKET_BYTES))
    all_reduce = (
        2 * (inside - 1) / inside * gradient_bytes / cluster.bandwidth_in
        + 2 * (machines - 1) / machines * gradient_bytes / cluster.bandwidth_out
        + buckets * hops
    )
    rates = hops if is_sharded else 0.0
    return Projection(num_gpus, compute, all_reduce, exposed_time(all_reduce, compute, buckets) + rates)


def exposed_time(all_reduce: float, compute: float, buckets: int) -> float:
    """Seconds of the all-reduce that the backward pass cannot hide."""
    hidden = _BACKWARD_SHARE * compute * (1 - 1 / buckets)
    return max(all_reduce / buckets, all_reduce - hidden)
