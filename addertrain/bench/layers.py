"""The adder layers of the papers' networks, each shape once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerShape:
    """One square adder layer. C channels in, O filters, `size` input height and width."""

    name: str
    C: int
    O: int  # noqa: E741
    size: int
    kernel: int
    stride: int
    padding: int
    count: int = 1

    @property
    def output_size(self) -> int:
        """Height and width of the response."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def elements_per_image(self) -> int:
        """Evaluations of |x - w| in one pass over one image."""
        return self.O * self.output_size**2 * self.C * self.kernel**2


def _conv3(C: int, filters: int, size: int, *, stride: int = 1, count: int = 1) -> LayerShape:
    suffix = f"{C}->{filters} s{stride}" if stride > 1 else f"{filters}"
    return LayerShape(f"3x3 {suffix} @{size}", C, filters, size, 3, stride, 1, count)


def _conv1(C: int, filters: int, size: int, *, stride: int = 1, count: int = 1) -> LayerShape:
    suffix = f" s{stride}" if stride > 1 else ""
    return LayerShape(f"1x1 {C}->{filters}{suffix} @{size}", C, filters, size, 1, stride, 0, count)


def _lenet5bn() -> list[LayerShape]:
    return [
        LayerShape("5x5 1->6 @32", 1, 6, 32, 5, 1, 0),
        LayerShape("5x5 6->16 @14", 6, 16, 14, 5, 1, 0),
        LayerShape("5x5 16->120 @5", 16, 120, 5, 5, 1, 0),
        _conv1(120, 84, 1),
        _conv1(84, 10, 1),
    ]


def _resnet20() -> list[LayerShape]:
    layers = [_conv3(16, 16, 32, count=6)]
    for C, size in ((16, 32), (32, 16)):
        down = [_conv3(C, 2 * C, size, stride=2), _conv1(C, 2 * C, size, stride=2)]
        layers += [*down, _conv3(2 * C, 2 * C, size // 2, count=5)]
    return layers


def _resnet18() -> list[LayerShape]:
    layers = [_conv3(64, 64, 56, count=4)]
    for C, size in ((64, 56), (128, 28), (256, 14)):
        down = [_conv3(C, 2 * C, size, stride=2), _conv1(C, 2 * C, size, stride=2)]
        layers += [*down, _conv3(2 * C, 2 * C, size // 2, count=3)]
    return layers


def _resnet50() -> list[LayerShape]:
    """Bottlenecks of 1x1, 3x3 and 1x1 with the stride on the 3x3."""
    layers: list[LayerShape] = []
    C, size = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        stride = 1 if stage == 0 else 2
        out = 4 * width
        layers += [_conv1(C, width, size), _conv3(width, width, size, stride=stride)]
        layers += [_conv1(C, out, size, stride=stride)]
        size //= stride
        layers += [_conv1(width, out, size, count=blocks), _conv1(out, width, size, count=blocks - 1)]
        layers += [_conv3(width, width, size, count=blocks - 1)]
        C = out
    return layers


@dataclass(frozen=True)
class Network:
    """A network's layers and the batch its speed is quoted at."""

    batch: int
    layers: list[LayerShape]


NETWORKS = {
    "lenet5bn": Network(256, _lenet5bn()),
    "resnet20": Network(128, _resnet20()),
    "resnet18": Network(16, _resnet18()),
    "resnet50": Network(16, _resnet50()),
}
