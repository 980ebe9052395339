#!/usr/bin/env bash
# FFCV 1.0.2 and torch 2.14.1: `import ffcv`, or of any module of it, sets torch's number of threads to 1, and making a
# Loader sets it to the Loader's num_workers. It stays so when the Loader is gone.
#
# FFCV compiles its pipelines with numba, and a class of it keeps numba's and torch's numbers of threads the same. The
# class is set to 1 when its module is imported, and to num_workers by every Loader.
#
# Why a good guess is wrong: num_workers is taken for the number of decoding threads, as in torch's DataLoader, and an
# import for something that changes no setting. On CPUs a training that reads through FFCV computes with as many
# threads as it decodes with; a measurement that merely asks whether FFCV is installed, by importing it, computes on one
# thread from there on, and whatever it times afterwards is another thing than before. Neither OMP_NUM_THREADS nor
# an earlier torch.set_num_threads survives. The remedy is to set torch's threads again after the import and after
# every Loader.
#
#   findings/ffcv_import_threads.sh       needs Python 3.11+, a C++ compiler, pkg-config, and the headers of
#                                         libturbojpeg and OpenCV, as ffcv does; installs into a temporary folder
#
# Output seen:   threads of torch: 2, after import ffcv 1, after a Loader of 3 workers 3, after its end 3
# Ends with 1 where the behaviour is another one.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6 numba==0.68.1 \
  opencv-python-headless==5.0.0.93 tqdm==4.70.1 pillow==13.0.0 setuptools wheel
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation ffcv==1.0.2
OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=4 "$folder/venv/bin/python" - "$folder/numbers.beton" <<'PYTHON'
import gc
import sys

import torch

before = torch.get_num_threads()
import ffcv
from ffcv.fields import IntField
from ffcv.fields.decoders import IntDecoder
from ffcv.transforms import ToTensor

after_import = torch.get_num_threads()


class Numbers:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return (index,)


ffcv.DatasetWriter(sys.argv[1], {"number": IntField()}, num_workers=1).from_indexed_dataset(Numbers())
torch.set_num_threads(2)
loader = ffcv.Loader(sys.argv[1], batch_size=4, num_workers=3, pipelines={"number": [IntDecoder(), ToTensor()]})
seen = sorted(int(number) for (batch,) in loader for number in batch)
after_loader = torch.get_num_threads()
del loader
gc.collect()
after_end = torch.get_num_threads()

print(f"threads of torch: {before}, after import ffcv {after_import}, "
      f"after a Loader of 3 workers {after_loader}, after its end {after_end}")
assert seen == list(range(8))
assert (before, after_import, after_loader, after_end) == (2, 1, 3, 3)
PYTHON
