"""DeepSpeed for CPUs, and what its first engine imports: a Muon whose decorators load torch's compiler."""

import contextlib

from addertrain.train.errors import UsageError
from addertrain.train.strategies.zero import import_deepspeed

with contextlib.suppress(UsageError, ImportError):
    import_deepspeed("cpu")
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
