"""The checks of `preflight`: the finding of a rank (`..._here`), and the verdict over all (`say_...`)."""

import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from addertrain import libraries
from addertrain.data import build_loader, load_data
from addertrain.errors import DataError, RunError
from addertrain.ops import functional, reference
from addertrain.recipe import Recipe
from addertrain.train import kernels
from addertrain.train.network import build_classifier
from addertrain.train.processes import World
from addertrain.train.session import versions

# torchrun compares the clocks of machines: one whose last sign of life is 15 s old counts as dead.
MAX_SKEW_SECONDS = 5.0
_ALL_REDUCE_BYTES = 32 * 2**20
_MIN_FREE_DEVICE_SHARE = 0.8


def say_processes(found: Sequence[tuple[str, str]]) -> str:
    """The processes of the run."""
    machines = Counter(host for host, _ in found)
    named = ", ".join(f"{host}: {count}" for host, count in list(machines.items())[:8])
    return f"{len(found)} on {found[0][1]} ({named}{', ...' if len(machines) > 8 else ''})"


def time_all_reduce(world: World) -> tuple[float, float]:
    """Seconds of an all-reduce of 4 bytes and of 32 MiB; the result is checked."""
    if not world.is_launched:
        return 0.0, 0.0
    device = torch.device(world.device_type, world.local_rank if world.device_type == "cuda" else 0)
    small, large = (torch.ones(size // 4, device=device) for size in (4, _ALL_REDUCE_BYTES))
    times = []
    for tensor in (small, large):
        dist.all_reduce(tensor.clone())  # connections are made by the first one
        start = time.perf_counter()
        dist.all_reduce(tensor)
        is_right = bool((tensor == world.size).all())  # waits for the device
        times.append(time.perf_counter() - start)
        if not is_right:
            raise RunError(
                f"expected the sum over {world.size} ranks to be {world.size}, got {float(tensor[0])}; "
                "check the network"
            )
    return times[0], times[1]


def say_all_reduce(found: Sequence[tuple[float, float]]) -> str:
    """The slowest rank's times."""
    if len(found) == 1:
        return "one process: nothing to exchange"
    small, large = (max(times) for times in zip(*found, strict=True))
    return f"right; 4 bytes in {1e3 * small:.2f} ms, 32 MiB in {1e3 * large:.0f} ms"


def versions_here() -> dict[str, str]:
    """The versions that a result depends on."""
    return versions()


def say_versions(found: Sequence[dict[str, str]]) -> str:
    """The versions, which have to be the same everywhere."""
    for rank, other in enumerate(found):
        for name, version in other.items():
            if version != found[0][name]:
                raise RunError(
                    f"expected the same {name} on all ranks, got {found[0][name]} on rank 0 and {version} on "
                    f"rank {rank}; install the same constraints.txt everywhere"
                )
    return ", ".join(f"{name} {version}" for name, version in found[0].items())


def device_here(world: World) -> str:
    """The GPU, which has to be free; on CPUs the threads of a rank."""
    if world.device_type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads a rank"
    free, total = torch.cuda.mem_get_info(world.local_rank)
    name = torch.cuda.get_device_name(world.local_rank)
    if free < _MIN_FREE_DEVICE_SHARE * total:
        raise RunError(
            f"expected GPU {world.local_rank} ({name}) to be free, got {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB free; end the processes that nvidia-smi lists"
        )
    return name


def say_devices(found: Sequence[str]) -> str:
    """What the ranks compute on; a mixture works, at the speed of the slowest."""
    return "; ".join(f"{count} x {name}" for name, count in Counter(found).items())


def operators_here(world: World) -> str:
    """Which libraries are loaded; that of this device has to be loaded and right."""
    wanted = "_C_cuda" if world.device_type == "cuda" else "_C"
    status = libraries.status()
    if f"{wanted} loaded" not in status:
        raise RunError(
            f"expected {wanted}, because training is very slow without it, got: {status}; run launch/setup"
        )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 9, 9, generator=generator)
    weight = torch.randn(16, 8, 3, 3, generator=generator)
    expected = reference.adder2d(x.double(), weight.double(), (2, 2), (1, 1), (1, 1), False)
    got = functional.adder2d(x.to(world.device_type), weight.to(world.device_type), stride=2, padding=1)
    error = float((got.cpu().double() - expected).abs().max() / expected.abs().max())
    if not error < 1e-5:
        raise RunError(
            f"expected {wanted} to match the reference, got an error of {error:.1e}; run launch/setup again"
        )
    return status


def say_operators(found: Sequence[str]) -> str:
    """Which compiled libraries are loaded, and that they are right."""
    return f"right; {found[0]}"


def kernels_here(recipe: Recipe, out: Path, world: World) -> tuple[int, int]:
    """(adder layers that differ, how many of them were compared now); on CPUs one rank per machine
    compares them.
    """
    if recipe.train.kernels == "reference":
        return 0, 0
    try:
        data = load_data(recipe.data)
    except DataError:
        return 0, 0  # what is missing is another check's to say
    found = kernels.prove_here(recipe, data, world, with_int8=True)
    kernels.check([found], existing(out))
    return (found.outcome.num_layers, found.outcome.num_proven) if found.outcome else (0, 0)


def say_kernels(found: Sequence[tuple[int, int]]) -> str:
    """For how many layers of the recipe's network the kernels are right."""
    layers, tried = (max(numbers) for numbers in zip(*found, strict=True))
    if layers == 0:
        return "nothing compiled to compare with the reference"
    return f"match the reference in {layers} different adder layers ({tried} tried now)"


def data_here(recipe: Recipe, world: World) -> tuple[int, int, float]:
    """(training images, test images, seconds until the first batch of this rank)."""
    data = load_data(recipe.data)
    start = time.perf_counter()
    loader = build_loader(
        data, recipe.data, training=True, seed=recipe.train.seed, rank=world.rank, world_size=world.size
    )
    try:
        next(iter(loader.batches(0, [0])))
    finally:
        loader.close()
    return len(data.train), len(data.test), time.perf_counter() - start


def say_data(found: Sequence[tuple[int, int, float]]) -> str:
    """The data set, which has to be the same everywhere."""
    for rank, (train, test, _) in enumerate(found):
        if (train, test) != found[0][:2]:
            raise RunError(
                f"expected the same data on all ranks, got {found[0][0]} and {found[0][1]} images on rank 0, "
                f"{train} and {test} on rank {rank}; check data.root on each machine"
            )
    train, test, _ = found[0]
    slowest = max(seconds for *_, seconds in found)
    return f"{train} training and {test} test images, first batch in {slowest:.1f} s"


def disk_here(recipe: Recipe, out: Path, world: World) -> str:
    """Free space for the checkpoints that are kept, the best one, and one being written; on the first
    rank.
    """
    if not world.is_first:
        return ""
    data = load_data(recipe.data)
    model = build_classifier(recipe, data, steps_per_epoch=1).model
    # Parameters with their momentum, and every rank's own buffers and their mean.
    parameters = 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = (1 + world.size) * sum(b.numel() * b.element_size() for b in model.buffers())
    needed = (recipe.train.keep_checkpoints + 2) * (parameters + buffers)
    free = shutil.disk_usage(existing(out)).free
    if free < needed:
        raise RunError(
            f"expected {needed / 2**20:.0f} MiB for checkpoints in {out}, got {free / 2**20:.0f} MiB free; "
            "free some space, choose another --out, or lower train.keep_checkpoints"
        )
    return f"{free / 2**30:.1f} GiB free in {existing(out)}, checkpoints need {needed / 2**20:.0f} MiB"


def say_disk(found: Sequence[str]) -> str:
    """The free space where the first rank writes."""
    return found[0]


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def leave_marker(out: Path) -> Path:
    """Writes a small file where the run's folder will be; on the first rank."""
    marker = existing(out) / f".addertrain-preflight-{uuid.uuid4().hex}"
    try:
        with marker.open("wb") as file:
            file.write(b"here")
            os.fsync(file.fileno())
    except OSError:
        pass  # every rank then misses it, the first one included, and says so
    return marker


def find_marker(marker: Path) -> Path:
    """The folder of the marker, if this rank sees it."""
    if not marker.exists():
        raise RunError(
            f"expected the file that the first rank wrote in {marker.parent}, got none; choose an --out "
            "that all machines share and can write to"
        )
    return marker.parent


def say_folder(found: Sequence[Path]) -> str:
    """The folder that all ranks see."""
    return f"{found[0]} can be written and is seen by all ranks"


def remove_marker(marker: Path) -> None:
    """Removes the marker."""
    marker.unlink(missing_ok=True)


def say_clocks(found: Sequence[float]) -> str:
    """The largest difference of the ranks' clocks, read right after a barrier."""
    skew = max(found) - min(found)
    if skew > MAX_SKEW_SECONDS:
        raise RunError(
            f"expected clocks within {MAX_SKEW_SECONDS:g} s of each other, got {skew:.1f} s; a restart "
            "would take a running machine for a dead one; synchronise the clocks with chrony or ntp"
        )
    return f"within {skew:.3f} s of each other"
