"""ResNets that compute in 8 bits throughout: bytes pass from layer to layer, also along shortcuts.

The first convolution and the last layer, which are no adder layers, have operands of 16 bits (`nn.int16`).
Each adder layer, its norm, a residual's sum and the rounding to the next layer's bytes are one operator
(`ops.int8_norm`). In contrast, `nn.int8.in_int8` changes the adder layers alone and keeps everything between
them in float32.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from addertrain.models.blocks import BasicBlock, Bottleneck, Shortcut
from addertrain.models.resnet import ResNet
from addertrain.nn import AdderConv2d, BatchNorm2d
from addertrain.nn.int8 import LEVELS, Grid, Int8AdderConv2d, grids_of, is_l1
from addertrain.nn.int16 import Int16Conv2d
from addertrain.nn.packing import KeptPacking
from addertrain.ops.int8_norm import adder2d_int8_norm, pack_int8
from addertrain.ops.int8_pool import max_pool_int8, sum_pixels_int8


class ByteLayer(nn.Module):
    """relu(norm(layer(x)) + residual) of an adder layer in evaluation, from bytes to bytes.

    With x on the grid `inside` and y on `outside`, y / s_y + z_y = D * scale + shift, where D is the distance
    of the bytes: scale = -s_x * gamma / s_y, and shift holds the rest.
    """

    scale: Tensor
    shift: Tensor
    weight: Tensor

    def __init__(
        self, layer: AdderConv2d, norm: BatchNorm2d, inside: Grid, outside: Grid, *, relu: bool
    ) -> None:
        super().__init__()
        in_bytes = Int8AdderConv2d(layer, inside)
        gamma, beta = (numbers.double() for numbers in norm.scale_and_shift())
        shift = (in_bytes.offset.flatten().double() * gamma + beta) / outside.scale + outside.zero
        self.inside, self.outside = inside, outside
        self.sizes = (layer.stride, layer.padding, layer.dilation)
        self.low = outside.zero if relu else 0
        self.register_buffer("weight", in_bytes.weight_bytes)
        self._packing = KeptPacking(pack_int8)
        self.register_buffer("scale", (-inside.scale * gamma / outside.scale).float())
        self.register_buffer("shift", shift.float())

    def forward(self, x: Tensor, residual: Tensor | None = None, grid: Grid | None = None) -> Tensor:
        """`residual` on `grid` has the result's shape."""
        shift, ratio = self.shift, 0.0
        if grid is not None:
            ratio = grid.scale / self.outside.scale
            shift = shift - grid.zero * ratio if grid.zero else shift
        return adder2d_int8_norm(
            x, self.weight, self._packing.of(self.weight), *self.sizes, scale=self.scale, shift=shift,
            outside=self.inside.zero, residual=residual, residual_scale=ratio, low=self.low,
        )  # fmt: skip


class ByteBlock(nn.Module):
    """A residual block; its input, its layers and its shortcut are bytes."""

    def __init__(self, block: BasicBlock | Bottleneck, name: str, grids: dict[str, Grid], end: Grid) -> None:
        super().__init__()
        last = 3 if isinstance(block, Bottleneck) else 2
        inputs = [grids[f"{name}.conv{i}"] for i in range(1, last + 1)]
        self.layers = nn.ModuleList(
            ByteLayer(getattr(block, f"conv{i + 1}"), getattr(block, f"bn{i + 1}"), a, b, relu=True)
            for i, (a, b) in enumerate(zip(inputs, [*inputs[1:], end], strict=True))
        )
        self.beside_grid, self.beside = inputs[0], None
        if isinstance(block.downsample, Shortcut):
            layer, norm = block.downsample
            assert isinstance(layer, AdderConv2d) and isinstance(norm, BatchNorm2d)  # noqa: PT018
            self.beside_grid = grids[f"{name}.downsample"]
            self.beside = ByteLayer(layer, norm, inputs[0], self.beside_grid, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y, beside = x, x if self.beside is None else self.beside(x)
        for layer in self.layers[:-1]:
            y = layer(y)
        result: Tensor = self.layers[-1](y, beside, self.beside_grid)
        return result


class ByteResNet(nn.Module):
    """A ResNet of adder layers for evaluation in 8 bits; x_nchw is float32 as for the network itself.

    Args:
        network: in evaluation mode, with the weights and statistics to evaluate.
        batches: inputs of the network, over which the ranges of bytes are taken. They pass through once.

    Raises:
        ValueError: the network is no ResNet of adder layers, computes another power than the l1 distance or
            is in training mode, or there is no batch.
    """

    def __init__(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        super().__init__()
        if not isinstance(network, ResNet) or not isinstance(
            network.get_submodule("layer1.0.conv1"), AdderConv2d
        ):
            raise ValueError(
                f"ByteResNet: expected a ResNet of adder layers, got {type(network).__name__}; evaluate "
                "other networks by addertrain.nn.int8.in_int8."
            )
        for name, layer in network.named_modules():
            if isinstance(layer, AdderConv2d) and not is_l1(layer):
                raise ValueError(
                    f"ByteResNet: expected layers with the l1 distance, got {name} with {layer.variant}; set "
                    "p to 1 if that is what was trained, or evaluate in float32."
                )
        if network.training:
            raise ValueError(
                "ByteResNet: expected a network in evaluation mode, got one in training; call eval()."
            )
        blocks = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, BasicBlock | Bottleneck)
        }
        inputs = {**_read_by(network, blocks), "conv1": network.conv1, "avgpool": network.avgpool}
        grids = grids_of(network, batches, inputs=inputs, outputs=_shortcuts(blocks))
        # A block's result is on the grid that the first layer of the next one reads.
        ends = [*(grids[f"{name}.conv1"] for name in list(blocks)[1:]), grids["avgpool"]]
        self.end = grids["avgpool"]
        # Twice the calibrated range, because other images may exceed it.
        most = 2.0 * _largest(grids["conv1"])
        self.stem = Int16Conv2d(network.conv1, network.bn1, most=most, outside=grids["layer1.0.conv1"])
        self.maxpool = network.maxpool if isinstance(network.maxpool, nn.MaxPool2d) else None
        self.blocks = nn.Sequential(
            *(
                ByteBlock(block, name, grids, end)
                for (name, block), end in zip(blocks.items(), ends, strict=True)
            )
        )
        self.fc = Int16Conv2d(network.fc, network.bn2, most=_largest(self.end))
        self.eval()

    def forward(self, x_nchw: Tensor) -> Tensor:
        with torch.inference_mode():  # autograd's bookkeeping takes longer than a small layer
            y = self.stem(x_nchw)
            if self.maxpool is not None:
                y = max_pool_int8(y, *_window(self.maxpool))
            y = self.blocks(y)
            mean = sum_pixels_int8(y).float() / (y.shape[2] * y.shape[3])
            features = (mean - self.end.zero) * self.end.scale
            logits: Tensor = self.fc(features[:, :, None, None]).flatten(1)
        return logits.clone()  # one that autograd may meet


def _largest(grid: Grid) -> float:
    """The largest magnitude on the grid."""
    return grid.scale * max(grid.zero, LEVELS - grid.zero)


def _window(pool: nn.MaxPool2d) -> tuple[list[int], list[int], list[int]]:
    """Its size, stride and padding, two numbers each."""
    size, stride, padding = (
        [number, number] if isinstance(number, int) else list(number)
        for number in (pool.kernel_size, pool.stride, pool.padding)
    )
    return size, stride, padding


def _read_by(network: ResNet, blocks: dict[str, BasicBlock | Bottleneck]) -> dict[str, nn.Module]:
    return {
        f"{name}.{child}": layer
        for name, block in blocks.items()
        for child, layer in block.named_children()
        if isinstance(layer, AdderConv2d)
    }


def _shortcuts(blocks: dict[str, BasicBlock | Bottleneck]) -> dict[str, nn.Module]:
    found = {f"{name}.downsample": block.get_submodule("downsample") for name, block in blocks.items()}
    return {name: shortcut for name, shortcut in found.items() if isinstance(shortcut, Shortcut)}


def with_norm(layer: nn.Module, norm: BatchNorm2d) -> nn.Conv2d:
    """torch's convolution with the norm behind it in its weights; the ReLU is left to the caller."""
    assert isinstance(layer, nn.Conv2d)
    scale, shift = norm.scale_and_shift()
    assert not isinstance(layer.padding, str)
    (r, s), (u, v), (a, b) = layer.kernel_size, layer.stride, layer.padding
    folded = nn.Conv2d(layer.in_channels, layer.out_channels, (r, s), (u, v), (a, b))
    with torch.no_grad():
        folded.weight.copy_(layer.weight * scale.view(-1, 1, 1, 1))
        assert folded.bias is not None
        folded.bias.copy_(shift if layer.bias is None else shift + layer.bias * scale)
    return folded.to(memory_format=torch.channels_last).eval()
