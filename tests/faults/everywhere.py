"""Every interruption under every strategy, on 2, 3, 4 and 8 ranks: `python -m tests.faults ranks`."""

import itertools
import random
import time
from collections import Counter
from pathlib import Path

from tests.data.cifar_files import write_cifar10
from tests.faults.interruptions import INTERRUPTIONS, Interruption, Training, interrupted, left_alone
from tests.source_tree import ROOT

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")
RANKS = (2, 3, 4, 8)
RECIPES = {"lenet5bn": ("digits", 256, "false"), "resnet8": ("cifar10", 10, "true")}
"""Of each network: the recipe's folder, the global batch of five steps an epoch, train.sync_batchnorm."""
Place = tuple[str, str, int]
"""Network, strategy, ranks."""


def training_of(network: str, strategy: str, num_ranks: int, data: Path) -> Training:
    """The digits, or small pictures of noise below `data`; norms of single images want all ranks' images."""
    folder, batch, is_synchronised = RECIPES[network]
    words = [f"--train.strategy={strategy}", f"--data.global_batch_size={batch}"]
    words += [f"--train.sync_batchnorm={is_synchronised}"]
    if folder == "cifar10":
        words += [f"--data.root={data}"]
    return Training(ROOT / "recipes" / folder / f"{network}.yaml", tuple(words), num_ranks)


def interruptions_everywhere(folder: Path, num_runs: int | None = None) -> bool:
    """Whether all runs, or the first `num_runs` of a shuffled list, ended as those that were left alone."""
    data = folder / "cifar10"
    write_cifar10(data)
    runs = [
        (network, strategy, ranks, interruption)
        for network, strategy, ranks, interruption in itertools.product(
            RECIPES, STRATEGIES, RANKS, INTERRUPTIONS
        )
    ]
    random.Random(0).shuffle(runs)
    whole: dict[Place, Path] = {}
    tried: Counter[tuple[str, int]] = Counter()
    equal: Counter[tuple[str, int]] = Counter()
    for network, strategy, ranks, interruption in runs[:num_runs]:
        place, training = (network, strategy, ranks), training_of(network, strategy, ranks, data)
        own = folder / "-".join(map(str, place))
        if place not in whole:
            whole[place], _ = left_alone(training, own)
        is_equal = _run(place, training, whole[place], interruption)
        tried[strategy, ranks] += 1
        equal[strategy, ranks] += is_equal
    for strategy, ranks in sorted(tried):
        print(f"{strategy} on {ranks} ranks: {equal[strategy, ranks]} of {tried[strategy, ranks]}")
    print(f"ranks: {equal.total()} of {tried.total()} runs ended with the same weights", flush=True)
    return equal == tried


def _run(place: Place, training: Training, whole: Path, interruption: Interruption) -> bool:
    network, strategy, ranks = place
    rng = random.Random(f"{place} {interruption}")
    began = time.monotonic()
    done, found, expected = interrupted(training, whole.parent, whole, interruption, rng)
    verdict = "equal" if found == expected else f"OTHER {found[:12]}, not {expected[:12]}"
    seconds = time.monotonic() - began
    print(
        f"{network} {strategy} {ranks} ranks  {verdict}  {seconds:3.0f} s  {interruption}: {done}", flush=True
    )
    return found == expected
