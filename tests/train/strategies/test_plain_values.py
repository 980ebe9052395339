import json

import pytest
import torch

from addertrain.train.strategies.plain_values import from_plain, to_plain

TENSORS = [
    torch.tensor(float("-inf")),
    torch.tensor([[1.5, float("nan")], [-0.0, 3.0]], dtype=torch.bfloat16),
    torch.arange(6).reshape(2, 3).t(),
    torch.tensor([True, False]),
    torch.empty(0, 4),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: str(tensor.dtype))
def test_a_tensor_in_a_state_comes_back_bit_for_bit(tensor: torch.Tensor) -> None:
    state = {"best": [tensor, {"of": tensor}], "count": 3, "name": None}

    back = from_plain(json.loads(json.dumps(to_plain(state))))

    for found in (back["best"][0], back["best"][1]["of"]):
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        same = torch.equal(found.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
        assert same, (found, tensor)
    assert (back["count"], back["name"]) == (3, None)
