"""`addertrain bench loader`: the cost of an image by each way of reading it, measured in turns in one run.

It reads FFCV files with three settings, JPEGs also without restart markers, with every image decoded
completely, and by FFCV's own Loader if the package is installed; the original files by torchvision, and by
the usual DataLoader around Pillow. Compare processor time, which is meaningful on a machine that others use
as well.
"""

import gc
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.bench import ffcv_loader
from addertrain.bench.layers import NETWORKS
from addertrain.bench.step import training_step
from addertrain.command_parser import CommandParser, one_of, whole_number
from addertrain.data import PictureLoader, PictureReader
from addertrain.data.beton.encode import BetonSettings
from addertrain.data.beton.reader import BetonReader
from addertrain.data.beton.write import write_beton
from addertrain.data.crops import Crops, random_crops
from addertrain.data.loaders.torchvision_reader import TorchvisionReader
from addertrain.data.sources.folder import PictureFiles, folder_of_classes
from addertrain.models import build_model
from addertrain.nn import param_groups
from addertrain.optim import AdderSGD

_SETTINGS = {
    "ffcv jpg 400": BetonSettings(max_size=400),
    "ffcv jpg 500": BetonSettings(max_size=500),
    "ffcv raw 500": BetonSettings(format="raw", max_size=500),
}
_IMAGE_SIZE = 224
_MODELS = [name for name, network in NETWORKS.items() if network.image == (3, _IMAGE_SIZE, _IMAGE_SIZE)]


@dataclass
class Way:
    """One way to read the images: it makes an epoch of batches, and holds the measured costs."""

    name: str
    make: Callable[[], Callable[[], Iterable[Any]]]
    epoch: Callable[[], Iterable[Any]] = field(init=False)
    first_batch_s: float = 0.0
    megabytes: float = 0.0
    cpu_ms: list[float] = field(default_factory=list)
    images_per_second: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Opens the loader, takes one batch, and records the time and memory that this takes."""
        gc.collect()
        before, since = anonymous_megabytes(), time.perf_counter()
        self.epoch = self.make()
        batches = iter(self.epoch())
        next(batches)
        self.first_batch_s = time.perf_counter() - since
        self.megabytes = anonymous_megabytes() - before

    def run(self, beside: Callable[[Any], object]) -> None:
        """Reads one epoch and gives each batch to `beside`."""
        gc.collect()
        gc.freeze()  # so that the collection below looks at what this epoch made alone
        cpu, since, num_images = processor_seconds(), time.perf_counter(), 0
        for batch in self.epoch():
            num_images += len(batch[0])
            beside(batch)
        gc.collect()  # ends the processes of a DataLoader, whose time counts from then on
        self.cpu_ms.append(1e3 * (processor_seconds() - cpu) / num_images)
        self.images_per_second.append(num_images / (time.perf_counter() - since))

    def line(self, reference_ms: float) -> str:
        """A row of the table."""
        speed, cpu = statistics.median(self.images_per_second), statistics.median(self.cpu_ms)
        costs = f"{cpu:9.3f} {cpu / reference_ms:8.2f} {self.first_batch_s:12.5f} {self.megabytes:8.0f}"
        return f"{self.name:22} {speed:8.0f} {costs}"


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    parser = CommandParser(
        prog="addertrain bench loader",
        description="Measures processor time, speed, latency and memory of all ways of reading images at "
        "224 x 224.",
    )
    parser.add_argument("pictures", metavar="IMAGES", help="a folder with one folder of images per class")
    parser.add_argument("--batch", type=whole_number(), default=64, help="the batch size (default: 64)")
    parser.add_argument(
        "--threads",
        type=whole_number(),
        default=2,
        help="the number of threads or processes that decode (default: 2)",
    )
    parser.add_argument(
        "--epochs", type=whole_number(), default=3, help="how many epochs each way is measured (default: 3)"
    )
    parser.add_argument(
        "--repeat",
        type=whole_number(),
        default=8,
        help="how often each image is read in an epoch (default: 8)",
    )
    parser.add_argument(
        "--step",
        type=one_of(_MODELS),
        metavar="MODEL",
        help=f"measure again while a model is trained on the images: {' or '.join(_MODELS)}",
    )
    arguments = parser.parse_args(argv)
    files = folder_of_classes(Path(arguments.pictures))
    with tempfile.TemporaryDirectory() as folder:
        ways = _ways(
            files, Path(folder), batch=arguments.batch, num_threads=arguments.threads, repeat=arguments.repeat
        )
        for way in ways:
            way.begin()
        print(
            f"{len(files)} images x {arguments.repeat}, {_IMAGE_SIZE} px, batch {arguments.batch}, "
            f"{arguments.threads} threads or processes, {arguments.epochs} turns each (medians)"
        )
        _table(ways, arguments.epochs, lambda batch: None)
        print(f"order, boxes and flips: {1e3 * _seeding_ms(files):.1f} us an image")
        if arguments.step:
            print(f"while {arguments.step} is trained:")
            _table(ways, 1, _training(arguments.step))
    return 0


def _table(ways: Sequence[Way], num_epochs: int, beside: Callable[[Any], object]) -> None:
    for way in ways:
        way.cpu_ms.clear()
        way.images_per_second.clear()
    for _ in range(num_epochs):
        for way in ways:
            way.run(beside)
    print(f"{'':22} images/s    CPU ms ratio to 1  1st batch s       MB")
    reference = statistics.median(ways[0].cpu_ms)
    for way in ways:
        print(way.line(reference), flush=True)


def _ways(files: PictureFiles, folder: Path, *, batch: int, num_threads: int, repeat: int) -> list[Way]:
    loader = partial(_picture_loader, batch=batch, num_threads=num_threads, repeat=repeat)
    has_ffcv = ffcv_loader.is_there()
    indices = np.tile(np.arange(len(files)), repeat)
    ffcv = partial(
        ffcv_loader.ffcv_epochs,
        indices=indices,
        batch=batch,
        num_threads=num_threads,
        image_size=_IMAGE_SIZE,
    )
    ways = []
    for name, settings in _SETTINGS.items():
        path = folder / f"{name.replace(' ', '_')}.beton"
        write_beton(files, path, settings, num_workers=num_threads)
        ways.append(Way(name, partial(_opened, path, loader)))
        if settings.format == "jpg":
            plain = path.with_stem(f"{path.stem}_plain")
            write_beton(files, plain, replace(settings, restart_interval=0), num_workers=num_threads)
            ways.append(Way(f"{name}, whole", partial(_opened, plain, loader, only_ffcv=True)))
            if has_ffcv:
                ways.append(Way(f"FFCV's Loader, {name.removeprefix('ffcv ')}", partial(ffcv, path)))
    ways.append(Way("torchvision v2", lambda: loader(TorchvisionReader(files))))
    many = files.some(list(range(len(files))) * repeat)
    ways.append(Way("Pillow, DataLoader", partial(_pillow, many, batch=batch, num_workers=num_threads)))
    return ways


def _opened(
    path: Path, loader: Callable[[PictureReader], Callable[[], Iterable[Any]]], *, only_ffcv: bool = False
) -> Any:
    return loader(BetonReader.open(path, only_ffcv=only_ffcv))


def _picture_loader(
    reader: PictureReader, *, batch: int, num_threads: int, repeat: int
) -> Callable[[], Iterable[Any]]:
    loader = PictureLoader(
        _Repeated(reader, repeat),
        image_size=lambda epoch: _IMAGE_SIZE,
        num_threads=num_threads,
        global_batch_size=batch,
        training=True,
    )
    return lambda: loader


class _Repeated:
    """The images of a reader, repeated, so that a few hundred make an epoch long enough to time."""

    def __init__(self, reader: PictureReader, times: int) -> None:
        self._reader = reader
        self.labels, self.classes = np.tile(reader.labels, times), reader.classes

    def __len__(self) -> int:
        return len(self.labels)

    def check(self) -> None:
        self._reader.check()

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        self._reader.read(samples % len(self._reader), crops, images_nhwc)


class _PillowPictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The usual training transforms of ImageNet around Pillow: float32 and normalised."""

    def __init__(self, files: PictureFiles) -> None:
        from torchvision import transforms

        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(_IMAGE_SIZE),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.files.root / self.files.paths[sample]) as image:
            return self.transform(image.convert("RGB")), int(self.files.labels[sample])


def _pillow(files: PictureFiles, *, batch: int, num_workers: int) -> Callable[[], Iterable[Any]]:
    loader: Any = torch.utils.data.DataLoader(
        _PillowPictures(files), batch_size=batch, shuffle=True, drop_last=True, num_workers=num_workers
    )
    return lambda: loader


def _seeding_ms(files: PictureFiles, *, rounds: int = 20) -> float:
    """Processor milliseconds an image of all that makes an epoch reproducible."""
    samples = np.arange(256)
    since = time.process_time()
    for epoch in range(rounds):
        crops = random_crops(samples, seed=0, epoch=epoch)
        for k in range(len(samples)):
            crops.box(k, 375, 500)
    return 1e3 * (time.process_time() - since) / (rounds * len(samples))


def _training(name: str) -> Callable[[Any], object]:
    """A training step of the model on a batch's images."""
    model = build_model(name, kind="adder", num_classes=1000).to(memory_format=torch.channels_last)
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=0.1)

    def step(batch: Any) -> None:
        images = batch[0] if batch[0].is_floating_point() else batch[0].float().div_(255.0)
        training_step(model, optimizer, images, batch[1].flatten())  # FFCV's Loader gives a column of labels

    return step


def processor_seconds() -> float:
    """Processor time of this process, its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # os.times counts in steps of 10 ms
    return time.process_time() + children.ru_utime + children.ru_stime


def anonymous_megabytes() -> float:
    """Memory of this process and its living children that belongs to no file."""
    return sum(map(_anonymous_kilobytes, [os.getpid(), *_children(os.getpid())])) / 1024


def _children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            listed = Path(f"/proc/{pid}/task/{thread}/children").read_text()
        except OSError:  # it has ended since it was listed
            continue
        found += [int(child) for child in listed.split()]
    return found


def _anonymous_kilobytes(pid: int) -> int:
    """Memory that processes share counts in proportion, so that the sum over them is right."""
    try:
        counts = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended meanwhile
        return 0
    lines = [line.split() for line in counts.splitlines() if line.startswith("Pss_Anon:")]
    return int(lines[0][1]) if lines else 0
