"""`addertrain data`: pictures into FFCV's .beton files, and whether such a file is whole."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from addertrain.cli.countdown import Countdown
from addertrain.cli.parser import EXIT_CODES, CommandParser, Commands
from addertrain.errors import RunError, UsageError
from addertrain.train.output import warn

if TYPE_CHECKING:
    from addertrain.data.sources.source import PictureSource

_EPILOG = f"""examples:
  addertrain data write data/imagenet/train data/imagenet/train.beton --max-size 400
  addertrain data write pictures.tsv pictures.beton --format raw     lines of path<TAB>label
  addertrain data write torchvision:CIFAR10 cifar10.beton --root data --split train
  addertrain data write pictures pictures.beton --max-size 0 --keep-jpegs     JPEGs are not compressed again
  addertrain data write icons icons.beton --background "#808080"     behind transparent pixels
  addertrain data verify data/imagenet/train.beton --deep
  addertrain data info data/imagenet/train.beton

An interrupted `write` goes on where it was when it is started again. A .beton counts as whole when its side
file (FILE.beton.json: count, classes, checksums, settings, source) lies beside it.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "data",
        help="write, verify or describe .beton files for data.loader: ffcv",
        description="Writes, verifies or describes the .beton files that data.loader: ffcv reads.",
        epilog=_EPILOG,
    )
    actions: Commands = parser.add_subparsers(dest="action", metavar="write|verify|info", required=True)
    _add_write(actions.add_parser("write", help="pictures into a .beton", epilog=_EPILOG))
    verify = actions.add_parser("verify", help="whether a .beton is whole", epilog=_EPILOG)
    verify.add_argument("file", metavar="FILE.beton")
    verify.add_argument("--deep", action="store_true", help="also every page and image (minutes)")
    verify.add_argument(
        "--adopt", action="store_true", help="check another program's .beton and write the missing side file"
    )
    verify.add_argument("--threads", type=_count, default=_cores(), help="default: %(default)s, all cores")
    info = actions.add_parser("info", help="what a .beton holds", epilog=_EPILOG)
    info.add_argument("file", metavar="FILE.beton")


def _add_write(parser: CommandParser) -> None:
    parser.add_argument(
        "source", metavar="PICTURES", help="a folder of class folders, a list.tsv, or torchvision:NAME"
    )
    parser.add_argument("file", metavar="FILE.beton")
    parser.add_argument("--format", choices=("jpg", "raw", "proportion"), default="jpg", help="default: jpg")
    parser.add_argument(
        "--max-size", type=_count, default=400, help="longest side, default %(default)s; 0: as it is"
    )
    parser.add_argument(
        "--quality",
        type=_count,
        default=90,
        help="of JPEGs, default %(default)s; above 97 FFCV gains nothing",
    )
    parser.add_argument(
        "--restart-interval", type=_count, default=2,
        help="macroblocks of JPEGs between restart markers, default %(default)s; 0: none, slower to read",
    )  # fmt: skip
    parser.add_argument(
        "--keep-jpegs", action="store_true",
        help="do not compress JPEGs again that --max-size leaves as they are: only their markers are put in",
    )  # fmt: skip
    parser.add_argument(
        "--proportion", type=float, default=0.5, help="share of JPEGs in --format proportion (0.5)"
    )
    parser.add_argument("--page-mib", type=_page, default=8, help="size of a page, default %(default)s")
    parser.add_argument("--workers", type=_count, default=_cores(), help="processes, default %(default)s")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out pictures that cannot be read, and list them"
    )
    parser.add_argument(
        "--allow-empty", action="store_true", help="classes may have no pictures, as in a validation part"
    )
    parser.add_argument(
        "--background", type=_colour, default="white", help="behind transparent pixels, default %(default)s"
    )
    parser.add_argument(
        "--white", type=_white, metavar="VALUE",
        help="value that becomes white in grey of more than 8 bits; default: what the format says",
    )  # fmt: skip
    parser.add_argument("--root", default="data", help="where the files of torchvision:NAME are (data)")
    parser.add_argument("--split", default="train", help="which part of torchvision:NAME (train); all")


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Does what was asked for; 1 where a file turns out to be damaged."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "write": _write,
        "verify": _verify,
        "info": _info,
    }
    actions[arguments.action](arguments)
    return 0


def _write(arguments: argparse.Namespace) -> None:
    import multiprocessing

    # The server that processes are forked from imports what they need once; it starts with the first one.
    multiprocessing.set_forkserver_preload(
        ["addertrain.data.beton.encode", "addertrain.data.decoding.picture"]
    )
    from addertrain.data.beton.encode import BetonSettings
    from addertrain.data.beton.side_file import describe
    from addertrain.data.beton.verify import verify_structure
    from addertrain.data.beton.write import write_beton
    from addertrain.data.decoding.jpeg import has_turbojpeg

    path = Path(arguments.file)
    if path.suffix != ".beton":
        raise UsageError(f"data write: expected a name that ends in .beton, got {path}")
    if not has_turbojpeg():
        warn("no libturbojpeg.so.0 on this machine: JPEGs that are damaged inside are not noticed")
    settings = BetonSettings(
        format=arguments.format,
        max_size=arguments.max_size or None,
        quality=arguments.quality,
        restart_interval=arguments.restart_interval,
        jpegs=_jpegs(arguments),
        proportion=arguments.proportion,
        page_size=arguments.page_mib << 20,
    )
    with closing(Countdown("picture")) as countdown:
        write_beton(
            _source(arguments),
            path,
            settings,
            num_workers=max(1, arguments.workers),
            skip_bad=arguments.skip_bad,
            progress=countdown,
            say=warn,
        )
    print("\n".join([f"{path}: written", *describe(*verify_structure(path))]))


def _jpegs(arguments: argparse.Namespace) -> Literal["compressed", "kept", "unmarked"]:
    """What becomes of JPEGs whose pixels stay what they are; without a library for markers they have none."""
    from addertrain.data.beton.kept import can_mark

    if not arguments.keep_jpegs:
        return "compressed"
    if arguments.restart_interval and can_mark():
        return "kept"
    if arguments.restart_interval:
        warn(
            "no library _C_pictures, for libjpeg-turbo's headers were missing when addertrain was installed: "
            "JPEGs that are kept get no restart markers, and reading them takes longer"
        )
    return "unmarked"


def _source(arguments: argparse.Namespace) -> "PictureSource":
    from addertrain.data.decoding.modes import Rendering
    from addertrain.data.sources.file_list import list_of_files
    from addertrain.data.sources.folder import folder_of_classes

    rendering = Rendering(background=arguments.background, white=arguments.white)
    kind, _, name = arguments.source.partition(":")
    if kind == "torchvision":
        from addertrain.data.sources.torchvision_sets import torchvision_pictures

        return torchvision_pictures(name, Path(arguments.root), arguments.split, rendering=rendering)
    path = Path(arguments.source)
    if path.is_file():
        return list_of_files(path, rendering=rendering)
    return folder_of_classes(path, allow_empty=arguments.allow_empty, rendering=rendering)


def _verify(arguments: argparse.Namespace) -> None:
    from addertrain.data.beton.verify import adopt, verify_images, verify_structure

    path, threads = Path(arguments.file), max(1, arguments.threads)
    with closing(Countdown("page")) as countdown:
        if arguments.adopt:
            side = adopt(path, num_threads=threads, progress=countdown)
            print(f"{path}: adopted, {side.count} images of {len(side.classes)} classes; all decode")
            return
        if not arguments.deep:
            side, _ = verify_structure(path)
            print(f"{path}: whole by its structure ({side.count} samples); --deep checks every image")
            return
        complaints = verify_images(path, num_threads=threads, progress=countdown)
    if complaints:
        print("\n".join(complaints))
        raise RunError(f"{path}: {len(complaints)} pages or images are damaged; write it again")
    print(f"{path}: whole, every page and every image")


def _info(arguments: argparse.Namespace) -> None:
    from addertrain.data.beton.side_file import describe
    from addertrain.data.beton.verify import verify_structure

    print("\n".join(describe(*verify_structure(Path(arguments.file)))))


def _count(word: str) -> int:
    """A whole number, 0 or above."""
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{word}'")
    return int(word)


def _page(word: str) -> int:
    """MiB of a page: a power of two."""
    mib = _count(word)
    if not 0 < mib <= 2048 or mib & (mib - 1):
        raise argparse.ArgumentTypeError(f"expected a power of two from 1 to 2048, got '{word}'")
    return mib


def _white(word: str) -> float:
    """A number above 0."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{word}'")
    return value


def _colour(word: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour by its name or as #rrggbb."""
    from PIL import ImageColor

    try:
        colour: tuple[int, ...] = ImageColor.getrgb(word)
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise argparse.ArgumentTypeError(f"expected a colour such as black or #ff8000, got '{word}'")
    return colour[0], colour[1], colour[2]


def _cores() -> int:
    return len(os.sched_getaffinity(0))
