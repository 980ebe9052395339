"""`addertrain fit`: train a recipe, or go on with it."""

import argparse
import contextlib
import shlex
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.cli.ranks import is_first_rank, is_launched
from addertrain.errors import SavedAfterSignal
from addertrain.train.output import complain
from addertrain.train.signals import SignalWatch, end_with_launcher

SAVED = 75  # exit code

_EPILOG = f"""examples:
  addertrain fit recipes/digits/lenet5bn.yaml
  addertrain fit recipes/mnist/lenet5bn.yaml --out runs/small-lr --optim.lr 0.05
  torchrun --nproc-per-node 2 -m addertrain fit recipes/mnist/lenet5bn.yaml

The run directory holds recipe.yaml (every key), environment.json, TensorBoard events, checkpoints/ and,
written last, summary.json.

keys of a recipe that can be overridden:
{{keys}}

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "fit",
        help="train a recipe, or go on with it",
        description="Trains the network that a recipe describes, or goes on where an earlier start stopped.",
        late_epilog=_epilog,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: runs/ and the recipe's name)")
    parser.add_argument(
        "--resume",
        metavar="auto|none|PATH",
        default="auto",
        help="auto (default): go on from the newest whole checkpoint in DIR, if any; none: start anew, only "
        "where DIR holds no run; PATH: go on from that checkpoint or run",
    )

    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="start a new run from the weights of a run, a checkpoint or a safetensors file (fine-tuning); "
        "the last layer stays new where it has other classes",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="run three steps under torch's profiler: traces and a table of operators in DIR/profile/",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Trains, and ends with the result and where everything is."""
    with SignalWatch() as signals:  # before torch is imported: a start takes seconds, too
        if is_launched():
            end_with_launcher()
        from addertrain.recipe import load_recipe

        recipe = load_recipe(arguments.recipe, overrides)
        out = Path(arguments.out or Path("runs") / recipe.name)
        # After the recipe is checked: this imports torch and Lightning.
        from addertrain.train.run import fit

        try:
            summary = fit(
                recipe,
                out,
                arguments.resume,
                signals=signals,
                profile=arguments.profile,
                init_from=arguments.init_from,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_resume(out)) from None
        except SavedAfterSignal as saved:
            if is_first_rank():
                complain(f"addertrain: {saved}")
            return SAVED
    if is_first_rank():
        checkpoint = _checkpoint_of(out, summary.checkpoint)
        print(f"checkpoint   {checkpoint or 'none: they have been removed since'}")
        print(f"curves       tensorboard --logdir {shlex.quote(str(out))}")
        print(f"evaluate     addertrain evaluate {shlex.quote(str(out))}")
        print(
            f"{summary.recipe}: top-1 {summary.top1:.2f} %, top-5 {summary.top5:.2f} %, "
            f"loss {summary.loss:.4f} after {summary.epochs} epochs in {summary.seconds:.0f} s "
            f"({summary.images_per_second:.0f} images/s)"
        )
    return 0


def _epilog() -> str:
    from addertrain.recipe.keys import recipe_help

    return _EPILOG.format(keys=recipe_help())


def _checkpoint_of(out: Path, name: str) -> Path | None:
    """The checkpoint that was evaluated at the end; earlier versions did not note its name."""
    from addertrain.train.run_directory import RunDirectory

    found = RunDirectory(out).store.newest_first()
    return next((path for path in found if path.name == name or not name), None)


def _how_to_resume(out: Path) -> str:
    from addertrain.checkpoint import CheckpointError
    from addertrain.train.run_directory import RunDirectory

    newest = None
    with contextlib.suppress(CheckpointError):
        newest = RunDirectory(out).store.newest_whole(lambda _: None)
    where = f"go on from {newest.name}" if newest else "start anew (nothing was saved yet)"
    return f"interrupted; the same command will {where} in {out}"
