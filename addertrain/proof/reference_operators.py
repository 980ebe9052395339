"""Uses the reference although compiled kernels are loaded, for `train.kernels: reference`.

torch's dispatcher calls the kernel that was registered last for a device; when that registration is removed,
the compiled kernel is used again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from addertrain.ops import (
    fused,
    grad_weight,
    int8,
    int8_norm,
    int8_pool,
    int16,
    norm,
    norm_residual,
    reference,
    schemas,
    variants_power,
)
from addertrain.optim import squares

# Of every operator that a compiled library registers.
_REFERENCES: dict[str, Callable[..., Any]] = {
    "adder2d": reference.adder2d,
    "adder2d_grad_input": reference.adder2d_grad_input,
    "adder2d_rectified_grad_input": schemas.rectified_grad_input,
    "walks_lists": schemas.walks_no_lists,
    "adder2d_list_gradients": schemas.reference_list_gradients,
    "adder2d_power": variants_power.reference_power,
    "adder2d_power_grad_input": variants_power.reference_power_grad_input,
    "adder2d_power_grad_weight": variants_power.reference_power_grad_weight,
    "adder2d_with_sums": fused.reference_with_sums,
    "adder2d_affine": fused.reference_affine,
    "adder2d_int8": int8.reference_distances,
    "adder2d_int8_packed": int8.reference_packed_distances,
    "adder2d_int8_pack": int8_norm.reference_packing,
    "adder2d_int8_norm": int8_norm.reference_norm,
    "quantise_int8": int8_norm.reference_quantisation,
    "conv2d_int16": int16.reference_convolution,
    "conv2d_int16_pack": int16.reference_packing,
    "max_pool_int8": int8_pool.reference_maxima,
    "sum_pixels_int8": int8_pool.reference_sums,
    "batch_norm_relu": norm.reference,
    "batch_norm_relu_of_sums": norm.reference_of_sums,
    "batch_norm_relu_backward": norm.reference_backward,
    "batch_norm_residual_relu": norm_residual.reference_residual,
    "batch_norm_residual_relu_backward": norm_residual.reference_residual_backward,
    "sums_of_squares": squares.reference_sums,
    "grouped_grad_weight": grad_weight.of_the_library,
}


@contextmanager
def reference_operators() -> Iterator[None]:
    """Within the block, in all threads, none of our compiled kernels is used, on CPUs and GPUs."""
    library = torch.library.Library("addertrain", "IMPL")
    try:
        for name, function in _REFERENCES.items():
            for key in ("CPU", "CUDA"):
                library.impl(name, function, key, allow_override=True)
        yield
    finally:
        library._destroy()
