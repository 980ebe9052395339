"""Adder operators: schemas, reference, autograd, autocast and the compiled libraries behind them.

Importing this package defines `torch.ops.addertrain.*` and loads the compiled libraries that exist.
Without them every operator runs on the reference.
"""

from addertrain import libraries  # noqa: F401  it loads what implements them
from addertrain.ops import (  # noqa: F401  they define what libraries implement
    fused,
    int8,
    int8_norm,
    norm,
    norm_residual,
    schemas,
    variants,
)
from addertrain.ops.functional import adder2d

__all__ = ["adder2d"]
