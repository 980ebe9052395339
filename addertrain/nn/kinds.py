"""The kinds of adder layers, for what treats them alike: optimizer groups, variants, counts, exports."""

from torch import nn

from addertrain.nn.adder import AdderConv2d, AdderLinear
from addertrain.nn.transposed import AdderConvTranspose2d
from addertrain.ops.variants import Variant

AdderLayer = AdderConv2d | AdderConvTranspose2d | AdderLinear
SpatialAdder = AdderConv2d | AdderConvTranspose2d
"""Those that may be told that they read a ReLU."""


def set_variant(model: nn.Module, variant: Variant) -> None:
    """Has every adder layer of `model` compute `variant` from now on; its weights stay as they are."""
    for module in model.modules():
        if isinstance(module, AdderLayer):
            module.variant = (
                None if variant == Variant() else variant
            )  # the paper's has faster kernels behind a ReLU
