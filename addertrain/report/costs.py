"""What operations cost, by others' tables: cycles on one slow processor, energy at 45 nm."""

from addertrain.report.operations import OperationCount

# VIA Nano 2000, float32: a multiplication takes 4 cycles, an addition 2 (Chen et al. 2020, section 4.1).
MULTIPLICATION_CYCLES = 4
ADDITION_CYCLES = 2
# The paper gives no price for binary layers; 64 binary operations a cycle are XNOR-Net's estimate for a
# processor (Rastegari et al. 2016, section 4.1).
BINARY_CYCLES = 1 / 64

# Energy of float32 arithmetic at 45 nm and 0.9 V, in pJ (Horowitz, "Computing's energy problem", ISSCC 2014,
# Fig. 1.1.9).
MULTIPLICATION_PJ = 3.7
ADDITION_PJ = 0.9
# The same table has no XNOR; an 8-bit integer addition (0.03 pJ) stands for one and the counting of its bit.
BINARY_PJ = 0.03


def via_nano_cycles(count: OperationCount) -> float:
    """Latency of one image in cycles, arithmetic alone."""
    return (
        MULTIPLICATION_CYCLES * count.multiplications
        + ADDITION_CYCLES * count.additions
        + BINARY_CYCLES * count.xnors
    )


def energy_joules(count: OperationCount) -> float:
    """Energy of one image's arithmetic in joules, memory left out."""
    picojoules = (
        MULTIPLICATION_PJ * count.multiplications + ADDITION_PJ * count.additions + BINARY_PJ * count.xnors
    )
    return picojoules * 1e-12
