"""Optimizers of adder networks: AdderSGD, the adaptive learning rate for other optimizers, and schedules."""

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.batch_scaling import BatchScaling, equilibrium_rms, scaling_factor
from addertrain.optim.bind import bind
from addertrain.optim.choice import build_optimizer
from addertrain.optim.clipping import clip_others_, clip_parts_
from addertrain.optim.layer_rate import AdaptiveLayerRate
from addertrain.optim.lion import Lion
from addertrain.optim.portable_state import (
    OwnPieces,
    group_settings,
    joined,
    load_whole_state,
    own_parameters,
    own_state,
    parts,
    shared_state,
    split_,
    whole_parameters,
    whole_state,
)
from addertrain.optim.scaling import AlrMode
from addertrain.optim.schedules import SCHEDULES, Schedule, build_schedule, cosine, lowered_power

__all__ = [
    "SCHEDULES",
    "AdaptiveLayerRate",
    "AdderOptimizer",
    "AdderSGD",
    "AlrMode",
    "BatchScaling",
    "Lion",
    "OwnPieces",
    "Schedule",
    "bind",
    "build_optimizer",
    "build_schedule",
    "clip_others_",
    "clip_parts_",
    "cosine",
    "equilibrium_rms",
    "group_settings",
    "joined",
    "load_whole_state",
    "lowered_power",
    "own_parameters",
    "own_state",
    "parts",
    "scaling_factor",
    "shared_state",
    "split_",
    "whole_parameters",
    "whole_state",
]
