"""The loss of a classifier, for labels and for mixtures of labels."""

from typing import Any

from torch import Tensor
from torch.nn import functional


def classification_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [N, classes], in float32 at least.

    Args:
        targets: labels, int64 [N]; or probabilities, float [N, classes], as mixup and cutmix make them.
        label_smoothing: the fraction of each target that is spread evenly over all classes.

    Raises:
        ValueError: probabilities are of another number of classes, or, on CPUs, labels are not below it; on
            GPUs torch's own kernel ends the process, because a check there would make every step wait.
    """
    _check_classes(logits.shape[1], targets)
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    if targets.is_floating_point():
        targets = targets.to(wide.dtype)
    return functional.cross_entropy(wide, targets, label_smoothing=label_smoothing)


def hard_labels(targets: Tensor) -> Tensor:
    """Labels, int64 [N]: for a mixture the class with the largest probability."""
    return targets.argmax(1) if targets.is_floating_point() else targets


def checked_logits(output: Any) -> Tensor:
    """The output of a network, if it is logits.

    Raises:
        TypeError: it is not a tensor [N, classes].
    """
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise TypeError(
        f"AdderClassifier: expected a network that returns logits [N, classes], got {got}; let its forward "
        "return the logits alone"
    )


def _check_classes(num_classes: int, targets: Tensor) -> None:
    if targets.is_floating_point():
        if targets.shape[1] != num_classes:
            raise ValueError(
                f"AdderClassifier: expected probabilities of the network's {num_classes} classes, got "
                f"{targets.shape[1]} an image; build the network with num_classes={targets.shape[1]}"
            )
    elif targets.device.type == "cpu" and len(targets) and (largest := int(targets.max())) >= num_classes:
        raise ValueError(
            f"AdderClassifier: expected labels from 0 to {num_classes - 1}, because the network has "
            f"{num_classes} logits, got {largest}; count classes from 0, or give the network more"
        )
