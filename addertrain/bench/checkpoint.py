"""`addertrain bench checkpoint`: the time that a save takes on the training thread and on the writer thread.

On a machine that others use as well, compare processor time, which counts every thread of the process.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from addertrain.checkpoint.files import write_checkpoint
from addertrain.checkpoint.snapshot import snapshot
from addertrain.command_parser import CommandParser, existing_folder, one_of, whole_number
from addertrain.models import MODELS, build_model

_MINUTE_MS = 60_000.0
_State = Mapping[str, Mapping[str, Tensor]]


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    parser = CommandParser(
        prog="addertrain bench checkpoint",
        description="Measures how long saving a network and its momentum takes: the copy, for which "
        "training waits, and hashing, writing and flushing, which run on a thread of their own.",
    )
    parser.add_argument(
        "network", nargs="?", type=one_of(sorted(MODELS)), default="resnet18", metavar="NETWORK",
        help=f"the network: {', '.join(sorted(MODELS))} (default: resnet18)",
    )  # fmt: skip
    parser.add_argument(
        "--folder",
        type=existing_folder,
        default=Path(),
        metavar="DIR",
        help="the folder to write to (default: this folder)",
    )
    parser.add_argument(
        "--threads", type=whole_number(), default=1, help="the number of processor cores to use (default: 1)"
    )
    parser.add_argument(
        "--saves", type=whole_number(), default=10, help="the number of saves to measure (default: 10)"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    state = training_state(arguments.network)
    num_bytes = sum(t.numel() * t.element_size() for tensors in state.values() for t in tensors.values())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        copied, written = measure(state, Path(folder), num_saves=arguments.saves)
    print(f"{arguments.network}: {num_bytes / 1e6:.1f} MB of weights, statistics and momentum")
    print(f"{'median of a save':32} {'ms':>8} {'processor ms':>13}")
    print(f"{'copy, on the training thread':32} {copied[0]:8.1f} {copied[1]:13.1f}")
    print(f"{'hash, write, flush, on another':32} {written[0]:8.1f} {written[1]:13.1f}")
    together = copied[1] + written[1]
    print(
        f"at one save a minute: {100 * copied[0] / _MINUTE_MS:.2f} % of the training thread's time, "
        f"{100 * together / _MINUTE_MS:.2f} % of one core in all; {num_bytes / 1e6:.1f} MB more memory while "
        "it is written"
    )
    return 0


def training_state(network: str) -> _State:
    """What a checkpoint of `network` in training holds."""
    model = build_model(network, kind="adder", num_classes=1000)
    momentum = {
        f"{name}.momentum_buffer": torch.randn_like(parameter) for name, parameter in model.named_parameters()
    }
    buffers = {f"0/{name}": buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {"model": model.state_dict(), "optimizer": momentum, "rank_buffers": buffers}


def measure(
    state: _State, folder: Path, *, num_saves: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(ms, processor ms) of the copy, and of writing it; medians over `num_saves`."""
    copied: list[tuple[float, float]] = []
    written: list[tuple[float, float]] = []
    for number in range(num_saves):
        copies: list[_State] = []

        def take(copies: list[_State] = copies) -> None:
            found, wait = snapshot(state)
            wait()
            copies.append(found)

        copied.append(_timed(take))
        path = folder / str(number)
        written.append(_timed(lambda path=path, copies=copies: write_checkpoint(path, copies[0], {})))  # type: ignore[misc]
    return _medians(copied), _medians(written)


def _timed(function: Callable[[], None]) -> tuple[float, float]:
    since, cpu = time.perf_counter(), time.process_time()
    function()
    return 1e3 * (time.perf_counter() - since), 1e3 * (time.process_time() - cpu)


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)
