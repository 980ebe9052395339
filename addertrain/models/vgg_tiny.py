"""A small VGG-like network for CIFAR that trains on a CPU in minutes; no paper has it."""

import torch
from torch import Tensor, nn

from addertrain.models.layers import Head, Kind, last_layers, layer, logits, norm
from addertrain.models.vgg import with_pools
from addertrain.nn import Conv2d

WIDTHS = (64, 64, 256, 256, 256, 256)


class VGGTiny(nn.Module):
    """32x32 images to logits: a 2x2 convolution to 24 channels, then 3x3 layers in pairs, a pool after the
    first of each pair, and the largest value of every channel.

    As convolutions it is the teacher of ResNet-20 on a CPU: more accurate after the same time than
    ResNet-20's convolutional baseline, because most of its work is in wide layers, where a processor computes
    fastest. So that it learns in few epochs, the first layer starts from the cosine transforms of opponent
    colours and their negatives, which decorrelate the pixels of photographs, and other convolutions start by
    passing their inputs on.

    Raises:
        ValueError: for another kind or head.
    """

    def __init__(self, *, num_classes: int = 10, kind: Kind = "adder", head: Head = "norm") -> None:
        super().__init__()
        self.conv1, self.norm1 = Conv2d(3, 24, 2), norm(kind, 24)
        with torch.no_grad():
            self.conv1.weight.copy_(cosine_filters())
        channels = 24
        for index, width in enumerate(WIDTHS, start=2):
            conv = layer(kind, channels, width, 3, padding=1)
            if isinstance(conv, Conv2d):
                nn.init.dirac_(conv.weight[: min(channels, width)])
            self.add_module(f"conv{index}", conv)
            self.add_module(f"norm{index}", norm(kind, width))
            channels = width
        self.fc, self.norm8 = last_layers(head, channels, num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = with_pools(self, x_nchw, num_layers=1 + len(WIDTHS))
        return logits(self.fc, self.norm8, x.amax((2, 3), keepdim=True))


def cosine_filters() -> Tensor:
    """24 filters [24, 3, 2, 2] of norm 1: the 2x2 cosine transforms of grey, of red minus blue, and of red
    and blue minus twice the green; and the negatives of these twelve."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    opponents = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = opponents / opponents.norm(dim=1, keepdim=True)
    filters = torch.einsum("ai,bj,kc->abkcij", pair, pair, colours).reshape(12, 3, 2, 2)
    return torch.cat([filters, -filters])
