"""A proof by the emulator, for dry runs of launch/gpu-check: python -m tests.proof.emulated FILE.json"""

import ctypes
import json
import sys
import tempfile
from pathlib import Path

import torch

from addertrain.proof import prove
from tests.kernels.emulated import EmulatedKernels, build_emulator
from tests.proof.emulated_operators import EmulatedOperators, small_layers


def main(path: Path) -> int:
    """Proves SmallNet in two types and writes what `addertrain bench proof --json` writes."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = EmulatedKernels(ctypes.CDLL(str(build_emulator(Path(folder)))))
        proofs = []
        for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
            outcome = prove(small_layers(dtypes=[dtype]), EmulatedOperators(kernels), say=print)
            proofs.append({"network": "small", "dtype": name, **outcome.record})
    path.write_text(json.dumps({"environment": {"device": "the emulator"}, "proofs": proofs}))
    return 1 if any(proof["failures"] for proof in proofs) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
