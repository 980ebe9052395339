#!/usr/bin/env bash
# FFCV 1.0.2 decodes a JPEG of quality 100 worse than the same picture's of quality 97.
#
# Its decoder always asks turbojpeg for TJFLAG_FASTDCT. libjpeg's fast inverse transform folds scale factors into
# the quantisation table as integers: where its steps are 1 to 3, as above quality 97, the rounding of the folded
# factors is as large as the steps. libjpeg's own manual advises against it above 97; FFCV's says nothing, its
# writer takes any jpeg_quality, and its reader has no setting for the transform.
#
# Why a good guess is wrong: whoever wants a .beton "as exact as JPEG can" writes jpeg_quality=100. On the pictures
# made here FFCV then reads them 0.8 dB worse than at 97, from files that are 62 % larger, and up to 243 of 255
# off on a pattern of single pixels (97: not at all). Any other decoder shows the opposite, 10 dB better, so that
# looking at the stored images tells nothing. write_mode='raw' is exact.
#
#   findings/ffcv_jpeg_quality.sh         needs Python 3.11+, a C++ compiler, pkg-config, and the headers of
#                                         libturbojpeg and OpenCV, as ffcv does; installs into a temporary folder
#
# Ends with 1 where the behaviour is another one.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 setuptools wheel
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation ffcv==1.0.2
"$folder/venv/bin/python" - <<'PYTHON'
import ctypes
import importlib.metadata
import io
import sysconfig
from pathlib import Path

import numpy as np
from PIL import Image

library = ctypes.CDLL(str(next(Path(sysconfig.get_paths()["purelib"]).glob("**/_libffcv*.so"))))


def ffcv(content, height, width):
    """What FFCV's RGB decoders call: imdecode(source, size, height, width, target, crop, corner, scale, ...)."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    u32, sides = ctypes.c_uint32, [ctypes.c_uint32(height), ctypes.c_uint32(width)]
    failed = library.imdecode(
        ctypes.c_char_p(content), ctypes.c_uint64(len(content)), *sides, ctypes.c_void_p(pixels.ctypes.data),
        *sides, u32(0), u32(0), u32(1), u32(1), ctypes.c_bool(False), ctypes.c_bool(False),
    )
    assert not failed
    return pixels


def pillow(content, height, width):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def picture(seed, height=300, width=400):
    """Colours whose spectrum falls with the frequency, as that of photographs does."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / width)
    grey, *colours = (
        np.fft.ifft2(np.fft.fft2(generator.standard_normal((height, width))) * falling).real for _ in range(4)
    )
    planes = [grey / grey.std() * 45 + colour / colour.std() * 15 + 127 for colour in colours]
    return np.clip(np.stack(planes, axis=2), 0, 255).round().astype(np.uint8)


def encoded(pixels, quality):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


print(f"ffcv {importlib.metadata.version('ffcv')}, Pillow {Image.__version__}, numpy {np.__version__}")
print("quality   dB by FFCV   dB by Pillow   kB   largest error of a checkerboard by FFCV, by Pillow")
pictures = [picture(seed) for seed in range(8)]
board = np.repeat((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
results = {}
for quality in (80, 90, 95, 97, 98, 99, 100):
    contents = [encoded(each, quality) for each in pictures]
    row = [
        float(np.mean([psnr(each, decode(content, *each.shape[:2])) for each, content in zip(pictures, contents)]))
        for decode in (ffcv, pillow)
    ]
    size = np.mean([len(content) for content in contents]) / 1e3
    errors = [int(np.abs(decode(encoded(board, quality), 64, 64).astype(int) - board).max()) for decode in (ffcv, pillow)]
    results[quality] = (*row, size, *errors)
    print(f"{quality:7} {row[0]:12.2f} {row[1]:14.2f} {size:6.1f} {errors[0]:10} {errors[1]:6}")

fine, coarse = results[100], results[97]
is_as_described = (
    fine[0] < coarse[0] - 0.3  # FFCV: worse
    and fine[1] > coarse[1] + 5  # another decoder: far better
    and fine[2] > 1.4 * coarse[2]
    and fine[3] > 100
    and coarse[3] < 10
)
raise SystemExit(0 if is_as_described else "the behaviour is another one")
PYTHON
