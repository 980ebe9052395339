"""VGG-small for CIFAR: six 3x3 layers and a fully connected one (as convolutions: Cai et al. 2017)."""

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from addertrain.models.layers import Head, Kind, last_layers, layer, logits, norm
from addertrain.nn import adder_norm

WIDTHS = (128, 128, 256, 256, 512, 512)


class VGGSmall(nn.Module):
    """32x32 images to logits: 2x 128, 2x 256 and 2x 512 filters, a pool after each pair, then the classes.
    The first layer is a convolution, and the last one is a 1x1 convolution of the flattened 4x4 map of 512
    channels. Pools come before the norm, where binary networks need them; with positive scales of the norm
    this equals a pool after the ReLU except for the statistics.

    Raises:
        ValueError: for another kind or head.
    """

    def __init__(self, *, num_classes: int = 10, kind: Kind = "adder", head: Head = "norm") -> None:
        super().__init__()
        channels = 3
        for index, width in enumerate(WIDTHS, start=1):
            self.add_module(
                f"conv{index}", layer("conv" if index == 1 else kind, channels, width, 3, padding=1)
            )
            self.add_module(f"norm{index}", norm(kind, width))
            channels = width
        self.fc, self.norm7 = last_layers(head, 16 * channels, num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = with_pools(self, x_nchw, num_layers=len(WIDTHS))
        features = x.flatten(1).unsqueeze(2).unsqueeze(3)
        return logits(self.fc, self.norm7, features)


def with_pools(network: nn.Module, x_nchw: Tensor, *, num_layers: int) -> Tensor:
    """x after the layers conv1, conv2, ... and their norms, with a pool before every second norm."""
    x = x_nchw
    for index in range(1, num_layers + 1):
        conv, norm_behind = network.get_submodule(f"conv{index}"), network.get_submodule(f"norm{index}")
        x = norm_behind(max_pool2d(conv(x), 2)) if index % 2 == 0 else adder_norm(conv, norm_behind, x)
    return x
