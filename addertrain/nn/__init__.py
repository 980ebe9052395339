"""Adder layers, and what networks of them need: conversion, parameter groups, recalibration of norms."""

from addertrain.nn.adder import AdderConv2d, AdderLinear
from addertrain.nn.adder_norm import adder_norm, adder_norm_residual
from addertrain.nn.binary import BinaryConv2d
from addertrain.nn.conv import Conv2d
from addertrain.nn.conversion import Fusion
from addertrain.nn.convert import convert
from addertrain.nn.freeze import freeze_norms
from addertrain.nn.fuse import fuse
from addertrain.nn.groups import param_groups
from addertrain.nn.kinds import set_variant
from addertrain.nn.norm import BatchNorm2d, FrozenBatchNorm2d
from addertrain.nn.one_dimension import AdderConv1d
from addertrain.nn.ordered import OrderedConv2d, OrderedLinear
from addertrain.nn.recalibrate import average_buffers, recalibrated
from addertrain.nn.sync_norm import SyncBatchNorm2d, synchronise_norms
from addertrain.nn.three_dimensions import AdderConv3d
from addertrain.nn.transposed import AdderConvTranspose2d

__all__ = [
    "AdderConv1d",
    "AdderConv2d",
    "AdderConv3d",
    "AdderConvTranspose2d",
    "AdderLinear",
    "BatchNorm2d",
    "BinaryConv2d",
    "Conv2d",
    "FrozenBatchNorm2d",
    "Fusion",
    "OrderedConv2d",
    "OrderedLinear",
    "SyncBatchNorm2d",
    "adder_norm",
    "adder_norm_residual",
    "average_buffers",
    "convert",
    "freeze_norms",
    "fuse",
    "param_groups",
    "recalibrated",
    "set_variant",
    "synchronise_norms",
]
