"""FFCV's part: its own reader agrees, it costs what was promised, and its absence is said in a line."""

import importlib.util
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from addertrain.bench import loader as bench
from addertrain.data import DataError, PictureLoader
from addertrain.data.beton.encode import BetonSettings, store
from addertrain.data.beton.format import ALLOCATION, FIELD, HEADER, read_index, row_type
from addertrain.data.beton.reader import BetonReader, _kernel, decode, ffcv_library
from addertrain.data.beton.verify import adopt
from addertrain.data.decoding.picture import decode_picture
from addertrain.data.sources.folder import PictureFiles, folder_of_classes
from tests.data.photographs import real_folder


@pytest.fixture
def _kernel_not_loaded() -> Any:
    for known in (_kernel, ffcv_library):
        known.cache_clear()
    yield
    for known in (_kernel, ffcv_library):
        known.cache_clear()


@pytest.mark.usefixtures("_kernel_not_loaded")
def test_without_ffcv_one_line_says_what_to_do(beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ffcv" else find(name))
    with pytest.raises(
        DataError,
        match=r"the package ffcv is not installed; run launch/setup all, or choose data.loader",
    ):
        BetonReader.open(beton)


def test_nothing_is_compiled_again_for_another_iteration(beton: Path) -> None:
    """Compiling takes six seconds of processor time, and this batch a hundredth of that."""
    one = PictureLoader(
        BetonReader.open(beton), image_size=lambda epoch: 224, global_batch_size=32, training=True
    )
    next(iter(one))
    one.load_state_dict({"epoch": 5, "batch": 0})
    since = time.process_time()
    next(iter(one))
    assert time.process_time() - since < 2.0


@pytest.mark.long
def test_ffcvs_own_types_and_reader_agree(beton: Path) -> None:
    from ffcv import types
    from ffcv.reader import Reader

    theirs, ours = Reader(str(beton)), read_index(beton)
    assert (types.HeaderType, types.FieldDescType) == (HEADER, FIELD)
    assert types.ALLOC_TABLE_TYPE == ALLOCATION
    assert theirs.metadata_type == row_type([2, 1, 1])
    assert list(theirs.handlers) == ["image", "label", "checksum"]
    assert theirs.metadata["f1"].tolist() == ours.labels.tolist()
    assert theirs.alloc_table["size"].tolist() == ours.sizes.tolist()


@pytest.mark.long
def test_ffcvs_own_loader_evaluates_the_same_pixels(beton: Path) -> None:
    from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor, ToTorchImage

    pipelines = {
        "image": [CenterCropRGBImageDecoder((64, 64), 0.875), ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor()],
        "checksum": None,
    }
    theirs = Loader(
        str(beton), batch_size=45, num_workers=1, os_cache=True, order=OrderOption.SEQUENTIAL,
        drop_last=False, pipelines=pipelines,
    )  # fmt: skip
    images, labels = next(iter(theirs))
    ours = next(
        iter(
            PictureLoader(
                BetonReader.open(beton), image_size=lambda epoch: 64, global_batch_size=45, training=False
            )
        )
    )
    assert torch.equal(ours.images, images)
    assert torch.equal(ours.labels, labels.flatten())


@pytest.mark.long
@pytest.mark.skipif(real_folder("imagenet-originals") is None, reason="no photographs in ADDERTRAIN_DATA")
def test_ffcv_takes_a_fraction_of_the_processor_time(capsys: pytest.CaptureFixture[str]) -> None:
    """On ImageNet's originals: 1.7 times torchvision v2, 3 times Pillow; seeding below 5 %."""
    assert bench.main([str(real_folder("imagenet-originals")), "--epochs", "3", "--repeat", "4"]) == 0
    printed = capsys.readouterr().out
    ratio = {
        way: float(re.findall(rf"^{way} +\d+ +[\d.]+ +([\d.]+)", printed, re.MULTILINE)[0])
        for way in ("torchvision v2", "Pillow, DataLoader")
    }
    cpu_ms = float(re.findall(r"^ffcv jpg 400 +\d+ +([\d.]+)", printed, re.MULTILINE)[0])
    seeding_us = float(re.findall(r"flips: ([\d.]+) us", printed)[0])
    assert ratio["torchvision v2"] > 1.7
    assert ratio["Pillow, DataLoader"] > 3.0
    assert seeding_us / 1e3 < 0.05 * cpu_ms


class _Indexed:
    """What FFCV's own writer takes."""

    def __init__(self, files: PictureFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, sample: int) -> tuple[Any, int]:
        return self.files.picture(int(sample)).pixels, int(self.files.labels[sample])


@pytest.mark.long
def test_a_file_of_ffcvs_own_writer_is_adopted_and_read(folder: Path, tmp_path: Path) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    files, path = folder_of_classes(folder), tmp_path / "theirs.beton"
    fields = {"image": RGBImageField(write_mode="jpg", max_resolution=400), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(_Indexed(files), chunksize=10)
    assert adopt(path).count == 45
    reader = BetonReader.open(path)
    assert reader.labels.tolist() == files.labels.tolist()
    loader = PictureLoader(reader, image_size=lambda epoch: 64, global_batch_size=9, training=True)
    assert len(list(loader)) == 5


def test_above_quality_97_ffcv_loses_what_other_decoders_gain() -> None:
    """What `data write` warns of: libjpeg's fast inverse transform, on a pattern of single pixels."""
    board = np.repeat((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    errors = {}
    for quality in (97, 100):
        content = store(board, BetonSettings(quality=quality), sample=0).content
        pixels = np.empty_like(board)
        assert decode(content, pixels)
        errors[quality] = int(np.abs(pixels.astype(int) - board).max())
        exact = decode_picture(content, name="x").pixels
        assert np.abs(exact.astype(int) - board).max() <= 1
    assert errors[97] <= 1
    assert errors[100] > 200
