"""`addertrain bench scaling`: a step on 1, 2, ... ranks of this machine, and a projection to many GPUs.

The local figures separate computation from communication; the model behind the projection is
`addertrain.bench.projection`'s.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from addertrain.bench.local_ranks import LocalTimes, measure_ranks
from addertrain.bench.projection import BUCKET_BYTES, Cluster, Projection, exposed_time, project
from addertrain.bench.step import CASES


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    arguments = _parser().parse_args(argv)
    ranks = arguments.ranks or ([] if arguments.compute_ms else _all_local_ranks())
    local = _measure_here(arguments, ranks)
    compute = arguments.compute_ms / 1e3 if arguments.compute_ms else local[0].compute
    source = "as given" if arguments.compute_ms else f"as measured here on {local[0].num_ranks} rank(s)"
    cluster = replace(
        Cluster(),
        gpus_per_machine=arguments.gpus_per_machine,
        bandwidth_in=arguments.bandwidth_in * 1e9,
        bandwidth_out=arguments.bandwidth_out * 1e9,
    )
    model = CASES[arguments.network]().adder
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(
        f"\nprojection: {1e3 * compute:.1f} ms of computation a step ({source}), {size / 1e6:.1f} MB of "
        f"gradients, {cluster.gpus_per_machine} GPUs a machine, {arguments.bandwidth_in:g} GB/s a GPU "
        f"inside, {arguments.bandwidth_out:g} GB/s a machine outside\n"
        " GPUs | global batch |      step | all-reduce |   exposed | efficiency | images/s"
    )
    projections = [project(n, compute=compute, gradient_bytes=size, cluster=cluster) for n in arguments.gpus]
    for one in projections:
        print(_projection_line(one, arguments.batch))
    if arguments.json:
        report = {
            "network": arguments.network,
            "batch": arguments.batch,
            "device": _device(),
            "local": [asdict(times) for times in local],
            "cluster": asdict(cluster),
            "projections": [asdict(one) for one in projections],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _measure_here(arguments: argparse.Namespace, ranks: Sequence[int]) -> list[LocalTimes]:
    """The times on every number of local ranks, printed as they come."""
    if not ranks:
        return []
    print(f"{arguments.network}, {arguments.batch} images a rank, {_device()}")
    print("ranks |      step = computation + exposed | all-reduce alone | exposed by the model | efficiency")
    local: list[LocalTimes] = []
    for num_ranks in ranks:
        times = measure_ranks(
            arguments.network,
            num_ranks,
            batch=arguments.batch,
            threads=arguments.threads,
            seconds=arguments.seconds,
        )
        local.append(times)
        print(_local_line(times, local[0]), flush=True)
    return local


def _local_line(times: LocalTimes, alone: LocalTimes) -> str:
    buckets = math.ceil(times.gradient_bytes / BUCKET_BYTES)
    modelled = exposed_time(times.all_reduce, times.compute, buckets) if times.num_ranks > 1 else 0.0
    return (
        f"{times.num_ranks:5d} | {_ms(times.step)} = {_ms(times.compute)} + {_ms(times.exposed)} | "
        f"{_ms(times.all_reduce):>16s} | {_ms(modelled):>20s} | {100 * alone.step / times.step:8.0f} %"
    )


def _projection_line(one: Projection, batch: int) -> str:
    images = one.num_gpus * batch
    return (
        f"{one.num_gpus:5d} | {images:12d} | {_ms(one.step)} | {_ms(one.all_reduce):>10s} | "
        f"{_ms(one.exposed)} | {100 * one.efficiency:8.1f} % | {images / one.step:8.0f}"
    )


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:6.2f} ms"


def _parser() -> argparse.ArgumentParser:
    cluster = Cluster()
    parser = argparse.ArgumentParser(
        prog="addertrain bench scaling",
        description="A training step on 1, 2, ... ranks of this machine, and on many GPUs by a model.",
        epilog="Ranks that share cores slow each other's computation down: compare within a row.",
    )
    parser.add_argument("network", choices=CASES, nargs="?", default="lenet5bn")
    parser.add_argument(
        "--ranks",
        type=_counts,
        help="e.g. 1,2,4 (default: up to the number of GPUs, or 1,2; none with --compute-ms)",
    )
    parser.add_argument("--batch", type=int, default=32, help="images a rank (default: 32)")
    parser.add_argument("--threads", type=int, default=1, help="processor cores a rank (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time a number of ranks (default: 10)")
    parser.add_argument("--gpus", type=_counts, default=[8, 64, 512], help="project to these (8,64,512)")
    parser.add_argument(
        "--compute-ms", type=float, help="a GPU's time for a step, instead of the measured one"
    )
    parser.add_argument("--gpus-per-machine", type=int, default=cluster.gpus_per_machine)
    parser.add_argument("--bandwidth-in", type=float, default=cluster.bandwidth_in / 1e9, help="GB/s a GPU")
    parser.add_argument(
        "--bandwidth-out", type=float, default=cluster.bandwidth_out / 1e9, help="GB/s a machine"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    return parser


def _all_local_ranks() -> list[int]:
    """1, 2, 4, ... up to the GPUs of this machine; 1 and 2 where there is none."""
    num_gpus = torch.cuda.device_count() or 2
    return [2**power for power in range(num_gpus.bit_length()) if 2**power <= num_gpus]


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",")]
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers above 0 with commas between them, got {text!r}")
    return counts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
