"""Images in, batches out: the same global batches on any number of ranks.

`sets` opens a data set by its name, `loaders` decide which images make up a batch and deliver it, `sources`
and `decoding` read pictures, `beton` packs them, `augment`, `crops` and `randomness` vary them. What is
delivered is uint8 and channels-last; normalisation belongs to the device that trains.
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
