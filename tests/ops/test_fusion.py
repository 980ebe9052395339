"""Which operators compute a layer, its norm, a sum and a ReLU, by the settings that lead to each way."""

from dataclasses import replace

import pytest
import torch

from addertrain.ops import fusion
from addertrain.ops.fusion import Pair, Path

PAIR = Pair(
    weight=torch.zeros(4, 4, 3, 3),
    stride=(1, 1),
    offset_free=True,
    rectified=True,
    trains=True,
    has_statistics=True,
    norm_dtype=torch.float32,
)
X = torch.zeros(1, 4, 5, 5).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("serves", "changes", "with_gradients", "path"),
    [
        (False, {}, True, "centred"),
        (False, {"rectified": False}, True, "plain"),
        (False, {"trains": False}, False, "plain"),
        (True, {}, True, "with_sums"),
        (True, {"trains": False}, False, "affine"),
        (True, {"trains": False}, True, "plain"),
        (True, {"offset_free": False}, True, "centred"),
        (True, {"has_statistics": False}, True, "centred"),
        (True, {"norm_dtype": torch.bfloat16}, True, "centred"),
        (True, {"norm_dtype": torch.float64}, True, "centred"),
        (True, {"norm_dtype": torch.float64, "trains": False}, False, "plain"),
    ],
)
def test_the_response(
    serves: bool,
    changes: dict[str, object],
    with_gradients: bool,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fusion, "tiles_serve", lambda *_: serves)
    with torch.set_grad_enabled(with_gradients):
        assert fusion.response_path(replace(PAIR, **changes), X) == path


def test_the_end_of_a_block() -> None:
    assert fusion.end_path(X, X) == "residual"
    for other in (X.double(), X.contiguous(), X[:, :1].to(memory_format=torch.channels_last)):
        assert fusion.end_path(X, other) == "plain"


def test_tiles_serve_no_cpu() -> None:
    assert not fusion.tiles_serve(X, PAIR.weight, PAIR.stride)
