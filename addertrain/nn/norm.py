"""Batch normalisation with an optional ReLU, which every adder layer needs behind it."""

from torch import Tensor, nn
from torch.nn.functional import relu


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d, followed by a ReLU if `relu`; the same parameters, buffers and state_dict."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, *, relu: bool = False
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        # In place: neither backward needs the norm's own output.
        return relu(y, inplace=True) if self.relu else y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"
