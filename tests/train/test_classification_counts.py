import math

import torch
import torch.distributed as dist
from torch.nn import functional

from addertrain.train.classification_counts import ClassificationCounts, Totals
from tests.ranks import on_ranks

NUM_IMAGES, NUM_CLASSES = 37, 12


def _outputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(NUM_IMAGES, NUM_CLASSES, generator=generator)
    return logits, torch.randint(0, NUM_CLASSES, (NUM_IMAGES,), generator=generator)


def _counted(logits: torch.Tensor, labels: torch.Tensor, *, batch: int, top5: bool = True) -> Totals:
    counts = ClassificationCounts(torch.device("cpu"), top5=top5)
    for part, truth in zip(logits.split(batch), labels.split(batch), strict=True):
        counts.add(part, truth, functional.cross_entropy(part, truth))
    return counts.totals()


def test_counts_match_the_definition() -> None:
    logits, labels = _outputs()
    ranked = logits.argsort(dim=1, descending=True)
    top1 = sum(int(label) == int(row[0]) for label, row in zip(labels, ranked, strict=True))
    top5 = sum(int(label) in row[:5].tolist() for label, row in zip(labels, ranked, strict=True))

    totals = _counted(logits, labels, batch=8)

    assert (totals.top1, totals.top5, totals.num_images) == (top1, top5, NUM_IMAGES)
    expected = functional.cross_entropy(logits.double(), labels).item()
    assert math.isclose(totals.score().loss, expected, rel_tol=1e-6)
    assert totals.score().top1 == 100.0 * top1 / NUM_IMAGES


def test_batches_of_any_size_count_alike() -> None:
    logits, labels = _outputs()

    hits = [(totals.top1, totals.top5) for totals in (_counted(logits, labels, batch=b) for b in (1, 7, 37))]

    assert len(set(hits)) == 1


def test_fewer_than_five_classes() -> None:
    logits, labels = torch.randn(6, 3), torch.randint(0, 3, (6,))

    assert _counted(logits, labels, batch=6).score().top5 == 100.0


def test_nothing_counted_is_not_a_number() -> None:
    assert math.isnan(Totals().score().top1)


def test_a_difference_of_totals_is_what_came_between() -> None:
    logits, labels = _outputs()

    whole = _counted(logits, labels, batch=8, top5=False)
    rest = whole - _counted(logits[:16], labels[:16], batch=8, top5=False)

    assert rest.num_images == NUM_IMAGES - 16
    assert rest.top1 == _counted(logits[16:], labels[16:], batch=8, top5=False).top1


def _share() -> Totals:
    """Ranks hold 0, 1, 2, ... in turn: unequal shares, and for three ranks unequal numbers of batches."""
    logits, labels = _outputs()
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    return _counted(logits[mine], labels[mine], batch=4)


def test_ranks_with_unequal_shares_count_every_image_once() -> None:
    logits, labels = _outputs()
    alone = _counted(logits, labels, batch=37)

    together = on_ranks(3, _share)

    assert together[0] == together[1] == together[2]
    assert (together[0].top1, together[0].top5, together[0].num_images) == (
        alone.top1,
        alone.top5,
        NUM_IMAGES,
    )
    assert math.isclose(together[0].loss, alone.loss, rel_tol=1e-6)
