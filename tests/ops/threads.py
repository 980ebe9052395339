"""Answers under one, two and three threads."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differing(answers: Callable[[], Sequence[Tensor]]) -> list[int]:
    """The numbers of those answers whose bits depend on the number of threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(answers())
    finally:
        torch.set_num_threads(before)
    return [
        i
        for i, (a, b, c) in enumerate(zip(*found, strict=True))
        if not (torch.equal(a, b) and torch.equal(a, c))
    ]
