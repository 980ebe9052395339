from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from addertrain.errors import CheckpointError
from addertrain.nn import param_groups
from addertrain.optim import AdderSGD
from addertrain.train.strategies.portable import (
    float_buffers,
    gather_buffers,
    load_model,
    mean_over_ranks,
    names_of_parameters,
    optimizer_by_index,
    optimizer_by_name,
)
from tests.ranks import on_ranks
from tests.train.small_runs import TinyNet


def _stepped() -> tuple[TinyNet, AdderSGD]:
    model = TinyNet()
    optimizer = AdderSGD(param_groups(model, weight_decay=5e-4, decay_norm_and_bias=False), lr=0.1)
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_names_follow_the_optimizers_order_not_the_models() -> None:
    model, optimizer = _stepped()

    names = names_of_parameters(optimizer, model)

    assert names[0] == "conv.weight"
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert names != [name for name, _ in model.named_parameters()]


def test_momentum_goes_by_name_and_back() -> None:
    model, optimizer = _stepped()
    names, state = names_of_parameters(optimizer, model), optimizer.state_dict()

    named = optimizer_by_name(state, names)
    back = optimizer_by_index(named, names)

    momentum = optimizer.state[model.head.weight]["momentum_buffer"]
    assert torch.equal(named["state"]["head.weight"]["momentum_buffer"], momentum)
    assert back["param_groups"] == state["param_groups"]
    assert back["state"].keys() == state["state"].keys()


def test_another_networks_state_is_refused_with_the_names() -> None:
    model, optimizer = _stepped()
    names = names_of_parameters(optimizer, model)
    named = optimizer_by_name(optimizer.state_dict(), names)

    with pytest.raises(CheckpointError, match=r"missing \['stem.weight'\], unknown \['conv.weight'\]"):
        optimizer_by_index(named, ["stem.weight", *names[1:]])


def test_only_buffers_that_ranks_can_disagree_on_are_gathered() -> None:
    model = TinyNet()
    model.register_buffer("scratch", torch.ones(2), persistent=False)

    assert set(float_buffers(model, "")) == {"norm.running_mean", "norm.running_var"}


def test_one_process_keeps_its_buffers_bit_for_bit() -> None:
    buffers = {"mean": torch.randn(5), "var": torch.rand(3)}

    mean = mean_over_ranks(gather_buffers(buffers))

    assert all(torch.equal(mean[name], buffers[name]) for name in buffers)


def _gathered() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    model = TinyNet()
    model.norm.running_mean.fill_(float(dist.get_rank()) + 0.1)
    before = model.norm.running_mean.clone()
    gathered = gather_buffers(float_buffers(model, ""))
    assert torch.equal(model.norm.running_mean, before)
    return gathered, mean_over_ranks(gathered)


def test_every_rank_gets_all_buffers_and_the_same_mean() -> None:
    results = on_ranks(3, _gathered)

    for gathered, mean in results:
        assert [own["norm.running_mean"][0].item() for own in gathered] == [
            torch.tensor(value).item() for value in (0.1, 1.1, 2.1)
        ]
        assert torch.allclose(mean["norm.running_mean"], torch.full((4,), 1.1))


def test_a_different_number_of_ranks_takes_the_mean() -> None:
    model, state = TinyNet(), TinyNet().state_dict()
    own = [{"norm.running_mean": torch.full((4,), float(rank))} for rank in range(2)]

    load_model(model, {"state_dict": state, "rank_buffers": own})
    assert torch.equal(model.norm.running_mean, state["norm.running_mean"])

    load_model(model, {"state_dict": state, "rank_buffers": own[1:]})
    assert torch.equal(model.norm.running_mean, torch.ones(4))


def test_another_network_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match="expected the tensors of this network") as caught:
        load_model(nn.Linear(2, 2), {"state_dict": TinyNet().state_dict()})
    assert "\n" not in str(caught.value)
