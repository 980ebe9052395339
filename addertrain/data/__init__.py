"""Images in, batches out: the same global batches on any number of ranks.

`datasets` reads, `order` and `randomness` decide, `memory` and `pictures` deliver. What is delivered is uint8
and channels-last; normalisation belongs to the device that trains.
"""

from addertrain.data.arrays import ImageArrays, ImageData
from addertrain.data.datasets import load_data
from addertrain.data.errors import DataError
from addertrain.data.fingerprint import data_sha256, part_sha256
from addertrain.data.loader import ImageLoader, build_loader
from addertrain.data.memory import MemoryLoader
from addertrain.data.ordered import Batch
from addertrain.data.pictures import PictureLoader, PictureReader

__all__ = [
    "Batch",
    "DataError",
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
