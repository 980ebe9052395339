"""The loss of a classifier, for labels and for mixtures of labels."""

from torch import Tensor
from torch.nn import functional


def classification_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [N, classes], in float32 at least.

    Args:
        targets: labels, int64 [N]; or probabilities, float [N, classes], as mixup and cutmix make them.
        label_smoothing: share of each target that goes to all classes alike.
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    if targets.is_floating_point():
        targets = targets.to(wide.dtype)
    return functional.cross_entropy(wide, targets, label_smoothing=label_smoothing)


def hard_labels(targets: Tensor) -> Tensor:
    """Labels, int64 [N]: of a mixture the class with the largest share."""
    return targets.argmax(1) if targets.is_floating_point() else targets
