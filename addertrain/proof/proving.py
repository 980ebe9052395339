"""The proof: runs every trial of every layer twice and compares the results with the answers."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from addertrain.ops.answers import mistake
from addertrain.proof.layers import ProvenLayer
from addertrain.proof.operators import Operators
from addertrain.proof.store import ProofStore
from addertrain.proof.trials import Trial, trials_of


@dataclass(frozen=True)
class Failure:
    """A kernel that is wrong for a layer; plain values, which ranks exchange."""

    layer: str
    names: tuple[str, ...]
    kernel: str
    error: str

    def __str__(self) -> str:
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"{self.kernel} at layer {self.names[0]}{more} ({self.layer}): {self.error}"


@dataclass
class Outcome:
    """What a proof found; `num_proven` layers were compared now, the others earlier."""

    num_layers: int
    num_proven: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return asdict(self)


def prove(
    layers: Mapping[ProvenLayer, list[str]],
    operators: Operators,
    *,
    store: ProofStore | None = None,
    with_int8: bool = False,
    with_powers: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Compares every layer that `store` does not contain, and stores those that are right.

    `with_powers` also compares the kernels between the l2 and the l1 distance.

    A kernel that raises ends the proof, because a GPU computes nothing after most errors.
    """
    outcome, start = Outcome(len(layers)), time.perf_counter()
    kind = ("and int8" if with_int8 else "float") + (" and powers" if with_powers else "")
    norms: set[tuple[object, ...]] = set()  # alike behind several layers
    with torch.no_grad(), _one_thread(operators.device):
        for layer, names in layers.items():
            if store is not None and store.holds(layer, kind):
                continue
            norm = (layer.O, layer.output, layer.dtype, layer.is_offset_free, layer.is_channels_last)
            found = _failures(
                layer, names, operators,
                with_int8=with_int8, with_norm=norm not in norms, with_powers=with_powers,
            )  # fmt: skip
            outcome.num_proven += 1
            outcome.failures += found.failures
            if found.has_raised:
                break
            if not found.failures:
                norms.add(norm)  # a wrong norm is wrong behind every layer, none of which is proven
                if store is not None:
                    store.add(layer, kind)
            say(f"{layer}: {'WRONG' if found.failures else 'right'}")
    if store is not None and outcome.num_proven:
        store.write()
    outcome.seconds = time.perf_counter() - start
    return outcome


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Uses one thread on CPUs: results are the same bits for any number, and small operators are slower on
    several.
    """
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Found:
    failures: list[Failure] = field(default_factory=list)
    has_raised: bool = False


def _failures(layer: ProvenLayer, names: list[str], operators: Operators, **kinds: bool) -> _Found:
    found = _Found()
    kernel = "the first kernel"
    try:
        for trial in trials_of(layer, operators, **kinds):
            kernel = trial.kernel
            if (error := _error_of(trial, operators)) is not None:
                found.failures.append(Failure(str(layer), tuple(names), kernel, error))
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found.failures.append(Failure(str(layer), tuple(names), kernel, f"it raised: {reason}"))
        found.has_raised = True
    return found


def _error_of(trial: Trial, operators: Operators) -> str | None:
    """The error of a trial's results, or of those of its second run."""
    first = _copies(trial.run())
    second = trial.run()
    operators.wait()
    if trial.is_ours and not all(map(_are_same_bits, first, second)):
        return "two runs gave different bits"
    for result, answer in zip(first, trial.answers(), strict=True):
        if (wrong := mistake(result, answer)) is not None:
            return wrong
    return None


def _copies(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(result.clone() for result in results)


def _are_same_bits(one: Tensor, other: Tensor) -> bool:
    """NaN equals itself here."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
