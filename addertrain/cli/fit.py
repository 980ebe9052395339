"""`addertrain fit`: train a recipe, or resume its training."""

import argparse
import contextlib
import shlex
from pathlib import Path

from addertrain.cli.parser import (
    EXIT_CODES,
    Commands,
    add_command_with_keys,
    add_run_directory,
    run_directory,
)
from addertrain.cli.ranks import is_first_rank, is_launched
from addertrain.command_parser import help_width
from addertrain.errors import SavedAfterSignal
from addertrain.train.output import complain
from addertrain.train.signals import SignalWatch, end_with_launcher

SAVED = 75  # exit code

_EPILOG = f"""{{keys}}

examples:
  addertrain fit recipes/digits/lenet5bn.yaml
  addertrain fit recipes/mnist/lenet5bn.yaml --out runs/small-lr --optim.lr 0.05
  launch/torchrun --nproc-per-node 2 fit recipes/mnist/lenet5bn.yaml

The run directory holds recipe.yaml (with every key), environment.json, TensorBoard events, checkpoints/ and,
when training has finished, summary.json.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = add_command_with_keys(
        commands,
        "fit",
        help="train a recipe, or resume its training",
        description="Trains the network that a recipe describes. If the run directory holds checkpoints of "
        "the same recipe, training resumes from the newest one.",
        late_epilog=_epilog,
    )
    add_run_directory(parser)
    parser.add_argument(
        "--resume",
        metavar="auto|none|PATH",
        default="auto",
        help="auto (the default) resumes from the newest intact checkpoint in DIR, if there is one; none "
        "starts a new run and refuses a DIR that already holds one; PATH resumes from that checkpoint or "
        "run",
    )
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="start a new run from the weights of a run, a checkpoint or a safetensors file (fine-tuning); "
        "the classifier keeps its new weights if the number of classes differs",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="record three steps with torch's profiler, and write traces and a table of operators to "
        "DIR/profile/",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Trains, and prints the result and where the files are."""
    with SignalWatch() as signals:  # before torch is imported, because a signal can also come while it is
        if is_launched():
            end_with_launcher()
        from addertrain.recipe import load_recipe

        recipe = load_recipe(arguments.recipe, overrides)
        out = run_directory(arguments, recipe)
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
        print(f"checkpoint   {checkpoint or 'none: it has been removed since'}")
        print(f"curves       tensorboard --logdir {shlex.quote(str(out))}")
        print(f"evaluate     addertrain evaluate {shlex.quote(str(out))}")
        print(
            f"{summary.recipe}: top-1 {summary.top1:.2f} %, top-5 {summary.top5:.2f} %, "
            f"loss {summary.loss:.4f} after {summary.epochs} epochs in {summary.seconds:.0f} s "
            f"({summary.images_per_second:.0f} images/s)"
        )
    return 0


def _epilog() -> str:
    from addertrain.recipe.help import recipe_help

    return _EPILOG.format(keys=recipe_help(width=help_width()))


def _checkpoint_of(out: Path, name: str) -> Path | None:
    """The checkpoint that was evaluated at the end; summaries of earlier versions do not name it."""
    from addertrain.train.run_directory import RunDirectory

    found = RunDirectory(out).store.newest_first()
    return next((path for path in found if path.name == name or not name), None)


def _how_to_resume(out: Path) -> str:
    from addertrain.checkpoint import CheckpointError
    from addertrain.train.run_directory import RunDirectory

    newest = None
    with contextlib.suppress(CheckpointError):
        newest = RunDirectory(out).store.newest_whole(lambda _: None)
    what = f"resume from {newest.name} in {out}" if newest else f"start again in {out}: nothing was saved yet"
    return f"interrupted; the same command will {what}"
