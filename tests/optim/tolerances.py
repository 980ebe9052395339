"""Tolerances of the optimizer tests, relative to the largest value of a tensor, with their derivation."""

FLOAT64 = 1e-12
"""Up to 100 updates of a few roundings each (100 * 5 * 1.1e-16 = 6e-14), amplified by the net in between."""

FLOAT32 = 2e-5
"""100 updates given the same gradients: 100 * 3 roundings of 6e-8 each."""

FLOAT64_SUM = 1e-14
"""One sum of squares: roundings of 1.1e-16, 512 in a lane of a piece of 16384 values, then those of lanes and
pieces; they rarely point one way."""

RATE = 1e-6
"""RMS(step) / eta: alpha, a product and the subtraction from a weight of 0 in fp32, 6e-8 each."""
