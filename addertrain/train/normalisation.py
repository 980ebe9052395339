"""Converts images of 0 to 255 to the normalised floats that a network takes, on the device that trains."""

import torch
from torch import Tensor


def scale_and_shift(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Tensor | None, Tensor | None]:
    """The float32 factors [1, C, 1, 1] of (x / 255 - mean) / std = x * scale - shift, one fused pass.

    Args:
        mean, std: per channel, for values in 0..1; both None if images need no normalisation.

    Raises:
        ValueError: not as many means as standard deviations, a mean that values in 0..1 cannot
            have, or a standard deviation that is not positive.
    """
    if mean is None and std is None:
        return None, None
    if mean is None or std is None or len(mean) != len(std):
        counts = [0 if values is None else len(values) for values in (mean, std)]
        raise ValueError(
            f"AdderClassifier: expected mean and std per channel, got {counts[0]} means and {counts[1]}; "
            "give as many of both."
        )
    if not all(0 <= value <= 1 for value in mean):
        raise ValueError(
            f"AdderClassifier: expected the mean of images with values in 0..1, got mean={mean}; divide "
            "mean and std of values in 0..255 by 255."
        )
    deviation = torch.tensor(std, dtype=torch.float64)
    if not all(value > 0 for value in std):  # in Python: a plan has no values on its device
        raise ValueError(
            f"AdderClassifier: expected positive standard deviations, got std={std}; leave out channels that "
            "never vary."
        )
    scale, shift = 1.0 / (255.0 * deviation), torch.tensor(mean, dtype=torch.float64) / deviation
    return scale.float().view(1, -1, 1, 1), shift.float().view(1, -1, 1, 1)


def normalised(images: Tensor, scale: Tensor | None, shift: Tensor | None, *, channels_last: bool) -> Tensor:
    """Images as the floats that a network takes: x * scale - shift, or unchanged if both are None.

    Args:
        scale, shift: of `scale_and_shift`.
        channels_last: keeps the memory format of images; False converts them to channels-first.

    Raises:
        TypeError, ValueError: see `check_images`.
    """
    if not channels_last:
        images = images.contiguous()
    check_images(images, scale)
    if scale is None or shift is None:
        return images
    return (images.to(scale.dtype) * scale).sub_(shift)


def check_images(images: Tensor, scale: Tensor | None) -> None:
    """Refuses images that do not fit `scale`; after normalising twice a network would see a constant.

    Raises:
        TypeError: images are not uint8, or not floats if scale is None.
        ValueError: another number of channels.
    """
    if scale is None:
        if not images.is_floating_point():
            raise TypeError(
                f"AdderClassifier: expected floating-point images, because mean is None, got {images.dtype}; "
                "give mean and std, and uint8 images are normalised on the device"
            )
        return
    if images.dtype != torch.uint8:
        raise TypeError(
            f"AdderClassifier: expected uint8 images, which it divides by 255 and normalises itself, got "
            f"{images.dtype}; end the transform with torchvision.transforms.v2.PILToTensor() in place of "
            "ToTensor() and Normalize(...), or build AdderClassifier with mean=None, std=None"
        )
    if images.shape[1] != scale.shape[1]:
        raise ValueError(
            f"AdderClassifier: expected images [N, {scale.shape[1]}, H, W], with as many channels as mean "
            f"and std, got {tuple(images.shape)}; give mean and std of these images"
        )
