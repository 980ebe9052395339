"""The convolution of convolutional networks, and of the first layer of adder networks."""

from torch import Tensor, nn

from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops.convolution import conv2d


class Conv2d(nn.Conv2d):
    """torch's Conv2d without groups, dilation and padding modes; the same parameters, start and state_dict.

    On CPUs pointwise layers with a stride have a filter gradient of our own, and 16-bit sums are accumulated
    in float32 (`ops.convolution`); everything else is torch's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    @leaf_of_fx
    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        return conv2d(input, self.weight, self.bias, self.stride, self.padding)
