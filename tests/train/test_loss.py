import pytest
import torch
from torch.nn.functional import one_hot

from addertrain.train.loss import checked_logits, classification_loss, hard_labels

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [-3.0, 5.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 3, 2])


def _by_hand(targets: torch.Tensor) -> torch.Tensor:
    return -(targets * (LOGITS - LOGITS.logsumexp(1, keepdim=True))).sum(1).mean()


def test_label_smoothing_is_its_formula() -> None:
    smooth = 0.9 * one_hot(LABELS, 4) + 0.1 / 4

    assert torch.allclose(classification_loss(LOGITS, LABELS, label_smoothing=0.1), _by_hand(smooth))


def test_mixed_labels_are_probabilities() -> None:
    mixed = 0.7 * one_hot(LABELS, 4) + 0.3 * one_hot(LABELS.flip(0), 4)

    assert torch.allclose(classification_loss(LOGITS, mixed.double()), _by_hand(mixed))
    smooth = 0.8 * mixed + 0.2 / 4
    assert torch.allclose(classification_loss(LOGITS, mixed, label_smoothing=0.2), _by_hand(smooth))


def test_certain_mixtures_are_labels() -> None:
    certain = one_hot(LABELS, 4).float()

    assert torch.allclose(classification_loss(LOGITS, certain), classification_loss(LOGITS, LABELS))
    assert torch.equal(hard_labels(certain), LABELS)
    assert hard_labels(LABELS) is LABELS


def test_sixteen_bit_logits_are_summed_in_float32() -> None:
    assert classification_loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32
    assert classification_loss(LOGITS.double(), LABELS).dtype == torch.float64


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (LABELS + 1, "expected labels from 0 to 3, because the network has 4 logits, got 4"),
        (one_hot(LABELS, 5).float(), "probabilities of the network's 4 classes, got 5 an image"),
    ],
)
def test_classes_that_the_network_does_not_have_are_named(targets: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classification_loss(LOGITS, targets)


def test_logits_are_a_tensor_of_two_dimensions() -> None:
    assert checked_logits(LOGITS) is LOGITS
    for output, words in (
        (LOGITS[..., None, None], r"got shape \(3, 4, 1, 1\)"),
        ((LOGITS, LOGITS), "got a tuple"),
    ):
        with pytest.raises(TypeError, match=words):
            checked_logits(output)
