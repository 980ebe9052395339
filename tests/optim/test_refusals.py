"""What AdderSGD cannot treat exactly it refuses, in one line, before anything is changed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn import Parameter, UninitializedParameter

from addertrain.optim import AdderSGD, bind
from tests.optim.parameters import groups, parameters, set_gradients


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, r"expected lr >= 0, got lr=-0.1"),
        ({"lr": float("nan")}, r"expected lr >= 0, got lr=nan"),
        ({"lr": "0.1"}, r"expected lr >= 0, got lr='0.1'"),
        ({"momentum": 1.0}, r"expected 0 <= momentum < 1, got momentum=1.0"),
        ({"weight_decay": -1e-4}, r"expected weight_decay >= 0"),
        ({"eta": 0.0}, r"expected eta > 0, got eta=0.0"),
        ({"increase": -1.0}, r"expected increase > 0"),
        ({"alr": "globl"}, r"expected alr to be one of global, local, off, increased, got 'globl'"),
        ({"momentum": 0.0}, r"expected momentum > 0 with nesterov=True"),
    ],
)
def test_meaningless_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        AdderSGD(groups(*parameters()), **settings)
    assert "\n" not in str(caught.value)


def test_bare_parameters_without_groups() -> None:
    filters, _ = parameters()
    with pytest.raises(
        ValueError, match=r"expected exactly one parameter group with adder=True.*param_groups"
    ):
        AdderSGD(filters)


def test_one_group_per_layer() -> None:
    filters, _ = parameters()
    each = [
        {"params": [param], "adder": True, "layer_names": [str(index)], "layer_numel": [param.numel()]}
        for index, param in enumerate(filters)
    ]
    with pytest.raises(ValueError, match=r"exactly one parameter group with adder=True.*got 3 in 3 groups"):
        AdderSGD(each)


def test_adder_group_without_layers() -> None:
    filters, _ = parameters()
    with pytest.raises(
        ValueError, match="expected layer_names and layer_numel for each of the 3 adder filters"
    ):
        AdderSGD([{"params": filters, "adder": True}])


def test_a_shard_where_a_whole_filter_was_expected() -> None:
    filters, others = parameters()
    sharded = groups(filters, others)
    sharded[0]["params"] = [Parameter(param.detach().flatten()[: param.numel() // 2]) for param in filters]
    with pytest.raises(
        ValueError, match="expected the unsharded filter of layer conv1 with 135 elements, got a tensor"
    ):
        AdderSGD(sharded)


def test_filters_in_two_dtypes() -> None:
    filters, others = parameters()
    filters[1] = Parameter(filters[1].detach().float())
    with pytest.raises(ValueError, match="expected all adder filters on the same device with the same dtype"):
        AdderSGD(groups(filters, others))


def test_lazy_parameters() -> None:
    filters, _ = parameters()
    with pytest.raises(TypeError, match="got a UninitializedParameter"):
        AdderSGD([*groups(filters, []), {"params": [UninitializedParameter()]}])


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _dtensor(param: Parameter, placement: Any) -> Parameter:
    mesh = init_device_mesh("cpu", (1,))
    return Parameter(distribute_tensor(param.detach(), mesh, [placement]))


@pytest.mark.usefixtures("one_rank")
def test_some_filters_sharded_and_others_whole() -> None:
    filters, others = parameters()
    filters[0] = _dtensor(filters[0], Shard(0))
    optimizer = AdderSGD(groups(filters, others))
    with pytest.raises(ValueError, match="expected all parameters of a group to be sharded in the same way"):
        optimizer.step()


@pytest.mark.usefixtures("one_rank")
def test_filters_sharded_along_another_dimension() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups([_dtensor(param, Shard(1)) for param in filters], others))
    with pytest.raises(ValueError, match="expected parameters sharded along dimension 0 or replicated"):
        optimizer.step()


@pytest.mark.usefixtures("one_rank")
def test_local_rates_of_sharded_filters() -> None:
    filters, others = parameters()
    with pytest.raises(ValueError, match='expected unsharded gradients in backward with alr="local"'):
        AdderSGD(groups([_dtensor(param, Shard(0)) for param in filters], others), alr="local")


def test_flat_partition_put_in_place_of_the_filters_later() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others))
    flat = Parameter(torch.cat([param.detach().flatten() for param in filters]))
    flat.grad = torch.ones_like(flat)
    optimizer.param_groups[0]["params"] = [flat]
    with pytest.raises(
        ValueError, match=r"expected the 3 parameters it was built with, got 1 other.*bind\(engine\)"
    ):
        optimizer.step()


def test_filters_resized_by_an_unknown_wrapper() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others))
    filters[0].data = filters[0].data.flatten()[:7]
    with pytest.raises(ValueError, match=r"got 3 other or resized tensors.*Parameter of shape \(7,\)"):
        optimizer.step()


def test_copies_that_hold_other_values() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others))
    optimizer.param_groups[0]["params"] = [Parameter(param.detach() + 1) for param in filters]
    with pytest.raises(ValueError, match="expected the 3 parameters it was built with"):
        optimizer.step()


def test_copies_in_another_precision_are_the_layers() -> None:
    filters, others = parameters(torch.bfloat16)
    optimizer = AdderSGD(groups(filters, others))
    masters = [Parameter(param.detach().float()) for param in filters]
    optimizer.param_groups[0]["params"] = masters
    set_gradients(masters, 0)
    optimizer.step()
    assert (optimizer.last_rates > 0).all()


@pytest.mark.parametrize("engine", [nn.Linear(2, 2), None], ids=["module", "nothing"])
def test_binding_what_is_no_engine(engine: Any) -> None:
    with pytest.raises(TypeError, match=r"expected the engine that deepspeed.initialize returned, got"):
        bind(engine)


def _trained_state() -> dict[str, Any]:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others))
    set_gradients(filters + others, 0)
    optimizer.step()
    return optimizer.state_dict()


def _other_layers(state: dict[str, Any]) -> None:
    state["param_groups"][0]["layer_names"] = ["a", "b", "c"]


def _other_shape(state: dict[str, Any]) -> None:
    state["state"][0]["momentum_buffer"] = torch.zeros(3)


def _other_rule(state: dict[str, Any]) -> None:
    state["param_groups"][0]["alr"] = "off"


def _fewer_groups(state: dict[str, Any]) -> None:
    state["param_groups"].pop()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _other_layers,
            r"expected a state with layer_names=\['conv1', 'conv2', 'fc'\], got \['a', 'b', 'c'\]",
        ),
        (_other_shape, r"expected momentum of shape \(5, 3, 3, 3\) for parameter 0, got \(3,\)"),
        (_other_rule, r"expected a state with alr='global', got 'off'"),
        (_fewer_groups, r"expected a state of 2 parameter groups, got 1"),
    ],
)
def test_state_of_another_model(spoil: Any, message: str) -> None:
    state = _trained_state()
    spoil(state)
    optimizer = AdderSGD(groups(*parameters()), lr=0.3)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert not optimizer.state
