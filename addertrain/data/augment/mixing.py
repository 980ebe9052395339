"""Mixup and cutmix on the device, paired and drawn so that the number of ranks changes nothing.

The samples at places 2k and 2k + 1 of a global batch are partners. The images of a rank start at an even
place, so partners are always on the same rank; the order of images is random, so partners are too.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from addertrain.data.randomness import Stream, draw_integers, draw_sequences, uniforms
from addertrain.data.types import Batch

_TRIES = 16


class Mix(NamedTuple):
    """For each sample: the fraction that stays its own (N,), and for cutmix the box that comes from its
    partner.

    `boxes`: (N, 4), rows, columns, heights and widths as shares of the image; a height of 0 means mixup.
    """

    shares: Tensor
    boxes: Tensor


def draw_mix(samples: NDArray[np.int64], *, mixup: float, cutmix: float, seed: int, epoch: int) -> Mix:
    """Draws by (seed, epoch, sample): mixup or cutmix, the fraction by Beta(α, α), and the place of the box.

    `mixup` and `cutmix` are the α of either kind, from 0 (never) to 1; with both, each gets half of all.
    Mixup: Zhang et al., 2018; cutmix: Yun et al., 2019, a box of the fraction 1 - λ, clipped at the border.
    """
    is_cutmix = np.full(len(samples), mixup == 0.0)
    if mixup and cutmix:
        is_cutmix = draw_integers(seed, epoch, samples, Stream.MIX_KIND, bound=2).astype(np.bool_)
    draws = uniforms(draw_sequences(seed, epoch, samples, Stream.MIX_SHARE, count=2 * _TRIES + 2))
    shares = beta_shares(draws[:, 2:], np.where(is_cutmix, cutmix, mixup))
    side = np.sqrt(1.0 - shares)
    first = np.clip(draws[:, :2] - side[:, np.newaxis] / 2, 0.0, 1.0)
    last = np.clip(draws[:, :2] + side[:, np.newaxis] / 2, 0.0, 1.0)
    boxes = np.concatenate([first, last - first], axis=1) * is_cutmix[:, np.newaxis]
    return Mix(torch.from_numpy(shares.astype(np.float32)), torch.from_numpy(boxes.astype(np.float32)))


def beta_shares(draws: NDArray[np.float64], alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Beta(α, α) for 0 < α <= 1 by Jöhnk's rejection: (N,) from (N, 2 · tries) uniform draws.

    U^(1/α) / (U^(1/α) + V^(1/α)) of the first pair whose sum is at most 1; half where none of 16 is, which
    happens to one in 65,000 at α = 1 and to fewer below.
    """
    u, v = (draws[:, k::2] ** (1.0 / alphas[:, np.newaxis]) for k in range(2))
    total = u + v
    is_fine = (total <= 1.0) & (total > 0.0)
    first = is_fine.argmax(axis=1)
    rows = np.arange(len(draws))
    shares = u[rows, first] / np.where(total[rows, first] > 0.0, total[rows, first], 1.0)
    return np.where(is_fine.any(axis=1), shares, 0.5)


def mixed(batch: Batch, mix: Mix, *, num_classes: int) -> Batch:
    """The batch with every image mixed with its partner's, and soft labels (N, classes) that add up to 1.

    Shapes: images uint8 (N, C, H, W) on any device, N even. Images stay uint8 in their layout.
    """
    images = batch.images
    N, _, H, W = images.shape
    if N % 2:
        raise ValueError(
            f"mixup and cutmix: expected an even number of images on every rank, got {N}; change "
            "data.global_batch_size or the number of ranks"
        )
    partner = torch.arange(N, device=images.device) ^ 1  # of place k: k + 1 or k - 1
    others = images[partner]
    shares, boxes = (part.to(images.device, non_blocking=True) for part in mix)
    is_cutmix = boxes[:, 2] > 0
    is_others = _inside(boxes, H, W) & is_cutmix[:, None, None]
    shares = torch.where(is_cutmix, 1.0 - is_others.float().mean((1, 2)), shares)
    blended = torch.lerp(others.float(), images.float(), shares[:, None, None, None]).round_().to(torch.uint8)
    cut = torch.where(is_others[:, None], others, images)
    labels = one_hot(batch.labels, num_classes).float()
    return Batch(
        torch.where(is_cutmix[:, None, None, None], cut, blended).contiguous(
            memory_format=torch.channels_last
        ),
        torch.lerp(labels[partner], labels, shares[:, None]),
        batch.samples,
    )


def _inside(boxes: Tensor, H: int, W: int) -> Tensor:
    """Which pixels lie in each box, (N, H, W)."""
    sizes = boxes.new_tensor([H, W])
    first, last = (boxes[:, :2] * sizes).round(), ((boxes[:, :2] + boxes[:, 2:]) * sizes).round()
    rows, columns = torch.arange(H, device=boxes.device), torch.arange(W, device=boxes.device)
    in_rows = (rows >= first[:, :1]) & (rows < last[:, :1])
    in_columns = (columns >= first[:, 1:]) & (columns < last[:, 1:])
    return in_rows[:, :, None] & in_columns[:, None, :]
