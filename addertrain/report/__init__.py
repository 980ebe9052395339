"""What there is to say about a network: operation counts and what they cost."""

from addertrain.report.costs import energy_joules, via_nano_cycles
from addertrain.report.operations import LayerCount, OperationCount, count_operations

__all__ = ["LayerCount", "OperationCount", "count_operations", "energy_joules", "via_nano_cycles"]
