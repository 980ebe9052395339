"""How learning rates scale with the global batch size: pure functions of s = batch / base batch.

Plain SGD's step is gamma g: in s times fewer steps, linear scaling gamma -> s gamma goes the same way (Goyal
et al. 2017). ALR's step has the length gamma eta sqrt(k) whatever the gradient's, so only its direction
gains: where noise dominates, the part of g along the mean gradient grows as sqrt(s). With gamma -> sqrt(s)
gamma the way along it and the spread over an epoch of N/s steps both stay as they were, as for Adam (Malladi
et al. 2022); linear scaling would walk sqrt(s) times too far.

    RMS(w) -> eta sqrt(gamma / (2 lambda (1 - mu))),  time constant (1 - mu) / (2 gamma lambda) steps

follows gamma: sqrt scaling alone lets RMS(w) grow by s^(1/4), reached after s^(1/2) times more epochs.
Scaling the decay lambda of adder layers by the same factor keeps both.
"""

import math
from typing import Literal

BatchScaling = Literal["none", "sqrt", "linear"]
"""How a rate or a decay grows with the global batch: not at all, with its square root, or in proportion."""


def scaling_factor(rule: BatchScaling, scale: float) -> float:
    """The factor of a rate or decay if the batch is `scale` times the one that it is meant for.

    Raises:
        ValueError: if `scale` is not positive, or there is no such rule.
    """
    if not scale > 0:
        raise ValueError(f"scaling_factor: expected a batch scale above 0, got {scale}.")
    match rule:
        case "none":
            return 1.0
        case "sqrt":
            return math.sqrt(scale)
        case "linear":
            return scale
    raise ValueError(f"scaling_factor: expected none, sqrt or linear, got {rule!r}.")


def equilibrium_rms(*, lr: float, eta: float, weight_decay: float, momentum: float) -> float:
    """η √(γ / (2 λ (1 − μ))), the RMS of filters where decay takes away what uncorrelated steps add.

    A scaled gradient of RMS η moves weights by γ η / (1 − μ) in the long run, so w² gains γ² η² / (1 − μ)² a
    step and loses 2 γ λ w² / (1 − μ). Infinite without decay.
    """
    if weight_decay == 0:
        return math.inf
    return eta * math.sqrt(lr / (2 * weight_decay * (1 - momentum)))
