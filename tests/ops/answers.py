"""Data for a layer of the table and its float64 answers, with the tolerance of each output."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from addertrain.ops import answers
from addertrain.ops.answers import Answer
from tests.ops.layers import Layer

__all__ = ["Answer", "Data", "data_of", "forward_answer", "grad_input_answer", "grad_weight_answer"]


@dataclass(frozen=True)
class Data:
    """x_nchw, w_ocrs and dy_nopq, dense, in NCHW."""

    x: Tensor
    w: Tensor
    dy: Tensor

    def double(self) -> "Data":
        return Data(self.x.double(), self.w.double(), self.dy.double())


@lru_cache(maxsize=4096)
def data_of(layer: Layer, dtype: torch.dtype, behind_relu: bool = False) -> Data:
    """Behind a ReLU x >= 0, half of it 0: kernels may take another path there."""
    generator = torch.Generator().manual_seed(zlib.crc32(str(layer).encode()))
    x = 1.5 * torch.randn(layer.N, layer.C, layer.H, layer.W, generator=generator)
    w = 2.0 * torch.randn(layer.filter_shape, generator=generator)
    dy = torch.randn(layer.N, layer.O, *layer.output, generator=generator)
    return Data((x.relu() if behind_relu else x).to(dtype), w.to(dtype), dy.to(dtype))


@lru_cache(maxsize=4096)
def forward_answer(layer: Layer, dtype: torch.dtype, offset_free: bool, behind_relu: bool = False) -> Answer:
    data = data_of(layer, dtype, behind_relu)
    return answers.forward_answer(data.x, data.w, layer.sizes, offset_free=offset_free)


@lru_cache(maxsize=4096)
def grad_input_answer(layer: Layer, dtype: torch.dtype, is_saturated: bool = False) -> Answer:
    return grad_input_answer_of(layer, data_of(layer, dtype), is_saturated)


def grad_input_answer_of(layer: Layer, given: Data, is_saturated: bool = False) -> Answer:
    return answers.grad_input_answer(given.dy, given.x, given.w, layer.sizes, is_saturated=is_saturated)


@lru_cache(maxsize=4096)
def grad_weight_answer(layer: Layer, dtype: torch.dtype) -> Answer:
    data = data_of(layer, dtype)
    return answers.grad_weight_answer(data.dy, data.x, data.w, layer.sizes)
