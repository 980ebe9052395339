"""Reads images and delivers batches; the global batches are the same on any number of ranks.

`sets` opens a data set by its name, `loaders` decide which images make up a batch and deliver it, `sources`
and `decoding` read images, `beton` packs them, and `augment`, `crops` and `randomness` augment them. Batches
are uint8 and channels-last; images are normalised on the device that trains.
"""

from addertrain.data.loaders.choice import ImageLoader, build_loader
from addertrain.data.loaders.dataset import DatasetLoader
from addertrain.data.loaders.in_memory import MemoryLoader
from addertrain.data.loaders.pictures import PictureLoader
from addertrain.data.sets.fingerprint import data_sha256, part_sha256
from addertrain.data.sets.registry import load_data
from addertrain.data.types import Batch, ImageArrays, ImageData, PictureReader
from addertrain.errors import DataError

__all__ = [
    "Batch",
    "DataError",
    "DatasetLoader",
    "ImageArrays",
    "ImageData",
    "ImageLoader",
    "MemoryLoader",
    "PictureLoader",
    "PictureReader",
    "build_loader",
    "data_sha256",
    "load_data",
    "part_sha256",
]
