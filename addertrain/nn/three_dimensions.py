"""The adder layer on volumes: images whose channels are those of several depths."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.padding import PaddingMode, StridedEdges

Size3d = int | tuple[int, int, int]


class AdderConv3d(nn.Module):
    """`Y[n,o,d,p,q] = -sum |X - F|` over the patch at (d, p, q): AdderConv2d on depths as channels.

    The sum over a filter's depths and channels is one sum, so that an output depth is an image of C*T
    channels, T the filter's depth. Their copy takes T times the memory of x over the depth's stride. Whatever
    knows adder layers (optimizer, variants, 8 bits, counts, proof, export) finds `conv` inside. Its filters
    are (out_channels, in_channels / groups * T, R, S). Arguments as AdderConv2d's, sizes as numbers or
    triples (depth, height, width).

    Shapes: (N, in_channels, D, H, W) to (N, out_channels, D', P, Q).

    Raises:
        ValueError, TypeError: as AdderConv2d, and for an input of another number of dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size3d,
        stride: Size3d = 1,
        padding: Size3d | Literal["same", "valid"] = 0,
        dilation: Size3d = 1,
        *,
        bias: bool = False,
        offset_free: bool = False,
        rectified: bool = False,
        groups: int = 1,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernels, strides, dilations = (
            _triple(name, value)
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        self.depth, self.stride, self.dilation = kernels[0], strides[0], dilations[0]
        self.padding: int | None  # of each side of the depth; None: what "same" needs
        in_plane: tuple[int, int] | Literal["same", "valid"]
        if padding == "same":
            self.padding, in_plane = None, padding
        elif padding == "valid":
            self.padding, in_plane = 0, padding
        else:
            self.padding, rows, columns = _triple("padding", padding)
            in_plane = (rows, columns)
        if self.depth < 1 or self.stride < 1 or (self.padding or 0) < 0 or self.dilation < 1:
            raise ValueError(
                "AdderConv3d: expected kernel_size, stride and dilation of at least 1 in depth, and "
                f"padding >= 0, got {self.depth}, {self.stride}, {self.dilation} and {self.padding}."
            )
        self.conv = AdderConv2d(
            in_channels * self.depth, out_channels, kernels[1:], strides[1:], in_plane, dilations[1:],
            bias=bias, offset_free=offset_free, rectified=rectified, groups=groups,
            padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation * (self.depth - 1)
        front, back = self._edges(x.shape[2]) if x.dim() == 5 else (0, 0)
        depths = 0 if x.dim() != 5 else (x.shape[2] + front + back - reach - 1) // self.stride + 1
        if depths < 1:
            raise ValueError(
                "AdderConv3d: expected x of shape (N, C, D, H, W), at least as deep as the filter, got "
                f"{tuple(x.shape)}; add missing dimensions with unsqueeze, or pad the depth."
            )
        if front or back:
            mode = self.conv.padding_mode
            x = F.pad(x, (0, 0, 0, 0, front, back), "constant" if mode == "zeros" else mode)
        last = (depths - 1) * self.stride + 1
        starts = range(0, reach + 1, self.dilation)
        taps = torch.stack([x[:, :, start : start + last : self.stride] for start in starts], 2)
        images = taps.movedim(3, 1).flatten(0, 1).flatten(1, 2)  # (N*D', C*T, H, W)
        y: Tensor = self.conv(images)
        return y.unflatten(0, (x.shape[0], depths)).movedim(1, 2)

    def _edges(self, depth: int) -> tuple[int, int]:
        """Images that are padded in front of a volume of this depth and behind it."""
        if self.padding is not None:
            return self.padding, self.padding
        edges = StridedEdges((self.depth, 1), (self.stride, 1), (self.dilation, 1))
        return edges.at((depth, 1))[2:]


def _triple(name: str, value: Size3d) -> tuple[int, int, int]:
    numbers = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(numbers) != 3 or not all(isinstance(number, int) for number in numbers):
        names = ', "same" or "valid"' if name == "padding" else ""
        raise TypeError(f"AdderConv3d: expected {name} as an int or three ints{names}, got {value!r}.")
    return numbers[0], numbers[1], numbers[2]
