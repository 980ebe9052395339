"""Optimizer of adder networks: AdderSGD, its adaptive learning rate and schedules."""

from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.modes import AlrMode
from addertrain.optim.schedules import SCHEDULES, Schedule, cosine

__all__ = ["SCHEDULES", "AdderSGD", "AlrMode", "Schedule", "cosine"]
