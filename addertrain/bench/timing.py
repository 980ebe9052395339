"""Timing that is robust on a noisy machine: interleaved rounds, medians, processor time."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median over the rounds, and the fastest round."""

    median: float
    best: float


def clock() -> float:
    """Seconds to take differences of.

    With one thread the processor time of this process, which leaves out the turns that other processes had;
    with more the wall clock, because processor time adds up what threads spend waiting for each other.
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, seconds: float, rounds: int = 3, warm_up: bool = True
) -> dict[str, Timing]:
    """Times every call in turn, round after round for `seconds` in all and at least `rounds` rounds.

    One round gives each call one turn, so that a slow spell of the machine falls on all of them.
    """
    for call in calls.values() if warm_up else ():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < rounds:
        for name, call in calls.items():
            start = clock()
            call()
            taken[name].append(clock() - start)
    return {name: Timing(statistics.median(times), min(times)) for name, times in taken.items()}
