"""`DatasetLoader`: batches from a data set of torch's, the same ones whoever reads them and from where on."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from addertrain.data import Batch, DatasetLoader


class _Noisy(Dataset[tuple[Tensor, int]]):
    """Images that show their number, and below it what three sources of random numbers gave."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        of_numpy = int(np.random.randint(256))  # noqa: NPY002
        drawn = [int(torch.randint(256, ())), random.randrange(256), of_numpy]
        return torch.tensor([index, *drawn], dtype=torch.uint8).view(1, 2, 2), index % 10


def _loader(*, training: bool = True, **settings: Any) -> DatasetLoader:
    return DatasetLoader(_Noisy(), global_batch_size=5, training=training, **settings)


def _same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = [(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_has_whole_batches_in_random_order() -> None:
    batches = list(_loader())
    samples = torch.cat([batch.samples for batch in batches])

    assert [len(batch.samples) for batch in batches] == [5, 5, 5, 5]
    assert len(set(samples.tolist())) == 20
    assert samples.tolist() != sorted(samples.tolist())
    for batch in batches:
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.samples)
        assert torch.equal(batch.labels, batch.samples % 10)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_an_evaluation_has_every_image_once_in_order() -> None:
    samples = torch.cat([batch.samples for batch in _loader(training=False)])
    assert samples.tolist() == list(range(23))


def test_workers_change_nothing() -> None:
    assert _same(list(_loader()), list(_loader(num_workers=2)))


def test_an_image_is_drawn_anew_in_every_epoch_and_for_every_image() -> None:
    loader = _loader(training=False)
    first = torch.cat([batch.images for batch in loader]).flatten(1)[:, 1:]
    loader.set_epoch(1)
    second = torch.cat([batch.images for batch in loader]).flatten(1)[:, 1:]

    assert (first != second).float().mean() > 0.9
    assert all(len(set(column.tolist())) > 15 for column in first.T)


def test_a_place_in_an_epoch_is_gone_on_from() -> None:
    whole, cut = _loader(), _loader()
    whole.set_epoch(3)
    cut.set_epoch(3)
    batches = iter(cut)
    before = [next(batches), next(batches)]

    resumed = _loader()
    resumed.load_state_dict(cut.state_dict())
    resumed.set_epoch(3)

    assert _same([*before, *resumed], list(whole))


def test_ranks_share_the_very_images_of_one_process() -> None:
    """Through `batches`, which is not refused: this process has no group."""
    alone = list(_loader())
    shares = [list(_loader(rank=rank, world_size=2).batches(0, range(4))) for rank in range(2)]

    for number, whole in enumerate(alone):
        parts = [share[number] for share in shares]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)


def test_a_loader_for_other_ranks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="expected world_size=1, the size of the process group, got 2"):
        next(iter(_loader(rank=0, world_size=2)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_random_numbers_of_the_training_stay(num_workers: int) -> None:
    torch.manual_seed(7)
    before = _states()

    list(_loader(num_workers=num_workers))

    assert _states() == before


def _states() -> list[object]:
    numpys: object = np.random.get_state()[1].tolist()  # type: ignore[union-attr] # noqa: NPY002
    return [torch.get_rng_state().tolist(), random.getstate(), numpys]
