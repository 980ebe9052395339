"""The long form: `python -m tests.faults` kills every run three times and compares the weights it ends with.

`ranks` interrupts runs in other ways, too, under every strategy on 2, 3, 4 and 8 ranks. One line a run, then
the verdict; exit code 1 if some run ended with other weights than the run that was left alone. Half an hour
of two cores, and as much again for `ranks`.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.data.photographs import SMALL_PAGES, picture_folder
from tests.faults.campaign import SECONDS_TO_COME, Campaign, killed_run, sha256_of_run, three_moments
from tests.faults.everywhere import interruptions_everywhere
from tests.faults.launcher import Launcher
from tests.source_tree import ROOT

DIGITS = ["fit", str(ROOT / "recipes" / "digits" / "lenet5bn.yaml"), "--schedule.epochs=4"]
DIGITS += ["--train.save_every_steps=5", "--train.recalibrate_batches=2"]


@dataclass(frozen=True)
class Kind:
    """A command, and how many runs of it, numbered from `first_seed` on."""

    name: str
    num_runs: int
    first_seed: int
    command: Callable[[Path], list[str]]
    is_from_nothing: bool = False


def main(words: list[str]) -> int:
    """Runs every kind that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [*KINDS, "ranks"]
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--runs", type=int, help="runs of each kind (default: 20 or 5; ranks: 200)")
    arguments = parser.parse_args(words)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for kind in arguments.kinds or names:
            if kind == "ranks":
                found.append(interruptions_everywhere(Path(name), arguments.runs))
            else:
                found.append(_campaigns(KINDS[kind], Path(name), arguments.runs))
    return 0 if all(found) else 1


def _campaigns(kind: Kind, folder: Path, num_runs: int | None) -> bool:
    """Whether every run of a kind ended with the weights of the run that nobody touched."""
    command = kind.command(folder)
    left_alone = folder / kind.name / "left-alone"
    launcher = Launcher(left_alone, [*command, "--out", str(left_alone / "run")])
    assert launcher.wait(seconds=SECONDS_TO_COME) == 0, launcher.tail()
    expected = sha256_of_run(left_alone / "run")
    print(f"{kind.name}: left alone, weights {expected[:12]}", flush=True)
    campaigns = []
    for number in range(num_runs or kind.num_runs):
        seed = kind.first_seed + number
        place = folder / kind.name / str(seed)
        campaign = killed_run(
            place, command, three_moments(seed), seed=seed, from_nothing=kind.is_from_nothing
        )
        shutil.rmtree(place)
        campaigns.append(campaign)
        print(_line(kind, campaign, expected), flush=True)
    equal = sum(campaign.weights_sha256 == expected for campaign in campaigns)
    strikes = [strike for campaign in campaigns for strike in campaign.strikes]
    cut = sum(strike.is_cut for strike in strikes)
    by_moment = ", ".join(
        f"{sum(strike.moment == moment for strike in strikes)} {moment}"
        for moment in dict.fromkeys(strike.moment for strike in strikes)
    )
    print(
        f"{kind.name}: {equal} of {len(campaigns)} runs ended with the same weights; {len(strikes)} kills "
        f"({by_moment}; {cut} saves left half a checkpoint)",
        flush=True,
    )
    return equal == len(campaigns) and len(strikes) == 3 * len(campaigns)


def _line(kind: Kind, campaign: Campaign, expected: str) -> str:
    is_equal = "equal" if campaign.weights_sha256 == expected else f"OTHER {campaign.weights_sha256[:12]}"
    strikes = "; ".join(map(str, campaign.strikes))
    starts = f"{campaign.num_starts} start{'s' if campaign.num_starts > 1 else ''}"
    return f"{kind.name} seed {campaign.seed:2}  {is_equal}  {campaign.seconds:3.0f} s, {starts}: {strikes}"


def _pictures(folder: Path) -> list[str]:
    """Two ranks on pictures in a .beton file: photographs where ADDERTRAIN_DATA holds some."""
    from addertrain.data.beton.write import write_beton
    from addertrain.data.sources.folder import folder_of_classes

    root = folder / "pictures"
    picture_folder(root / "train", num_classes=5, per_class=16)
    write_beton(folder_of_classes(root / "train"), root / "train.beton", SMALL_PAGES)
    for suffix in ("", ".beton", ".beton.json"):
        (root / f"val{suffix}").symlink_to(f"train{suffix}")
    words = ["fit", str(ROOT / "recipes" / "imagenette" / "resnet18.yaml"), "--data.name=folder"]
    words += [f"--data.root={root}", "--data.image_size=32", "--data.threads=1", "--data.mixup=0.2"]
    words += ["--model.name=resnet20", "--data.global_batch_size=16", "--schedule.epochs=4"]
    return [*words, "--train.recalibrate_batches=1", "--train.save_every_steps=1"]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("digits", 20, 0, lambda _: DIGITS),
        Kind("zero2", 5, 20, lambda _: [*DIGITS, "--train.strategy=zero2"]),
        Kind("ffcv", 5, 25, _pictures),
        Kind("from-nothing", 1, 30, lambda _: DIGITS, is_from_nothing=True),
    )
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
