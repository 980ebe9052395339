"""The adder layer on sequences: an image of one row."""

from typing import Literal

import torch
from torch import Tensor, nn

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.padding import PaddingMode


class AdderConv1d(nn.Module):
    """`Y[n,o,p] = -sum_{c,r} |X[n, c, p*u + r*e - a] - F[o,c,r]|`: AdderConv2d on images of one row.

    Whatever knows adder layers (optimizer, variants, 8 bits, counts, proof, export) finds `conv` inside. Its
    filters are (out_channels, in_channels / groups, 1, kernel_size). Arguments as AdderConv2d's.

    Shapes: (N, in_channels, L) to (N, out_channels, P).

    Raises:
        ValueError, TypeError: as AdderConv2d, and for an input of another number of dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | Literal["same", "valid"] = 0,
        dilation: int = 1,
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
        self.conv = AdderConv2d(
            in_channels, out_channels, (1, kernel_size), (1, stride),
            padding if isinstance(padding, str) else (0, padding), (1, dilation),
            bias=bias, offset_free=offset_free, rectified=rectified, groups=groups,
            padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3:
            raise ValueError(
                f"AdderConv1d: expected x of shape (N, C, L), got {tuple(x.shape)}; add the missing "
                "dimensions with unsqueeze."
            )
        y: Tensor = self.conv(x.unsqueeze(2))
        return y.squeeze(2)
