"""Logits under one, two and three threads, and in batches of every small size."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from addertrain.models import build_model
from tests.ops.threads import differing


@pytest.mark.parametrize(
    ("name", "head", "batches"),
    [
        ("lenet5bn", "norm", range(1, 18)),
        ("resnet20", "norm", range(1, 18)),
        ("resnet8", "linear", (2, 9, 17)),
    ],
)
def test_threads_change_no_bit_of_the_logits(name: str, head: str, batches: Sequence[int]) -> None:
    torch.manual_seed(0)
    model = build_model(name, kind="adder", num_classes=10, head=head).eval()
    model.to(memory_format=torch.channels_last)
    images = torch.randn(17, 1 if name == "lenet5bn" else 3, 32, 32).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def logits() -> list[Tensor]:
        return [model(images[:count]) for count in batches]

    assert not differing(logits), "batches whose logits differ"
