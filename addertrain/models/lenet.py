"""LeNets for MNIST: every layer is an adder layer, including fully connected ones (Chen et al. 2020, 4.1
and 4.4).
"""

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from addertrain.models.layers import Kind, layer, norm
from addertrain.nn import BatchNorm2d, adder_norm


class LeNet5BN(nn.Module):
    """32x32 images to logits: five layers, each followed by a norm, which includes the logits.

    5x5 1->6, pool, 5x5 6->16, pool, 5x5 16->120, and the fully connected 120->84->classes as 1x1 layers, so
    that tensors stay N,C,H,W to the end. A ReLU follows every norm except the last.

    Args:
        kind: see `addertrain.models.layers`.

    Raises:
        ValueError: for another kind.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, kind: Kind = "adder") -> None:
        super().__init__()
        self.conv1 = layer(kind, in_channels, 6, 5, rectified=False)
        self.norm1 = norm(kind, 6)
        self.conv2 = layer(kind, 6, 16, 5)
        self.norm2 = norm(kind, 16)
        self.conv3 = layer(kind, 16, 120, 5)
        self.norm3 = norm(kind, 120)
        self.fc1 = layer(kind, 120, 84, 1)
        self.norm4 = norm(kind, 84)
        self.fc2 = layer(kind, 84, num_classes, 1)
        self.norm5 = BatchNorm2d(num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = max_pool2d(adder_norm(self.conv1, self.norm1, x_nchw), 2)
        x = max_pool2d(adder_norm(self.conv2, self.norm2, x), 2)
        x = adder_norm(self.conv3, self.norm3, x)
        x = adder_norm(self.fc1, self.norm4, x)
        x = adder_norm(self.fc2, self.norm5, x)
        return x.flatten(1)


class LeNetPlusPlus(nn.Module):
    """32x32 images to two features that can be plotted, and from these to logits.

    Six 5x5 layers of 32, 32, 64, 64, 128 and 128 filters with a pool after each pair, a 2-wide fully
    connected layer, and the classes (the network: Wen et al. 2016, section 4.1).

    Raises:
        ValueError: for another kind.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, kind: Kind = "adder") -> None:
        super().__init__()
        channels = in_channels
        for index, width in enumerate((32, 32, 64, 64, 128, 128), start=1):
            self.add_module(f"conv{index}", layer(kind, channels, width, 5, padding=2, rectified=index > 1))
            self.add_module(f"norm{index}", norm(kind, width))
            channels = width
        self.fc1 = layer(kind, 16 * channels, 2, 1)
        self.norm7 = BatchNorm2d(2)
        self.fc2 = layer(kind, 2, num_classes, 1, rectified=False)
        self.norm8 = BatchNorm2d(num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        y = adder_norm(self.fc2, self.norm8, self.features(x_nchw))
        return y.flatten(1)

    def features(self, x_nchw: Tensor) -> Tensor:
        """The two features, normalised but without a ReLU, so that they use the full plane: (N, 2, 1, 1)."""
        x = x_nchw
        for index in range(1, 7):
            x = adder_norm(self.get_submodule(f"conv{index}"), self.get_submodule(f"norm{index}"), x)
            if index % 2 == 0:
                x = max_pool2d(x, 2)
        return adder_norm(self.fc1, self.norm7, x.flatten(1).unsqueeze(2).unsqueeze(3))
