"""AdderSGD on one process: against its literal twin, its closed forms and its state."""

import gc
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from addertrain.optim import AdderSGD, AlrMode
from addertrain.optim.reference import ReferenceAdderSGD
from tests.optim.parameters import SHAPES, groups, largest_difference, parameters, set_gradients
from tests.optim.tolerances import FLOAT32, FLOAT64, RATE

MODES: list[AlrMode] = ["global", "local", "off", "increased"]


def _detached(params: list[Any]) -> list[torch.Tensor]:
    return [param.detach().clone() for param in params]


def _step_through_backward(optimizer: AdderSGD, params: list[Any], step: int) -> None:
    """A step whose gradients come out of backward, so that tensor hooks run."""
    set_gradients(params, step)
    grads = [param.grad.clone() for param in params]
    optimizer.zero_grad()
    sum((param * grad).sum() for param, grad in zip(params, grads, strict=True)).backward()
    optimizer.step()


@pytest.mark.parametrize("alr", MODES)
@pytest.mark.parametrize(("nesterov", "mu"), [(True, 0.9), (False, 0.9), (False, 0.0)])
@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_agrees_with_the_reference_over_100_steps(
    alr: AlrMode, nesterov: bool, mu: float, decay: float
) -> None:
    filters, others = parameters()
    optimizer = AdderSGD(
        groups(filters, others),
        lr=0.1,
        momentum=mu,
        weight_decay=decay,
        nesterov=nesterov,
        alr=alr,
        increase=10.0,
    )
    F, p = parameters()
    reference = ReferenceAdderSGD(
        F, p, gamma=0.1, mu=mu, decay=decay, nesterov=nesterov, eta=0.2, alr=alr, increase=10.0
    )
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 100)
        reference.gamma = 0.1 * (1 - step / 100)
        _step_through_backward(optimizer, filters + others, step)
        set_gradients(F + p, step)
        reference.step()
    assert largest_difference(_detached(filters + others), _detached(F + p)) < FLOAT64


def test_fp32_agrees_with_the_reference_in_float64() -> None:
    filters, others = parameters(torch.float32)
    optimizer = AdderSGD(groups(filters, others), weight_decay=1e-4)
    F, p = ([torch.nn.Parameter(param.detach().double()) for param in params] for params in (filters, others))
    reference = ReferenceAdderSGD(F, p, gamma=0.1, mu=0.9, decay=1e-4, nesterov=True, eta=0.2, alr="global")
    for step in range(100):
        set_gradients(filters + others, step)
        for twin, param in zip(F + p, filters + others, strict=True):
            twin.grad = param.grad.double()
        optimizer.step()
        reference.step()
    assert (
        largest_difference([param.detach().double() for param in filters + others], _detached(F + p))
        < FLOAT32
    )


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_first_step_of_a_filter_has_rms_lr_times_eta(size: float) -> None:
    filters, others = parameters(torch.float32)
    optimizer = AdderSGD(groups(filters, others), lr=0.5, momentum=0.0, nesterov=False, eta=0.2)
    set_gradients(filters, 0)
    before = _detached(filters)
    for param in filters:
        param.grad *= size
    optimizer.step()
    for param, old in zip(filters, before, strict=True):
        step = param.detach().double() - old.double()
        assert step.square().mean().sqrt().item() == pytest.approx(0.5 * 0.2, rel=FLOAT32)


def test_eta_scales_before_decay_and_lr() -> None:
    # Four ones with gradient 2: alpha = 0.2 * 2 / 4 = 0.1, so p = 1 - 0.5 * (0.1 * 2 + 0.3 * 1).
    param = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    group = {"params": [param], "adder": True, "layer_names": ["fc"], "layer_numel": [4]}
    optimizer = AdderSGD([group], lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.3)
    param.grad = torch.full((4,), 2.0, dtype=torch.float64)
    optimizer.step()
    assert param.tolist() == pytest.approx([0.75] * 4, rel=1e-15)


def test_other_groups_are_plain_sgd() -> None:
    filters, others = parameters()
    _, twins = parameters()
    optimizer = AdderSGD(groups(filters, others), lr=0.1, weight_decay=5e-4)
    torch_sgd = torch.optim.SGD(twins, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for step in range(10):
        set_gradients(others, step)
        set_gradients(twins, step)
        optimizer.step()
        torch_sgd.step()
    assert largest_difference(_detached(others), _detached(twins)) < FLOAT64


@pytest.mark.parametrize("alr", MODES)
def test_zero_gradient_leaves_a_filter_in_place(alr: AlrMode) -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), alr=alr)
    before = _detached(filters)
    sum((0.0 * param).sum() for param in filters).backward()
    optimizer.step()
    assert all(torch.equal(param.detach(), old) for param, old in zip(filters, before, strict=True))
    if alr in ("global", "local"):
        assert optimizer.last_rates.tolist() == [0.0, 0.0, 0.0]


def test_filter_without_gradient_is_left_alone_and_reports_zero() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), weight_decay=0.1)
    set_gradients([filters[0], filters[2]], 0)
    untouched = filters[1].detach().clone()
    optimizer.step()
    assert torch.equal(filters[1].detach(), untouched)
    assert optimizer.last_rates[1] == 0
    assert (optimizer.last_rates[[0, 2]] > 0).all()


def test_gradients_are_not_modified() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), weight_decay=0.1)
    set_gradients(filters + others, 0)
    before = [param.grad.clone() for param in filters + others]
    optimizer.step()
    assert all(torch.equal(param.grad, old) for param, old in zip(filters + others, before, strict=True))


@pytest.mark.parametrize("alr", MODES)
def test_norms_and_rates_of_the_step_can_be_logged(alr: AlrMode) -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), alr=alr, increase=50.0)
    set_gradients(filters + others, 3)
    expected = torch.stack([param.grad.square().sum() for param in filters]).float()
    _step_through_backward(optimizer, filters + others, 3)
    assert optimizer.layer_names == list(SHAPES)
    assert optimizer.last_sq_norms.dtype == optimizer.last_rates.dtype == torch.float32
    assert not optimizer.last_rates.requires_grad
    torch.testing.assert_close(optimizer.last_sq_norms, expected, rtol=RATE, atol=0)
    numel = torch.tensor([param.numel() for param in filters])
    alpha = {"off": torch.ones(3), "increased": torch.full((3,), 50.0)}.get(
        alr, 0.2 * (numel / expected).sqrt()
    )
    torch.testing.assert_close(optimizer.last_rates, alpha, rtol=RATE, atol=0)


def test_closure_is_evaluated_with_gradients_and_its_loss_returned() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others))

    def closure() -> float:
        loss = sum(param.square().sum() for param in filters + others)
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    assert filters[0].grad is not None


def test_model_without_adder_layers_trains() -> None:
    _, others = parameters()
    optimizer = AdderSGD(groups([], others))
    set_gradients(others, 0)
    before = _detached(others)
    optimizer.step()
    assert not torch.equal(others[0].detach(), before[0])
    assert optimizer.last_rates.shape == (0,)


# -- the hooks of alr="local" --


def test_local_hooks_leave_the_scaled_gradient_in_backward() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), alr="local")
    sum((1e-3 * param).sum() for param in filters + others).backward()
    assert filters[0].grad.square().mean().sqrt().item() == pytest.approx(0.2)
    assert others[0].grad.square().mean().sqrt().item() == pytest.approx(1e-3)
    optimizer.remove_hooks()
    optimizer.zero_grad()
    sum((1e-3 * param).sum() for param in filters).backward()
    assert filters[0].grad.square().mean().sqrt().item() == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="do not step after remove_hooks"):
        optimizer.step()


def test_local_hooks_go_with_their_optimizer() -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), alr="local")
    del optimizer
    gc.collect()
    filters[0].sum().backward()
    assert torch.equal(filters[0].grad, torch.ones_like(filters[0]))


# -- state --


@pytest.mark.parametrize("alr", MODES)
def test_state_dict_resumes_bit_for_bit_through_a_weights_only_file(alr: AlrMode, tmp_path: Path) -> None:
    filters, others = parameters(torch.float32)
    optimizer = AdderSGD(groups(filters, others), alr=alr, weight_decay=5e-4)
    for step in range(5):
        _step_through_backward(optimizer, filters + others, step)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")

    F, p = parameters(torch.float32)
    for twin, param in zip(F + p, filters + others, strict=True):
        twin.data.copy_(param.data)
    resumed = AdderSGD(groups(F, p), alr=alr, lr=0.7, weight_decay=0.0)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert resumed.param_groups[0]["weight_decay"] == 5e-4
    for step in range(5, 10):
        _step_through_backward(optimizer, filters + others, step)
        _step_through_backward(resumed, F + p, step)
    assert all(torch.equal(a, b) for a, b in zip(F + p, filters + others, strict=True))


def test_load_state_dict_hands_its_eta_to_the_hooks() -> None:
    filters, others = parameters()
    state = AdderSGD(groups(*parameters()), alr="local", eta=0.5).state_dict()
    optimizer = AdderSGD(groups(filters, others), alr="local", eta=0.2)
    optimizer.load_state_dict(state)
    filters[0].sum().backward()
    assert filters[0].grad.square().mean().sqrt().item() == pytest.approx(0.5)


def test_pickling_is_refused() -> None:
    optimizer = AdderSGD(groups(*parameters()))
    with pytest.raises(TypeError, match="use state_dict"):
        torch.save(optimizer, io.BytesIO())


# -- no host sync --


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.add(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("alr", MODES)
def test_step_never_reads_a_tensor_on_the_host(alr: AlrMode) -> None:
    filters, others = parameters(torch.float32)
    optimizer = AdderSGD(groups(filters, others), alr=alr, weight_decay=5e-4)
    _step_through_backward(optimizer, filters + others, 0)
    set_gradients(filters + others, 1)
    with _Recorder() as recorder:
        optimizer.step()
    assert "aten::_foreach_add_" in recorder.calls
    syncs = {"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero", "aten::equal"}
    assert not recorder.calls & syncs
    # A copy to another device or a fresh tensor from host numbers would wait as well.
    assert not {name for name in recorder.calls if "lift_fresh" in name}


@pytest.mark.gpu
@pytest.mark.parametrize("alr", MODES)
def test_step_never_waits_for_the_gpu(alr: AlrMode) -> None:
    filters, others = (
        [torch.nn.Parameter(p.detach().cuda()) for p in params] for params in parameters(torch.float32)
    )
    optimizer = AdderSGD(groups(filters, others), alr=alr, weight_decay=5e-4)
    for param in filters + others:
        param.grad = torch.ones_like(param)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
