"""Optimizer of adder networks: AdderSGD, its adaptive learning rate and schedules."""

from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.batch_scaling import BatchScaling, equilibrium_rms, scaling_factor
from addertrain.optim.bind import bind
from addertrain.optim.clipping import clip_others_, clip_parts_
from addertrain.optim.portable_state import (
    OwnPieces,
    group_settings,
    joined,
    load_whole_state,
    own_momentum,
    own_parameters,
    parts,
    split_,
    whole_parameters,
    whole_state,
)
from addertrain.optim.scaling import AlrMode
from addertrain.optim.schedules import SCHEDULES, Schedule, build_schedule, cosine, lowered_power

__all__ = [
    "SCHEDULES",
    "AdderSGD",
    "AlrMode",
    "BatchScaling",
    "OwnPieces",
    "Schedule",
    "bind",
    "build_schedule",
    "clip_others_",
    "clip_parts_",
    "cosine",
    "equilibrium_rms",
    "group_settings",
    "joined",
    "load_whole_state",
    "lowered_power",
    "own_momentum",
    "own_parameters",
    "parts",
    "scaling_factor",
    "split_",
    "whole_parameters",
    "whole_state",
]
