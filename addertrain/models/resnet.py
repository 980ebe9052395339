"""ResNets for CIFAR (8, 20, 32) and ImageNet (18, 50, 101), as the authors' code builds them.

First and last layers are convolutions, down-sampling shortcuts are 1x1 layers of the network's kind, the
logits have a norm. Names of parameters are torchvision's: with kind="conv" and head="linear" the ImageNet
networks are torchvision's, and load its weights.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from addertrain.models.blocks import BasicBlock, Bottleneck
from addertrain.models.layers import Head, Kind, last_layers, logits, norm
from addertrain.nn import Conv2d

Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over the image, and a last layer.

    Args:
        block: the kind of block.
        depths, widths: the number of blocks and the width of each stage; all stages except the first halve
            the image.
        stem: "cifar", a 3x3 convolution; "imagenet", a 7x7 one of stride 2 and a max pool, which together
            quarter the image. ImageNet networks start their convolutions from He's normal distribution,
            CIFAR networks from torch's own.
        kind, head: see `addertrain.models.layers`.

    Raises:
        ValueError: for another kind or head.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int,
        stem: Literal["cifar", "imagenet"],
        kind: Kind = "adder",
        head: Head = "norm",
    ) -> None:
        super().__init__()
        if stem == "cifar":
            self.conv1 = Conv2d(3, widths[0], 3, padding=1)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = Conv2d(3, widths[0], 7, stride=2, padding=3)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = norm(kind, widths[0])
        channels = widths[0]
        self.num_stages = len(depths)
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(block(kind, channels, width, stride))
                channels = block.expansion * width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc, self.bn2 = last_layers(head, channels, num_classes)
        if stem == "imagenet":
            _start_convolutions(self)

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x_nchw)))
        for stage in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return logits(self.fc, self.bn2, self.avgpool(x))


def _start_convolutions(model: nn.Module) -> None:
    """Initialises convolutions from He's normal distribution by the fan-out."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet8(*, num_classes: int = 10, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """One basic block per stage, 16, 32 and 64 wide, for experiments of minutes on a CPU; no paper has it."""
    return _cifar(1, num_classes=num_classes, kind=kind, head=head)


def resnet20(*, num_classes: int = 10, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """CIFAR's ResNet of 20 layers: three stages of three basic blocks, 16, 32 and 64 wide."""
    return _cifar(3, num_classes=num_classes, kind=kind, head=head)


def resnet32(*, num_classes: int = 10, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """CIFAR's ResNet of 32 layers: three stages of five basic blocks, 16, 32 and 64 wide."""
    return _cifar(5, num_classes=num_classes, kind=kind, head=head)


def resnet18(*, num_classes: int = 1000, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """ImageNet's ResNet-18."""
    return _imagenet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, kind=kind, head=head)


def resnet50(*, num_classes: int = 1000, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """ImageNet's ResNet-50."""
    return _imagenet(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, kind=kind, head=head)


def resnet101(*, num_classes: int = 1000, kind: Kind = "adder", head: Head = "norm") -> ResNet:
    """ImageNet's ResNet-101."""
    return _imagenet(Bottleneck, (3, 4, 23, 3), num_classes=num_classes, kind=kind, head=head)


def _cifar(depth: int, *, num_classes: int, kind: Kind, head: Head) -> ResNet:
    return ResNet(
        BasicBlock, [depth] * 3, (16, 32, 64), num_classes=num_classes, stem="cifar", kind=kind, head=head
    )


def _imagenet(block: Block, depths: Sequence[int], *, num_classes: int, kind: Kind, head: Head) -> ResNet:
    return ResNet(
        block, depths, (64, 128, 256, 512), num_classes=num_classes, stem="imagenet", kind=kind, head=head
    )
