"""freeze_norms: a network computes the same in training and evaluation, for any number of images."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d as Torchvisions

from addertrain.nn import (
    AdderConv2d,
    BatchNorm2d,
    FrozenBatchNorm2d,
    convert,
    freeze_norms,
    fuse,
    param_groups,
    recalibrated,
    synchronise_norms,
)
from addertrain.optim import AdderSGD
from tests.ranks import on_ranks

ROUNDING = 1e-12
"""float64 numbers of size 1 to 100 in sums of some hundred terms, in another order."""


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        AdderConv2d(1, 3, 3, offset_free=True), BatchNorm2d(3, relu=True),
        AdderConv2d(3, 4, 1, offset_free=True, rectified=True), nn.BatchNorm2d(4), nn.Flatten(),
    ).double()  # fmt: skip


def _batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=generator) for _ in range(count)]


def test_frozen_norms_hold_the_statistics_of_a_recalibration() -> None:
    model, batches = _net(), _batches(3)
    with recalibrated(model, batches):
        expected = model.eval()(batches[0])
    freeze_norms(model, batches)

    torch.testing.assert_close(model.train()(batches[0]), expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_step_with_one_image_computes_what_a_step_with_many_does() -> None:
    model, (batch,) = _net(), _batches(1)
    freeze_norms(model, [batch])
    model.train()
    whole = model(batch)
    each = torch.cat([model(image) for image in batch.split(1)])
    gradients = []
    for images in (batch.split(1), [batch]):
        model.zero_grad()
        for image in images:
            model(image).square().sum().backward()
        gradients.append(model[0].weight.grad.clone())

    torch.testing.assert_close(each, whole, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(*gradients, rtol=ROUNDING, atol=ROUNDING)


def test_no_step_and_no_recalibration_changes_a_frozen_norm() -> None:
    model, batches = _net(), _batches(2)
    freeze_norms(model, batches)
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    before = {name: value.clone() for norm in norms for name, value in norm.state_dict().items()}
    filters = model[0].weight.clone()
    optimizer = AdderSGD(param_groups(model, weight_decay=0.1))
    for batch in batches:
        model.train()(batch).square().mean().backward()
        optimizer.step()
    with recalibrated(model, batches[:1]):
        after = {name: value for norm in norms for name, value in norm.state_dict().items()}

        assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert len(norms) == 2
    assert not torch.equal(model[0].weight, filters)


def test_norms_that_were_frozen_get_the_statistics_of_the_present_filters() -> None:
    model, batches = _net(), _batches(2)
    freeze_norms(model, batches)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    fresh = _net()
    fresh.load_state_dict(model.state_dict())
    for net in (model, fresh):
        freeze_norms(net, batches)

    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), fresh.buffers(), strict=True))


def test_torchvisions_frozen_norms_are_taken_over_and_take_the_checkpoint() -> None:
    """Its builders make networks with frozen norms of mean 0 and variance 1, which no adder layer has."""
    images = torch.randn(2, 3, 32, 32)
    built = convert(resnet18(norm_layer=Torchvisions), keep=("conv1", "fc"))
    freeze_norms(built, [images])
    expected = built.train()(images)
    theirs = convert(resnet18(norm_layer=Torchvisions), keep=("conv1", "fc"))
    theirs.load_state_dict(built.state_dict())

    assert not [module for module in built.modules() if isinstance(module, Torchvisions)]
    torch.testing.assert_close(theirs(images), expected, rtol=1e-4, atol=1e-4)


def test_fused_networks_freeze_and_frozen_networks_fuse() -> None:
    images = torch.randn(2, 3, 32, 32)
    plain = convert(resnet18(), keep=("conv1", "fc"))
    fused = convert(resnet18(), keep=("conv1", "fc"), example=images)
    fused.load_state_dict(plain.state_dict())
    for network in (plain, fused):
        freeze_norms(network, [images])
    results = [plain(images), fused(images)]
    found = fuse(plain, images)

    assert len(found.norms) == 20
    for result in (fused(images), plain.train()(images)):
        torch.testing.assert_close(result, results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "found"),
    [
        (nn.BatchNorm1d(4), "BatchNorm1d"),
        (nn.Identity(), "none"),
        (nn.BatchNorm2d(4, affine=False), "others"),
    ],
)
def test_other_norms_are_refused(norm: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match=f"freeze_norms: expected BatchNorm2d layers .* got {found}"):
        freeze_norms(nn.Sequential(nn.Conv2d(1, 4, 1), norm), [])


def test_an_error_leaves_the_network_as_it_was() -> None:
    model = _net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="at least one batch"):
        freeze_norms(model, [])

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model[1]) is BatchNorm2d
    assert model[1].training


def _frozen_on_rank() -> dict[str, Tensor]:
    model = _net()
    synchronise_norms(model)
    freeze_norms(model, _batches(2)[dist.get_rank() :][:1], group=dist.group.WORLD)
    synchronise_norms(model)
    return model.state_dict()


@pytest.mark.distributed
def test_ranks_freeze_the_statistics_of_all_of_them() -> None:
    model = _net()
    freeze_norms(model, _batches(2))
    for state in on_ranks(2, _frozen_on_rank):
        for name, value in model.state_dict().items():
            if "tracked" not in name:
                torch.testing.assert_close(state[name], value, rtol=ROUNDING, atol=ROUNDING)
