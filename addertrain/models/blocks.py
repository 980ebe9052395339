"""Residual blocks (He et al. 2016) of any kind of layer, with torchvision's names for their submodules."""

from torch import Tensor, nn

from addertrain.models.layers import Kind, end_of_block, layer, norm
from addertrain.nn import BatchNorm2d, adder_norm


class BasicBlock(nn.Module):
    """Two 3x3 layers; the first one carries the stride."""

    expansion = 1

    def __init__(self, kind: Kind, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = layer(kind, in_channels, width, 3, stride, 1)
        self.bn1 = norm(kind, width)
        self.conv2 = layer(kind, width, width, 3, 1, 1)
        self.bn2 = BatchNorm2d(width)
        self.downsample = shortcut(kind, in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = adder_norm(self.conv1, self.bn1, x)
        return end_of_block(self.kind, self.conv2, self.bn2, y, self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 layers, the last one four times as wide; the 3x3 one carries the stride."""

    expansion = 4

    def __init__(self, kind: Kind, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.kind = kind
        out_channels = self.expansion * width
        self.conv1 = layer(kind, in_channels, width, 1)
        self.bn1 = norm(kind, width)
        self.conv2 = layer(kind, width, width, 3, stride, 1)
        self.bn2 = norm(kind, width)
        self.conv3 = layer(kind, width, out_channels, 1)
        self.bn3 = BatchNorm2d(out_channels)
        self.downsample = shortcut(kind, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = adder_norm(self.conv1, self.bn1, x)
        y = adder_norm(self.conv2, self.bn2, y)
        return end_of_block(self.kind, self.conv3, self.bn3, y, self.downsample(x))


def shortcut(kind: Kind, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity if the block keeps its input's shape, otherwise a 1x1 layer of the network's kind and a
    norm.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return Shortcut(layer(kind, in_channels, out_channels, 1, stride), BatchNorm2d(out_channels))


class Shortcut(nn.Sequential):
    """A layer and a norm, under the names that a Sequential would give them."""

    def forward(self, x: Tensor) -> Tensor:
        """norm(layer(x))."""
        return adder_norm(self[0], self[1], x)
