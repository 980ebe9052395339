"""Sums over ranks: the same step has the same bits wherever it comes in a process; gradients keep strides."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from addertrain.models import build_model
from addertrain.train.strategies.data_parallel import in_strides_of, settle_buckets
from tests.ranks import on_ranks

pytestmark = pytest.mark.distributed

NUM_RANKS = 4  # two floats add up to the same in either order
SMALL_BUCKETS = 0.02  # MiB: several for LeNet's 0.2 MB


def _wrapped(network: nn.Module, *, settled: bool, **settings: float) -> DistributedDataParallel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers gets another name in time
        wrapped = DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True, **settings
        )  # type: ignore[arg-type]
    if settled:
        settle_buckets(wrapped)
    return wrapped


def _lenet() -> nn.Module:
    torch.manual_seed(0)
    return build_model("lenet5bn", kind="adder", num_classes=10)


def _gradients(wrapped: DistributedDataParallel, *, num_parts: int = 1) -> list[Tensor]:
    """Of one batch, which no call changes; in `num_parts` backward passes, the last of which reduces."""
    torch.manual_seed(dist.get_rank())
    images, labels = torch.randn(8, 1, 32, 32), torch.randint(10, (8,))
    wrapped.zero_grad()
    for _ in range(num_parts - 1):
        with wrapped.no_sync():
            nn.functional.cross_entropy(wrapped(images), labels).backward()
    nn.functional.cross_entropy(wrapped(images), labels).backward()
    return [parameter.grad.clone() for parameter in wrapped.parameters() if parameter.grad is not None]


def _first_and_later() -> dict[str, bool]:
    """Whether a step has the same bits as the first one of a process and as a later one."""
    same: dict[str, bool] = {}
    for settled in (False, True):
        for num_parts in (1, 2):
            wrapped = _wrapped(_lenet(), settled=settled, bucket_cap_mb=SMALL_BUCKETS)
            first, second, third = (_gradients(wrapped, num_parts=num_parts) for _ in range(3))
            same[f"settled={settled}, parts={num_parts}"] = all(
                torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, second, third, strict=True)
            )
    return same


def test_the_first_step_of_a_process_adds_as_every_later_one() -> None:
    for same in on_ranks(NUM_RANKS, _first_and_later):
        assert same == {
            "settled=False, parts=1": False,  # torch's own: else this test would see nothing
            "settled=False, parts=2": False,
            "settled=True, parts=1": True,
            "settled=True, parts=2": True,
        }


def _orders_and_state() -> tuple[list[list[str]], bool, bool]:
    """The parameters of every bucket in two steps; whether settling changed state, or left gradients."""
    network = _lenet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrapped = _wrapped(network, settled=True, bucket_cap_mb=SMALL_BUCKETS)
    unchanged = all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    has_gradients = any(parameter.grad is not None for parameter in network.parameters())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    buckets: list[list[str]] = []

    def note(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        buckets.append([names[id(parameter)] for parameter in bucket.parameters()])
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    wrapped.register_comm_hook(None, note)
    for _ in range(2):
        _gradients(wrapped)
    return buckets, unchanged, has_gradients


def test_buckets_go_from_the_last_parameter_to_the_first_from_the_first_step_on() -> None:
    ((buckets, unchanged, has_gradients),) = on_ranks(1, _orders_and_state)

    half = len(buckets) // 2
    assert half > 1, "several of them, or nothing would travel beside the backward pass"
    assert buckets[:half] == buckets[half:]
    names = [name for name, _ in _lenet().named_parameters()]
    assert [name for bucket in buckets[:half] for name in bucket] == names[::-1]
    assert unchanged
    assert not has_gradients


def _pointwise_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def _warned(*, hooked: bool) -> bool:
    network = _pointwise_network()
    wrapped = _wrapped(network, settled=True)
    if hooked:
        for parameter in network.parameters():
            parameter.register_hook(in_strides_of(parameter))
    images = torch.randn(16, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        wrapped(images).square().sum().backward()
    return any("Grad strides do not match" in str(warning.message) for warning in found)


def _warnings() -> tuple[bool, bool]:
    """torch warns once a process, so what should be silent comes first."""
    return _warned(hooked=True), _warned(hooked=False)


def test_gradients_of_pointwise_filters_come_in_the_strides_that_torch_expects() -> None:
    assert on_ranks(1, _warnings) == [(False, True)]


def test_strides_are_set_only_where_memory_stays_the_same() -> None:
    filters = nn.Parameter(torch.randn(10, 84, 1, 1))
    restride = in_strides_of(filters)
    gradient = torch.randn(10, 84, 1, 1).as_strided((10, 84, 1, 1), (84, 1, 84, 84))

    found = restride(gradient)

    assert found is not None
    assert found.stride() == filters.stride() == (84, 1, 1, 1)
    assert found.data_ptr() == gradient.data_ptr()
    assert torch.equal(found, gradient)
    assert restride(torch.randn(10, 84, 1, 1)) is None
    assert restride(torch.randn(84, 10, 1, 1).transpose(0, 1)) is None, "other memory: autograd copies it"
    assert restride(torch.ones(()).expand(10, 84, 1, 1)) is None
