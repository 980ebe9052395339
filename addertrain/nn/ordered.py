"""The layer from features to classes, convolution or linear, with one order of sums on CPUs."""

from torch import Tensor, nn

from addertrain.nn.conv import Conv2d
from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops.ordered import ordered_linear


class OrderedConv2d(Conv2d):
    """A 1x1 layer on one pixel, from features to classes; its sums have one order on CPUs (`ops.ordered`).

    torch's convolution adds in an order that depends on the batch and on the number of threads.

    Shapes: x_nchw (N, in_channels, 1, 1) to (N, out_channels, 1, 1).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    @leaf_of_fx
    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        return ordered_linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class OrderedLinear(nn.Linear):
    """torch's Linear on (N, in_features), whose sums have one order on CPUs (`ops.ordered`)."""

    @leaf_of_fx
    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        return ordered_linear(input, self.weight, self.bias)
