"""Adder operators: schemas, reference, autograd, autocast and the compiled libraries behind them.

Importing this package defines `torch.ops.addertrain.*` and loads the compiled libraries that are there.
Without them every operator runs on the reference.
"""

from addertrain.ops import forms, fused, int8, library, norm, schemas  # noqa: F401  they define what libraries implement

library.load()
