"""The reader of data.loader: torchvision, which decodes the original files and needs no FFCV."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2.functional import resized_crop

from addertrain.data.crops import Crops
from addertrain.data.sources.source import LabelledPictures


class TorchvisionReader:
    """Crops and resizes the images of a source: bilinear with antialiasing, in uint8."""

    def __init__(self, source: LabelledPictures) -> None:
        self._source = source

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, (N,)."""
        return self._source.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self._source.classes

    @property
    def index_sha256(self) -> str:
        """Checksum of the names of the files, in their order; none is read."""
        names = (self._source.name(sample) for sample in range(len(self._source)))
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def check(self) -> None:
        """Does nothing, because a missing file is noticed when it is read."""

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        """Fills one image (H, W, 3) for each sample; a DataError names an image that cannot be read."""
        size = [images_nhwc.shape[1], images_nhwc.shape[2]]
        for k, sample in enumerate(samples.tolist()):
            picture_hwc = self._source.picture(sample).pixels
            box = crops.box(k, *picture_hwc.shape[:2])
            picture = torch.from_numpy(picture_hwc).permute(2, 0, 1)
            image = resized_crop(picture, *box, size=size, antialias=True).permute(1, 2, 0).numpy()
            # numpy's copy: torch's would start threads of its own in every thread that decodes.
            images_nhwc[k] = image[:, ::-1] if crops.is_flipped[k] else image
