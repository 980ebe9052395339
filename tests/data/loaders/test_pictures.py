"""PictureLoader: order, seeking, threads, errors and time limits, whatever reads the pictures."""

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from addertrain.data import DataError, PictureLoader
from addertrain.data.crops import Crops
from addertrain.data.loaders.order import sample_order
from addertrain.data.loaders.workers import Workers

NUM_SAMPLES = 100


class Numbers:
    """A reader whose pictures show their own number; can be made to fail or stall."""

    def __init__(self) -> None:
        self.labels = np.arange(NUM_SAMPLES) % 10
        self.classes = tuple("0123456789")
        self.seen: list[int] = []
        self.before_read: Callable[[list[int]], None] = lambda samples: None
        self.gone: str | None = None

    def __len__(self) -> int:
        return NUM_SAMPLES

    def check(self) -> None:
        if self.gone:
            raise DataError(self.gone)

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        self.before_read(samples.tolist())
        self.seen += samples.tolist()
        for k, sample in enumerate(samples.tolist()):
            box = crops.box(k, 1000, 1000)
            images_nhwc[k, ..., 0], images_nhwc[k, ..., 1:] = sample, box.row % 256


def loader(reader: Numbers | None = None, **options: Any) -> PictureLoader:
    defaults = {"global_batch_size": 20, "training": True, "image_size": lambda epoch: 4, "num_threads": 2}
    return PictureLoader(reader or Numbers(), **(defaults | options))


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_batch_is_uint8_and_channels_last_with_its_labels_and_samples() -> None:
    batch = next(iter(loader()))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (20, 3, 4, 4)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images[:, 0, 0, 0].tolist() == batch.samples.tolist()
    assert batch.labels.tolist() == [sample % 10 for sample in batch.samples.tolist()]
    assert (batch.labels.dtype, batch.samples.dtype) == (torch.int64, torch.int64)


def test_training_takes_whole_global_batches_in_the_order_of_the_epoch() -> None:
    one = loader(seed=5, global_batch_size=30)
    one.set_epoch(2)
    assert len(one) == 3
    assert [s for batch in one for s in batch.samples.tolist()] == sample_order(5, 2, 100)[:90].tolist()


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_a_seek_gives_the_identical_tail_and_reads_nothing_it_skips(start: int) -> None:
    reader = Numbers()
    one, other = loader(), loader(reader)
    one.set_epoch(1)
    whole = [batch.images.sum().item() for batch in one]
    other.load_state_dict({"epoch": 1, "batch": start})
    assert [batch.images.sum().item() for batch in other] == whole[start:]
    assert sorted(reader.seen) == sorted(sample_order(0, 1, 100)[20 * start :].tolist())


def test_any_batches_can_be_asked_for_and_the_place_stays() -> None:
    reader = Numbers()
    one = loader(reader)
    one.load_state_dict({"epoch": 3, "batch": 2})
    batches = [batch.samples.tolist() for batch in one.batches(0, [4, 1])]
    order = sample_order(0, 0, 100)
    assert batches == [order[80:100].tolist(), order[20:40].tolist()]
    assert len(reader.seen) == 40
    assert one.state_dict() == {"epoch": 3, "batch": 2}


def test_batches_stay_as_they_are_while_they_are_held() -> None:
    held = list(loader(image_size=lambda epoch: 32))
    assert [batch.images[:, 0, 5, 5].tolist() for batch in held] == [b.samples.tolist() for b in held]


def test_the_image_size_follows_the_epoch() -> None:
    one = loader(image_size=lambda epoch: 8 + epoch)
    sizes = []
    for epoch in range(3):
        one.set_epoch(epoch)
        sizes.append(next(iter(one)).images.shape[-1])
    assert sizes == [8, 9, 10]
    assert loader(image_size=lambda epoch: 8 + epoch // 3).first_alike(4) == 3


def test_fifty_breaks_leave_no_thread_behind() -> None:
    one = loader(num_threads=4)
    for k in range(50):
        for number, _ in enumerate(one):
            if number == k % 3:
                break
    assert not decoding_threads()


def test_close_ends_an_open_iteration_and_joins_its_threads() -> None:
    one = loader()
    iterator = iter(one)
    next(iterator)
    assert len(decoding_threads()) == 2
    one.close()
    assert not decoding_threads()
    with pytest.raises(DataError, match="got a closed one"):
        list(iterator)
    assert len(list(one)) == 5  # and it can be iterated again


def test_a_loader_that_is_dropped_takes_its_threads_along() -> None:
    iterator = iter(loader())
    next(iterator)
    del iterator
    gc.collect()
    assert not decoding_threads()


def fail_on(bad: int) -> Callable[[list[int]], None]:
    def before_read(samples: list[int]) -> None:
        if bad in samples:
            raise DataError(f"picture {bad}: damaged")

    return before_read


def test_an_error_of_a_thread_reaches_the_caller() -> None:
    reader = Numbers()
    bad = sample_order(0, 0, 100)[65].item()
    reader.before_read = fail_on(bad)
    batches = []
    with pytest.raises(DataError, match=f"picture {bad}: damaged"):
        batches += loader(reader)
    assert len(batches) == 3  # the whole ones before it
    assert not decoding_threads()


def test_an_error_does_not_wait_for_the_rest_of_the_batch() -> None:
    reader = Numbers()
    first = sample_order(0, 0, 100)[:8].tolist()

    def before_read(samples: list[int]) -> None:
        if samples == first:
            raise DataError("first part: damaged")
        time.sleep(0.5)  # the caller has twelve times as long to notice

    reader.before_read = before_read
    with pytest.raises(DataError, match="first part"):
        next(iter(loader(reader, num_threads=1, global_batch_size=100)))
    assert len(reader.seen) < 100 - len(first)


def test_pictures_that_have_gone_are_noticed_before_the_next_batch() -> None:
    reader = Numbers()
    iterator = iter(loader(reader, global_batch_size=10))
    next(iterator)
    reader.gone = "train.beton: removed while in use"
    with pytest.raises(DataError, match="removed while in use"):
        list(iterator)
    assert not decoding_threads()


def test_a_stalled_read_ends_in_an_error_and_not_in_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("addertrain.data.loaders.workers._JOIN_SECONDS", 0.1)
    reader, go_on = Numbers(), threading.Event()
    reader.before_read = lambda samples: go_on.wait(60.0)
    try:
        with pytest.raises(DataError, match=r"within 0\.1 s, got none.*data.timeout_seconds"):
            next(iter(loader(reader, timeout_seconds=0.1)))
    finally:
        go_on.set()


def test_two_loaders_live_side_by_side() -> None:
    reader = Numbers()
    training, evaluation = loader(reader), loader(reader, training=False, global_batch_size=32)
    pairs = list(zip(training, evaluation, strict=False))
    assert [b.samples[0].item() for _, b in pairs] == [0, 32, 64, 96]
    assert [b.samples.tolist() for b, _ in pairs] == [b.samples.tolist() for b in loader()][:4]


def test_calls_that_have_not_begun_are_dropped_when_workers_close() -> None:
    workers, begun, is_dropped = Workers(1, name="decode"), [], threading.Event()
    futures = [workers.submit(lambda k=k: (begun.append(k), is_dropped.wait(60))) for k in range(50)]
    futures[-1].add_done_callback(lambda future: is_dropped.set())
    workers.close()
    assert len(begun) < 2
    assert futures[-1].cancelled()
    assert not decoding_threads()
