"""A network's twin for inference whose layers are written in operations that every format has."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from addertrain.interchange.errors import InterchangeError
from addertrain.nn import AdderConv2d, AdderLinear, BinaryConv2d
from addertrain.nn.binary import binary_filters


def in_standard_operations(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode: adder and binary layers become subtractions, absolute values and sums.

    Raises:
        InterchangeError: an adder layer whose power is not 1.
    """
    twin = copy.deepcopy(model).eval()
    for name, module in list(twin.named_modules()):
        if (standard := _standard(name, module)) is None:
            continue
        if not name:
            return standard.eval()
        parent, _, attribute = name.rpartition(".")
        setattr(twin.get_submodule(parent), attribute, standard)
    return twin.eval()


def _standard(name: str, module: nn.Module) -> nn.Module | None:
    if isinstance(module, AdderConv2d | AdderLinear):
        if module.form is not None and module.form.p != 1:
            raise InterchangeError(
                f"expected adder layers of power 1, got {module.form.p:g} in {name}; export a network whose "
                "schedule has come to its end"
            )
        return _StandardAdder(module) if isinstance(module, AdderConv2d) else _StandardAdderLinear(module)
    return _StandardBinary(module) if isinstance(module, BinaryConv2d) else None


class _StandardAdder(nn.Module):
    """Eq. 2 tap by tap: for each (r, s) one difference of a shifted image and a column of filters.

    The largest intermediate has O times the elements of x, instead of O·R·S times those of an unfolding.
    """

    def __init__(self, layer: AdderConv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        self.offset_free = layer.offset_free

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = pad(x_nchw, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        H, W = x.shape[2:]
        P = (H - self.dilation[0] * (self.kernel_size[0] - 1) - 1) // self.stride[0] + 1
        Q = (W - self.dilation[1] * (self.kernel_size[1] - 1) - 1) // self.stride[1] + 1
        distance: Tensor | None = None
        for r in range(self.kernel_size[0]):
            rows = slice(
                r * self.dilation[0], r * self.dilation[0] + (P - 1) * self.stride[0] + 1, self.stride[0]
            )
            for s in range(self.kernel_size[1]):
                first = s * self.dilation[1]
                columns = slice(first, first + (Q - 1) * self.stride[1] + 1, self.stride[1])
                w = self.weight[:, :, r, s].unsqueeze(-1).unsqueeze(-1)  # (O, C, 1, 1)
                tap = (x[:, None, :, rows, columns] - w).abs()
                if self.offset_free:
                    tap = tap - w.abs()
                total = tap.sum(2)
                distance = total if distance is None else distance + total
        assert distance is not None
        return -distance if self.bias is None else self.bias.view(-1, 1, 1) - distance


class _StandardAdderLinear(nn.Module):
    def __init__(self, layer: AdderLinear) -> None:
        super().__init__()
        self.weight, self.bias, self.offset_free = layer.weight, layer.bias, layer.offset_free

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.unsqueeze(-2) - self.weight).abs()
        if self.offset_free:
            distance = distance - self.weight.abs()
        y = -distance.sum(-1)
        return y if self.bias is None else y + self.bias


class _StandardBinary(nn.Module):
    """A convolution of signs with the scaled signs of the filters, which are constants here."""

    def __init__(self, layer: BinaryConv2d) -> None:
        super().__init__()
        self.register_buffer("weight", binary_filters(layer.weight.detach()))
        self.stride, self.padding = layer.stride, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        signs = torch.where(x >= 0, 1.0, -1.0)
        assert not isinstance(self.padding, str)
        return conv2d(signs, self.get_buffer("weight"), None, self.stride, self.padding)
