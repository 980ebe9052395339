"""DeepSpeed for CPUs, and what its first engine imports: a Muon whose decorators load torch's compiler."""

import contextlib
import gc

from addertrain.errors import UsageError
from addertrain.train.strategies.zero import import_deepspeed

with contextlib.suppress(UsageError, ImportError):
    import_deepspeed("cpu")
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401

# DeepSpeed collects garbage at every turn: 0.3 s each, were all that is loaded here looked at again.
gc.collect()
gc.freeze()
