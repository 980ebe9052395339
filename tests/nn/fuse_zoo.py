"""Ways in which people write layer, norm, sum and ReLU, and networks that only look like one of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, BatchNorm2d

SLOPE = 0.5
mean = (0.5,)
"""Named as the method that a network calls."""


def images(channels: int = 4, size: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, size, size, generator=draw).to(memory_format=torch.channels_last)


@dataclass
class Step:
    """What a training step leaves behind."""

    output: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def step(model: nn.Module, dtype: torch.dtype = torch.float32) -> Step:
    model.zero_grad()
    channels = next(model.parameters()).shape[1]
    x = images(channels, 8 if channels == 4 else 64).to(dtype).requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return Step(y.detach().clone(), {"x": x.grad, **gradients}, buffers)


class Block(nn.Module):
    """Two layers of four channels, their norms, and one ReLU for all, as torchvision has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = AdderConv2d(4, 4, 3, padding=1, offset_free=True)
        self.bn1 = BatchNorm2d(4)
        self.conv2 = AdderConv2d(4, 4, 3, padding=1, offset_free=True)
        self.bn2 = BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)


class Modules(Block):
    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        out += identity
        return self.relu(out)


class Functions(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return torch.relu(torch.add(x, self.bn2(self.conv2(y))))


class Methods(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).add_(x)
        return y.relu_()


class Optional(Block):
    """timm's way: parts that may be None or identities."""

    def __init__(self, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.drop = nn.Identity()
        self.shortcut = shortcut
        self.attention = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.drop(self.bn1(self.conv1(x))))
        y = self.bn2(self.conv2(y))
        if self.attention is not None:
            y = self.attention(y)
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


def _shortcut() -> nn.Module:
    return nn.Sequential(AdderConv2d(4, 4, 1, offset_free=True), BatchNorm2d(4))


class Joined(Block):
    """conv1 reads the input; conv2 what pooled and joined ReLUs let through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = AdderConv2d(8, 4, 3, padding=1, offset_free=True)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = torch.cat([self.pool(y), F.avg_pool2d(y, 2) + self.pool(y)], 1)
        return self.bn2(self.conv2(y))


class StemAndSum(Block):
    """The block's end adds what the stem's ReLU, in the same code, let through."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        return x.mean((2, 3))


class StemFirstInTheSum(StemAndSum):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(x)))


class ProjectedInOneForward(Block):
    """The shortcut's layer and norm stand beside the block's own."""

    def __init__(self) -> None:
        super().__init__()
        self.project = AdderConv2d(4, 4, 1, offset_free=True)
        self.project_norm = BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.project_norm(self.project(x))
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class EndUponEnd(Block):
    """Three block ends, each of which adds the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3 = AdderConv2d(4, 4, 3, padding=1, offset_free=True)
        self.norm3 = BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.bn1(self.conv1(x)) + x).relu()
        x = (x + self.bn2(self.conv2(x))).relu()
        return torch.add(self.norm3(self.conv3(x)), x).relu_()


class Pooled(Block):
    """A pool's function between ReLU and layer."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        return F.relu(self.bn2(self.conv2(x)))


def _pooled_by_the_largest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def _pooled_without_indices(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1, return_indices=False)


def _pooled_by_the_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, divisor_override=None)


def _pooled_over_another_number(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, divisor_override=3)


def _pooled_to_indices(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) + F.max_pool2d(x, 2, return_indices=True)[1]


class DenselyJoined(Block):
    """Each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = AdderConv2d(8, 4, 3, padding=1, offset_free=True)

    def forward(self, x: Tensor) -> Tensor:
        features = [torch.relu(x)]
        features.append(F.relu(self.bn1(self.conv1(torch.cat(features, 1)))))
        features.append(F.relu(self.bn2(self.conv2(torch.cat(features, dim=1)))))
        return torch.cat(features, 1)


class PreActivated(Block):
    """Norm and ReLU come before their layer, and nothing behind the sum."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        return out + x


class SqueezeExcite(Block):
    """A gate from the image's mean scales the second norm's result before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y * self.excite(self.squeeze(y))
        return self.relu(y + x)


class StemInASequential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.body = nn.Sequential(StemAndSumOfModules(), StemAndSumOfModules())

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.body(self.features(x)), 1)


class StemAndSumOfModules(Block):
    """One ReLU for all, `out += x`, with dropout that evaluation alone leaves out."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out = F.dropout(x, 0.0, self.training)
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class ModesApart(Block):
    """Code that asks for the mode, around a stem and a sum."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        return x if self.training else x.clamp(max=6.0)


FOUND: dict[str, Callable[[], tuple[nn.Module, list[str], int, int]]] = {
    "modules": lambda: (Modules(), ["conv2"], 2, 1),
    "functions": lambda: (Functions(), ["conv2"], 2, 1),
    "methods": lambda: (Methods(), ["conv2"], 2, 1),
    "optional parts": lambda: (Optional(None), ["conv2"], 2, 1),
    "shortcut": lambda: (Optional(_shortcut()), ["conv2"], 3, 1),
    "two blocks": lambda: (
        nn.Sequential(Modules(), Functions()), ["0.conv2", "1.conv1", "1.conv2"], 4, 2,
    ),
    "one block twice": lambda: (_twice(Modules()), ["0.conv2"], 2, 1),
    "joined": lambda: (Joined(), ["conv2"], 2, 0),
    "stem and sum in one code": lambda: (StemAndSum(), ["conv2"], 2, 1),
    "stem first in the sum": lambda: (StemFirstInTheSum(), ["conv2"], 2, 1),
    "projection in one code": lambda: (ProjectedInOneForward(), ["conv2"], 3, 1),
    "end upon end": lambda: (EndUponEnd(), ["conv2", "conv3"], 3, 3),
    "dense": lambda: (DenselyJoined(), ["conv1", "conv2"], 2, 0),
    "before the layer": lambda: (PreActivated(), ["conv1", "conv2"], 2, 0),
    "squeeze and excite": lambda: (SqueezeExcite(), ["conv2"], 2, 0),
    "stem in a Sequential": lambda: (
        StemInASequential(), ["body.0.conv1", "body.0.conv2", "body.1.conv1", "body.1.conv2"], 5, 2,
    ),
    "one ReLU and dropout": lambda: (StemAndSumOfModules(), ["conv2"], 2, 1),
    "the largest of a window": lambda: (Pooled(_pooled_by_the_largest), ["conv2"], 2, 0),
    "the largest without its index": lambda: (Pooled(_pooled_without_indices), ["conv2"], 2, 0),
    "a window's mean": lambda: (Pooled(_pooled_by_the_mean), ["conv2"], 2, 0),
    "modes apart": lambda: (ModesApart(), ["conv2"], 2, 1),
}  # fmt: skip
"""Name -> a network, its layers that read a ReLU, and how many norms and block ends are fused."""


def _twice(block: nn.Module) -> nn.Module:
    return nn.Sequential(block, block)


class Clamps(Block):
    """Lets the gradient of an exact 0 through."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).clamp(min=0)
        return (self.bn2(self.conv2(y)) + x).clamp(min=0)


class LayerTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(self.bn2(self.conv1(y)) + y)


class NormTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.bn1(self.conv1(x)))
        return self.relu(self.bn1(self.conv2(y)) + x)


class NormReadTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.sigmoid(self.bn1(self.conv1(x)))))
        return self.relu(y + x) + y


class SumReadTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.sigmoid(self.bn1(self.conv1(x))))) + x
        return torch.relu(y) + y


class WrittenUnderTheReader(Block):
    """The ReLU in place writes what the sum reads as well."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return F.relu(y, inplace=True) * torch.tanh(y)


class WritesIdentity(Block):
    """The sum lies in what the last line reads."""

    def forward(self, x: Tensor) -> Tensor:
        identity = torch.tanh(self.bn1(self.conv1(x)) * 2)
        shifted = identity + 1.0
        shifted += self.bn2(self.conv2(identity))
        return torch.relu(shifted) * shifted


class WritesBetween(Block):
    """What the layer has read is written before its norm is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.weight.requires_grad_(False)  # its gradient would need what is written

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x) * 1.0
        z = self.conv1(y.detach())
        y.mul_(2.0)
        return self.relu(self.bn1(z) + y)


class Shifts(Block):
    """Adds to what a ReLU let through, in place: a gradient that the ReLU would drop arrives at the shift."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(self.relu(self.bn1(self.conv1(x))), 3, 1, 1)
        y[:, :, 1:].add_(self.shift)
        return self.bn2(self.conv2(y))


class AsksForData(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if x.mean() > -9 else y


class AsksForShape(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if x.shape[2] == 8 else y


class AsksForType(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if isinstance(x, Tensor) else y


class AsksForGlobalTuple(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if mean[0] else y.mean(1)


class AsksForGlobal(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if SLOPE else y


def _around(slope: float) -> nn.Module:
    class AsksAround(Block):
        def forward(self, x: Tensor) -> Tensor:
            y = self.bn1(self.conv1(x))
            return self.relu(y + x) if slope else y

    return AsksAround()


class DrawsNumbers(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if random.random() < 2 else y


class Counts(Block):
    num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return self.relu(self.bn1(self.conv1(x)) + x)


class Remembers(Block):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.seen["x"] = x
        return self.relu(self.bn1(self.conv1(x)) + x)


class TakesOptions(Block):
    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.relu(y + x) if residual is None else self.relu(y + residual)


class Gates(Block):
    """A product's zeros are not all a ReLU's."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.bn1(self.conv1(x)))
        return self.conv2(F.relu(y) * torch.tanh(x))


class Reaches(nn.Module):
    """Calls a layer past the block that it belongs to, in code that cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Modules()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return self.block.conv2(x.abs()) + y if isinstance(x, Tensor) else y


LEFT: dict[str, Callable[[], tuple[nn.Module, str]]] = {
    "clamp": lambda: (Clamps(), "0 of 2"),
    "a layer called twice": lambda: (LayerTwice(), "0 norms"),
    "a norm called twice": lambda: (NormTwice(), "0 norms"),
    "a norm's result read twice": lambda: (NormReadTwice(), "0 block ends"),
    "a sum read twice": lambda: (SumReadTwice(), "0 block ends"),
    "a ReLU in place of what others read": lambda: (WrittenUnderTheReader(), "1 norm,"),
    "a sum in place of what others read": lambda: (WritesIdentity(), "0 block ends"),
    "a write between layer and norm": lambda: (WritesBetween(), "0 block ends"),
    "a write into what a ReLU let through": lambda: (Shifts(), "0 of 2"),
    "data": lambda: (AsksForData(), "the code of the network itself stays as it is"),
    "shape": lambda: (AsksForShape(), "the code of the network itself stays as it is"),
    "type": lambda: (AsksForType(), "it calls isinstance"),
    "global": lambda: (AsksForGlobal(), "it reads SLOPE"),
    "a global tuple": lambda: (AsksForGlobalTuple(), "it reads mean"),
    "closure": lambda: (_around(1.0), "it reads slope of the function around it"),
    "random numbers": lambda: (DrawsNumbers(), "it draws random numbers"),
    "attributes written": lambda: (Counts(), "it writes self.num_calls"),
    "a dict": lambda: (Remembers(), "it reads self.seen, a dict"),
    "optional arguments": lambda: (TakesOptions(), "it takes optional arguments"),
    "a pool over another number": lambda: (Pooled(_pooled_over_another_number), "0 of 2"),
    "a pool's indices": lambda: (Pooled(_pooled_to_indices), "0 of 2"),
    "a product": lambda: (Gates(), "0 of 2"),
}
"""Name -> a network without a block's end or a layer behind a ReLU, and what `fuse` says of it."""
