"""`addertrain bench scaling`: a step on 1, 2, ... ranks of this machine, and a projection to many GPUs.

The local figures separate computation from communication; the cost model of the projection is in
`addertrain.bench.projection`.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from addertrain.bench.local_ranks import LocalTimes, measure_ranks
from addertrain.bench.projection import BUCKET_BYTES, Cluster, Projection, exposed_time, project
from addertrain.bench.step import CASES
from addertrain.command_parser import CommandParser, new_file, number, one_of, whole_number


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
    """The times on every number of local ranks, the fewest first, printed as they come. Efficiencies are
    relative to the first.
    """
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


def _parser() -> CommandParser:
    cluster = Cluster()
    parser = CommandParser(
        prog="addertrain bench scaling",
        description="Measures a training step on 1, 2, ... ranks of this machine, and projects it to many "
        "GPUs by a cost model.",
        epilog="Ranks that share processor cores slow each other down, so compare figures within a row only.",
    )
    parser.add_argument(
        "network", type=one_of(CASES), nargs="?", default="lenet5bn", metavar="NETWORK",
        help=f"the network: {', '.join(CASES)} (default: lenet5bn)",
    )  # fmt: skip
    parser.add_argument(
        "--ranks",
        type=_counts,
        help="the numbers of ranks to measure, such as 1,2,4 (default: powers of two up to the number of "
        "GPUs, or 1,2 without a GPU; nothing is measured with --compute-ms)",
    )
    parser.add_argument(
        "--batch", type=whole_number(), default=32, help="the number of images per rank (default: 32)"
    )
    parser.add_argument(
        "--threads",
        type=whole_number(),
        default=1,
        help="the number of processor cores per rank (default: 1)",
    )
    parser.add_argument(
        "--seconds", type=number(can_be_0=True), default=10.0,
        help="how long each number of ranks is measured (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--gpus", type=_counts, default=[8, 64, 512],
        help="the numbers of GPUs to project to (default: 8,64,512)",
    )  # fmt: skip
    parser.add_argument(
        "--compute-ms",
        type=number(),
        help="the time in ms that one GPU needs for a step, used instead of a measurement",
    )
    parser.add_argument(
        "--gpus-per-machine", type=whole_number(), default=cluster.gpus_per_machine,
        help="the number of GPUs in a machine (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--bandwidth-in", type=number(), default=cluster.bandwidth_in / 1e9,
        help="the bandwidth of a GPU within its machine in GB/s (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--bandwidth-out",
        type=number(),
        default=cluster.bandwidth_out / 1e9,
        help="the bandwidth of a machine's network in GB/s (default: %(default)g)",
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="also write the figures to FILE")
    return parser


def _all_local_ranks() -> list[int]:
    """1, 2, 4, ... up to the GPUs of this machine; 1 and 2 where there is none."""
    num_gpus = torch.cuda.device_count() or 2
    return [2**power for power in range(num_gpus.bit_length()) if 2**power <= num_gpus]


def _counts(text: str) -> list[int]:
    """Numbers in any order, each once and the smallest first."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"expected whole numbers above 0, separated by commas, got {text!r}")
    return sorted({int(word) for word in words})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
