"""The ways to set the rate of adder layers, by the names recipes use."""

from typing import Literal

AlrMode = Literal["global", "local", "off", "increased"]
"""global: Eq. 13 on the averaged gradient. local: Eq. 13 on each rank's own, for comparison. off: alpha = 1.
increased: alpha = a constant, the ILR ablation of Chen et al. 2020, section 4.5."""
