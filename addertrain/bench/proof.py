"""`addertrain bench proof`: compares the kernels with the reference on every different adder layer of
networks.

It makes the comparison of a run (`addertrain.proof`) without data, and does not remember the result.
"""

import json
from collections.abc import Sequence

import torch

from addertrain import libraries
from addertrain.bench.cuda_ops import DTYPES
from addertrain.bench.layers import NETWORKS
from addertrain.command_parser import CommandParser, new_file, one_of, whole_number
from addertrain.errors import RunError
from addertrain.models import build_model
from addertrain.proof import CompiledOperators, ProvenLayer, layers_of, prove
from addertrain.proof.environment import environment_of

_CLASSES = 1000


def main(argv: Sequence[str]) -> int:
    """Compares the layers of the networks; returns 1 if a kernel is wrong."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise RunError("bench proof: expected a GPU for --device cuda, got none; leave the option out")
    device = torch.device(arguments.device)
    print(f"{environment_of(device)['device']}; {libraries.status()}")
    records, is_right = [], True
    for name in arguments.networks or NETWORKS:
        for dtype in arguments.dtype:
            layers = _layers(name, arguments.batch, DTYPES[dtype], arguments.device)
            outcome = prove(layers, CompiledOperators(device), with_int8=True)
            is_right &= not outcome.failures
            records.append({"network": name, "dtype": dtype, **outcome.record})
            wrong = f"{len(outcome.failures)} WRONG" if outcome.failures else "right"
            print(
                f"{name:9s} {dtype:9s} {len(layers)} layers in {outcome.seconds:.1f} s: {wrong}", flush=True
            )
            for failure in outcome.failures:
                print(f"  {failure}")
    if arguments.json:
        record = {"environment": environment_of(device), "proofs": records}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if is_right else 1


def _layers(name: str, batch: int, dtype: torch.dtype, device_type: str) -> dict[ProvenLayer, list[str]]:
    with torch.device("meta"):
        model = build_model(name, kind="adder", num_classes=_CLASSES)
    autocast = None if dtype == torch.float32 else dtype
    return layers_of(
        model,
        NETWORKS[name].image,
        images=batch,
        autocast=autocast,
        channels_last=True,
        device_type=device_type,
    )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain bench proof",
        description="Compares the compiled kernels with the reference, on every different layer of the "
        "networks.",
    )
    parser.add_argument(
        "networks", nargs="*", type=one_of(NETWORKS), metavar="NETWORK",
        help=f"the networks whose layers are compared: {', '.join(NETWORKS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="the device to check (default: cpu)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, nargs="+", default=["float32"], help="the data types (default: float32)"
    )
    parser.add_argument(
        "--batch",
        type=whole_number(),
        default=128,
        help="the batch size of training, on which kernels depend (default: 128)",
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="also write the results to FILE")
    return parser
