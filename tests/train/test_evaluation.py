"""`evaluated`: what is read in the block, and that the live network is back bit for bit behind it."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.nn import recalibrated
from addertrain.nn.int8 import Int8AdderConv2d
from addertrain.train.evaluation import evaluated, exchange
from addertrain.train.module import AdderClassifier
from tests.train.small_runs import OPTIM, TinyNet, assert_same_bits, random_arrays


class _Broken(Exception):
    pass


@pytest.fixture
def classifier() -> AdderClassifier:
    torch.manual_seed(0)
    module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=1)
    module.model.norm.running_mean.normal_()  # type: ignore[union-attr, operator]
    return module


def _images() -> list[Tensor]:
    return list(random_arrays(48).images_nchw.split(16))


def _weights(classifier: AdderClassifier) -> dict[str, Tensor]:
    return {name: torch.randn_like(weight) for name, weight in classifier.model.named_parameters()}


def _copy(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors}


def _state(classifier: AdderClassifier) -> dict[str, Tensor]:
    return _copy(classifier.model.state_dict().items())


def _breaking(images: list[Tensor]) -> Iterator[Tensor]:
    yield images[0]
    raise _Broken


def test_exchanging_twice_is_nothing() -> None:
    live, kept = [torch.randn(3), torch.tensor(4)], [torch.randn(3), torch.tensor(7)]
    before = [tensor.clone() for tensor in (*live, *kept)]

    exchange(live, kept)
    assert [torch.equal(a, b) for a, b in zip((*kept, *live), before, strict=True)] == 4 * [True]
    exchange(live, kept)
    assert [torch.equal(a, b) for a, b in zip((*live, *kept), before, strict=True)] == 4 * [True]


def test_statistics_are_made_for_the_averaged_weights(classifier: AdderClassifier) -> None:
    weights, images = _weights(classifier), _images()
    with evaluated(classifier, weights=weights, statistics=images):
        found = _state(classifier)

    classifier.model.load_state_dict({**_state(classifier), **weights})
    with recalibrated(classifier.model, [classifier.normalised(batch) for batch in images]):
        assert_same_bits(_state(classifier), found)


def test_without_arguments_one_process_reads_the_live_network(classifier: AdderClassifier) -> None:
    live = _state(classifier)
    with evaluated(classifier):
        assert_same_bits(_state(classifier), live)


@pytest.mark.parametrize(
    "kinds", [("weights",), ("statistics",), ("int8",), ("weights", "statistics", "int8")]
)
def test_the_live_network_comes_back(classifier: AdderClassifier, kinds: tuple[str, ...]) -> None:
    """Also when the block breaks off, and when the batches do on the way in."""
    given: dict[str, Any] = {"weights": _weights(classifier), "statistics": _images(), "int8": _images()}
    given = {kind: given[kind] for kind in kinds}
    live, modules = _state(classifier), dict(classifier.model.named_modules())

    with evaluated(classifier, **given):
        inside = _state(classifier)
    assert inside.keys() != live.keys() or any(not torch.equal(inside[name], live[name]) for name in live)

    def is_live() -> bool:
        assert_same_bits(_state(classifier), live)
        return dict(classifier.model.named_modules()) == modules and classifier.model.training

    assert is_live()
    with pytest.raises(_Broken), evaluated(classifier, **given):
        raise _Broken
    assert is_live()
    for kind in set(kinds) - {"weights"}:
        with pytest.raises(_Broken), evaluated(classifier, **{**given, kind: _breaking(_images())}):
            pass
        assert is_live()


def test_averaged_weights_are_the_callers_again(classifier: AdderClassifier) -> None:
    weights = _weights(classifier)
    before = _copy(weights.items())

    with evaluated(classifier, weights=weights):
        pass

    assert_same_bits(weights, before)


def test_as_trained_shows_the_live_network_for_a_moment(classifier: AdderClassifier) -> None:
    live = _state(classifier)

    with evaluated(classifier, weights=_weights(classifier), statistics=_images()) as network:
        inside = _state(classifier)
        with network.as_trained():
            assert_same_bits(_state(classifier), live)
        assert_same_bits(_state(classifier), inside)
        with pytest.raises(_Broken), network.as_trained():
            raise _Broken
        assert_same_bits(_state(classifier), inside)


def test_layers_on_bytes_are_those_of_the_averaged_weights(classifier: AdderClassifier) -> None:
    weights = _weights(classifier)
    with evaluated(classifier, weights=weights, statistics=_images(), int8=_images()):
        layer = classifier.model.get_submodule("conv")
        assert isinstance(layer, Int8AdderConv2d)
        values = layer.grid.values_of(layer.weight_bytes)

    lowest, highest = values.min(), values.max()
    clipped = weights["conv.weight"].double().clamp(lowest, highest)
    assert (values - clipped).abs().max() <= layer.grid.scale


def test_no_image_to_recompute_statistics_on_is_refused(classifier: AdderClassifier) -> None:
    with pytest.raises(ValueError, match="expected at least one batch"), evaluated(classifier, statistics=[]):
        pass
