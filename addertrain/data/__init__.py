"""Images in, batches out: the same global batches on any number of ranks.

`datasets` reads, `order` and `randomness` decide, `memory` delivers. What is delivered is uint8 and
channels-last; normalisation belongs to the device that trains.
"""

from addertrain.data.arrays import ImageArrays, ImageData
from addertrain.data.datasets import load_data
from addertrain.data.errors import DataError
from addertrain.data.loader import ImageLoader, build_loader
from addertrain.data.memory import Batch, MemoryLoader

__all__ = [
    "Batch",
    "DataError",
    "ImageArrays",
    "ImageData",
    "ImageLoader",
    "MemoryLoader",
    "build_loader",
    "load_data",
]
