"""An update by the fused kernel, and one that a flag forbids."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.optim import AdderSGD, adder_sgd
from addertrain.optim.descent import descend, descend_fused
from tests.optim.parameters import groups, parameters, set_gradients

FORBIDDEN = torch.tensor(False)


def _tensors(dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    """Parameters, gradients and momentum, with a negative zero in each."""
    generator = torch.Generator().manual_seed(0)
    made = [
        [torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype) for shape in ((3, 4), (5,))]
        for _ in range(3)
    ]
    for tensors in made:
        tensors[0][0, 0] = -0.0
    return made


def _bits(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.detach().view(torch.uint8).numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize(("nesterov", "momentum"), [(True, 0.9), (False, 0.9), (False, 0.0)])
def test_the_fused_kernel_is_the_same_rule(nesterov: bool, momentum: float) -> None:
    group: dict[str, Any] = {"lr": 0.1, "momentum": momentum, "weight_decay": 1e-3, "nesterov": nesterov}
    ours, theirs = _tensors(torch.float64), _tensors(torch.float64)
    for _ in range(3):
        for fused, (params, grads, buffers) in ((True, ours), (False, theirs)):
            kept = buffers if momentum else []
            if fused:
                descend_fused(params, grads, kept, group, is_sound=torch.tensor(True))
            else:
                descend(params, grads, kept, group, owns_grads=False)
    for mine, other in zip(ours[0] + ours[2], theirs[0] + theirs[2], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("update", [descend, descend_fused])
def test_a_forbidden_update_changes_no_bit(update: Any) -> None:
    group: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}
    params, grads, buffers = _tensors()
    grads[1][2] = math.nan
    before = _bits(params + buffers)
    owned = {"owns_grads": True} if update is descend else {}

    update(params, grads, buffers, group, is_sound=FORBIDDEN, **owned)

    assert _bits(params + buffers) == before


@pytest.mark.gpu
def test_on_a_gpu_no_host_waits_for_the_flag() -> None:
    filters, others = parameters()
    params = [torch.nn.Parameter(param.detach().float().cuda()) for param in filters + others]
    optimizer = AdderSGD(groups(params[: len(filters)], params[len(filters) :]), lr=0.1, weight_decay=1e-3)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    kept = [param.detach().clone() for param in params]
    optimizer.is_sound = torch.zeros((), dtype=torch.bool, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(param, value) for param, value in zip(params, kept, strict=True))


@pytest.mark.parametrize("bad", ["adder", "other"])
def test_an_unsound_step_leaves_weights_and_momentum(bad: str) -> None:
    filters, others = parameters()
    optimizer = AdderSGD(groups(filters, others), lr=0.1, weight_decay=1e-3)
    everything = [param.detach() for param in filters + others]
    set_gradients(filters + others, 0)
    optimizer.step()
    momentum = [optimizer.state[param]["momentum_buffer"] for param in filters + others]
    before = _bits(everything + momentum)

    set_gradients(filters + others, 1)
    grad = (filters if bad == "adder" else others)[0].grad
    assert grad is not None
    grad.flatten()[0] = math.inf
    optimizer.is_sound = FORBIDDEN
    optimizer.step()

    assert _bits(everything + momentum) == before
    set_gradients(filters + others, 1)
    optimizer.is_sound = torch.tensor(True)
    optimizer.step()
    assert _bits(everything + momentum) != before


@pytest.mark.parametrize("update", [descend, descend_fused])
def test_momentum_is_zero_behind_a_first_step_that_was_left_out(
    update: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.optim.SGD(fused=True) leaves memory there that nobody wrote, and steps by it from then on."""

    def chosen(*args: Any, owns_grads: bool, is_sound: Tensor | None) -> None:
        kept = {"owns_grads": owns_grads} if update is descend else {}
        update(*args, **kept, is_sound=is_sound)

    monkeypatch.setattr(adder_sgd, "descend", chosen)
    late, prompt = parameters(torch.float32), parameters(torch.float32)
    optimizers = [AdderSGD(groups(*each), lr=0.1, weight_decay=1e-3) for each in (late, prompt)]
    set_gradients([*late[0], *late[1]], 0)
    optimizers[0].is_sound = FORBIDDEN
    optimizers[0].step()
    for param in [*late[0], *late[1]]:
        assert not optimizers[0].state[param]["momentum_buffer"].any()
    for optimizer, (filters, others) in zip(optimizers, (late, prompt), strict=True):
        set_gradients(filters + others, 1)
        optimizer.is_sound = torch.tensor(True)
        optimizer.step()

    assert _bits([*late[0], *late[1]]) == _bits([*prompt[0], *prompt[1]])


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.0}, {"nesterov": False}, {"momentum": 0.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_cut_anywhere_is_updated_to_the_same_bits(
    settings: dict[str, float], dtype: torch.dtype
) -> None:
    """Vectors and the scalars behind them round alike; in torch's fused kernel they do not."""
    group = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True} | settings
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(83, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]

    def updated(cut: int) -> list[bytes]:
        params, grads, buffers = (list(each.clone().split([cut, 83 - cut])) for each in tensors)
        for _ in range(3):
            descend(params, grads, buffers if group["momentum"] else [], group, owns_grads=False)
        return _bits([torch.cat(params), torch.cat(buffers)])

    whole = updated(0)
    assert all(updated(cut) == whole for cut in range(1, 83))
