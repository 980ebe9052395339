"""`addertrain data`: writes, verifies and describes FFCV's .beton files."""

import argparse
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from addertrain.cli.countdown import Countdown
from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.command_parser import CommandParser, number, whole_number
from addertrain.errors import RunError, UsageError
from addertrain.train.output import warn

if TYPE_CHECKING:
    from addertrain.data.sources.source import PictureSource

_EPILOG = f"""examples:
  addertrain data write data/imagenet/train data/imagenet/train.beton --max-size 400
  addertrain data write images.tsv images.beton --format raw     the .tsv has lines of path<TAB>label
  addertrain data write torchvision:CIFAR10 cifar10.beton --root data --split train
  addertrain data write images images.beton --max-size 0 --keep-jpegs     do not compress JPEGs again
  addertrain data write icons icons.beton --background "#808080"     put grey behind transparent pixels
  addertrain data verify data/imagenet/train.beton --deep
  addertrain data info data/imagenet/train.beton

An interrupted write resumes if the same command is started again. A finished FILE.beton has a side file
FILE.beton.json next to it, with the number of images, classes, checksums, settings and source.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = commands.add_parser(
        "data",
        help="write, verify or describe .beton files for data.loader: ffcv",
        description="Writes, verifies or describes the .beton files that data.loader: ffcv reads.",
        epilog=_EPILOG,
    )
    actions: Commands = parser.add_subparsers(dest="action", metavar="write|verify|info", required=True)
    _add_write(
        actions.add_parser(
            "write",
            help="pack images into a .beton file",
            description="Packs images into a .beton file, which data.loader: ffcv reads.",
            epilog=_EPILOG,
        )
    )
    verify = actions.add_parser(
        "verify",
        help="check whether a .beton file is intact",
        description="Compares the structure of a .beton file with its side file; --deep checks all data.",
        epilog=_EPILOG,
    )
    verify.add_argument("file", metavar="FILE.beton", help="the file to check")
    verify.add_argument(
        "--deep",
        action="store_true",
        help="also check every page and decode every image, which takes minutes",
    )
    verify.add_argument(
        "--adopt",
        action="store_true",
        help="check a .beton that another program wrote, and write the side file that it lacks",
    )
    verify.add_argument(
        "--threads", type=whole_number(), default=_cores(),
        help="the number of threads (default: %(default)s, all cores)",
    )  # fmt: skip
    info = actions.add_parser(
        "info",
        help="describe a .beton file",
        description="Prints the number of images and classes of a .beton file and how it was written.",
        epilog=_EPILOG,
    )
    info.add_argument("file", metavar="FILE.beton", help="the file to describe")


def _add_write(parser: CommandParser) -> None:
    parser.add_argument(
        "source",
        metavar="IMAGES",
        help="a folder with one folder per class, a .tsv file with lines of path<TAB>label, or "
        "torchvision:NAME for one of torchvision's data sets",
    )
    parser.add_argument("file", metavar="FILE.beton", help="the file to write")
    parser.add_argument(
        "--format",
        choices=("jpg", "raw", "proportion"),
        default="jpg",
        help="how images are stored: as JPEG (the default), as raw pixels, or a --proportion as JPEG",
    )
    parser.add_argument(
        "--max-size",
        type=whole_number(0),
        default=400,
        help="shrink images whose longer side exceeds this many pixels (default: %(default)s); 0 shrinks "
        "none",
    )
    parser.add_argument(
        "--quality",
        type=whole_number(0),
        default=90,
        help="the quality of JPEGs, 1 to 100 (default: %(default)s); FFCV's decoder gains nothing above 97",
    )
    parser.add_argument(
        "--restart-interval", type=whole_number(0), default=2,
        help="macroblocks between the restart markers of JPEGs (default: %(default)s); 0 writes no "
        "markers, which makes crops slower to decode",
    )  # fmt: skip
    parser.add_argument(
        "--keep-jpegs", action="store_true",
        help="do not compress JPEGs again if --max-size does not shrink them; only their restart markers "
        "change",
    )  # fmt: skip
    parser.add_argument(
        "--proportion",
        type=number(can_be_0=True),
        default=0.5,
        help="the fraction of images that --format proportion stores as JPEG (default: %(default)s)",
    )
    parser.add_argument(
        "--page-mib", type=_page, default=8, help="the size of a page in MiB (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=whole_number(), default=_cores(),
        help="the number of processes (default: %(default)s, all cores)",
    )  # fmt: skip
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out images that cannot be read, and list them"
    )
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="accept classes without images, such as in a small validation set",
    )
    parser.add_argument(
        "--background",
        type=_colour,
        default="white",
        help="the colour behind transparent pixels, a name or #rrggbb (default: %(default)s)",
    )
    parser.add_argument(
        "--white", type=number(), metavar="VALUE",
        help="the pixel value that becomes white in grey images of more than 8 bits (default: the maximum "
        "of the file format)",
    )  # fmt: skip
    parser.add_argument(
        "--root", default="data", help="the folder of torchvision:NAME (default: %(default)s)"
    )
    parser.add_argument(
        "--split", default="train", help="the split of torchvision:NAME, or all (default: %(default)s)"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Runs the action; raises a RunError if a file is damaged."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "write": _write,
        "verify": _verify,
        "info": _info,
    }
    actions[arguments.action](arguments)
    return 0


def _write(arguments: argparse.Namespace) -> None:
    import multiprocessing

    # Worker processes are forked from a server, which imports these modules once for all of them.
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
        raise UsageError(f"data write: expected an output file that ends in .beton, got {path}")
    if not has_turbojpeg():
        warn(
            "libturbojpeg.so.0 was not found, so JPEGs with damaged pixel data will not be noticed; "
            "install it"
        )
    settings = BetonSettings(
        format=arguments.format,
        max_size=arguments.max_size or None,
        quality=arguments.quality,
        restart_interval=arguments.restart_interval,
        jpegs=_jpegs(arguments),
        proportion=arguments.proportion,
        page_size=arguments.page_mib << 20,
    )
    with closing(Countdown("image")) as countdown:
        write_beton(
            _source(arguments),
            path,
            settings,
            num_workers=arguments.workers,
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

    path, threads = Path(arguments.file), arguments.threads
    with closing(Countdown("page")) as countdown:
        if arguments.adopt:
            side = adopt(path, num_threads=threads, progress=countdown)
            print(f"{path}: adopted, {side.count} images of {len(side.classes)} classes; all of them decode")
            return
        if not arguments.deep:
            side, _ = verify_structure(path)
            print(f"{path}: the structure is intact ({side.count} images); --deep checks every image")
            return
        complaints = verify_images(path, num_threads=threads, progress=countdown)
    if complaints:
        print("\n".join(complaints))
        raise RunError(
            f"{path}: expected an intact file, got {len(complaints)} damaged pages or images; write it again"
        )
    print(f"{path}: intact, every page and every image")


def _info(arguments: argparse.Namespace) -> None:
    from addertrain.data.beton.side_file import describe
    from addertrain.data.beton.verify import verify_structure

    print("\n".join(describe(*verify_structure(Path(arguments.file)))))


def _page(word: str) -> int:
    """MiB of a page: a power of two."""
    mib = whole_number(0)(word)
    if not 0 < mib <= 2048 or mib & (mib - 1):
        raise argparse.ArgumentTypeError(f"expected a power of two from 1 to 2048, got '{word}'")
    return mib


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
