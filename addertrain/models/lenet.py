"""LeNet-5-BN for MNIST: every layer is an adder, the fully connected ones too (Chen et al. 2020, 4.1)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from addertrain.nn import AdderConv2d, BatchNorm2d

Kind = Literal["adder", "conv"]


class LeNet5BN(nn.Module):
    """32x32 images to logits: five layers with a norm behind each, on the logits as well.

    5x5 1->6, pool, 5x5 6->16, pool, 5x5 16->120, and the fully connected 120->84->classes as 1x1 layers, so
    that tensors stay N,C,H,W to the end. ReLU behind every norm but the last.

    Args:
        kind: "adder", or "conv" for the convolutional twin, with torch's initialisation.

    Raises:
        ValueError: for another kind.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, kind: Kind = "adder") -> None:
        super().__init__()
        self.conv1 = _layer(kind, in_channels, 6, 5)
        self.norm1 = BatchNorm2d(6, relu=True)
        self.conv2 = _layer(kind, 6, 16, 5)
        self.norm2 = BatchNorm2d(16, relu=True)
        self.conv3 = _layer(kind, 16, 120, 5)
        self.norm3 = BatchNorm2d(120, relu=True)
        self.fc1 = _layer(kind, 120, 84, 1)
        self.norm4 = BatchNorm2d(84, relu=True)
        self.fc2 = _layer(kind, 84, num_classes, 1)
        self.norm5 = BatchNorm2d(num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = max_pool2d(self.norm1(self.conv1(x_nchw)), 2)
        x = max_pool2d(self.norm2(self.conv2(x)), 2)
        x = self.norm3(self.conv3(x))
        x = self.norm4(self.fc1(x))
        x = self.norm5(self.fc2(x))
        return x.flatten(1)


def _layer(kind: Kind, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    if kind == "adder":
        return AdderConv2d(in_channels, out_channels, kernel_size, offset_free=True)
    if kind == "conv":
        return nn.Conv2d(in_channels, out_channels, kernel_size, bias=False)
    raise ValueError(f"LeNet5BN: expected kind to be adder or conv, got {kind!r}.")
