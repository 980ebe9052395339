"""The size of the images of an epoch and the number of decoding threads, according to a recipe."""

import os

from addertrain.recipe import DataRecipe

_STEP = 32  # sizes in between are multiples of it, as networks that halve five times like them


def training_size(settings: DataRecipe, epoch: int) -> int:
    """Height and width of training images: `image_size`, or growing to it (progressive resizing)."""
    first, last = settings.first_image_size, settings.image_size
    if first is None or epoch >= settings.grow_until:
        return last
    if epoch <= settings.grow_from:
        return first
    done = (epoch - settings.grow_from) / (settings.grow_until - settings.grow_from)
    return round((first + done * (last - first)) / _STEP) * _STEP


def evaluation_size(settings: DataRecipe, epoch: int) -> int:
    """Height and width in an evaluation, the same in every epoch."""
    return settings.eval_image_size or settings.image_size


def decode_threads(settings: DataRecipe) -> int:
    """The recipe's number, or else this rank's share of the cores that the process may use."""
    if settings.threads is not None:
        return settings.threads
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, len(os.sched_getaffinity(0)) // max(1, int(ranks) if ranks.isdigit() else 1))
