"""One picture from its bytes, whatever its format says."""

import io
from pathlib import Path

import numpy as np
import torch
import torchvision.io  # registers the operator below
from numpy.typing import NDArray
from PIL import Image

from addertrain.data.errors import DataError

_JPEG = b"\xff\xd8\xff"
_RGB = int(torchvision.io.ImageReadMode.RGB.value)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture of a file in RGB, (H, W, 3).

    Raises:
        DataError: there is no file, or no picture in it.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable picture, got: {error.strerror}; was it removed while in use?"
        ) from None
    return decode_picture(encoded, name=str(path))


def decode_picture(encoded: bytes, *, name: str) -> NDArray[np.uint8]:
    """The picture in RGB, (H, W, 3); CMYK, grey, palettes and files whose suffix lies are read too.

    Raises:
        DataError: no picture, or part of one.
    """
    if encoded.startswith(_JPEG):
        flat = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        try:
            # Half the time of Pillow's way to the same pixels, and other threads run meanwhile. The operator
            # itself: from 0.29 on the function around it warns at every call that it moves to TorchCodec.
            chw: torch.Tensor = torch.ops.image.decode_jpeg(flat, _RGB, False)
            return np.ascontiguousarray(chw.permute(1, 2, 0).numpy())
        except (RuntimeError, AttributeError):
            pass  # Pillow reads kinds of JPEG that torchvision does not, and its errors are clearer
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace("<_io.BytesIO object at", "these bytes (").split("(")[0].strip()
        raise DataError(
            f"{name}: expected a picture, got {len(encoded)} bytes that are none ({reason}); "
            "replace it or leave it out"
        ) from None
