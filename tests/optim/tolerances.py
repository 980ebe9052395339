"""Tolerances of the optimizer tests, relative to the largest value of a tensor, with their derivation."""

FLOAT64 = 1e-12
"""Up to 100 updates of a few roundings each (100 * 5 * 1.1e-16 = 6e-14), amplified by the net in between."""

FLOAT32 = 2e-5
"""100 updates given the same gradients: 100 * 3 roundings of 6e-8 each."""

FLOAT32_NORM = 1e-6
"""One norm: blocked sums of squares in fp32 are good to a few units of 6e-8."""
