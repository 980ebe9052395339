"""What `convert` did to a network: `network.conversion`, which prints itself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from addertrain.nn.fuse import Fusion


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Names of the original network's modules by what became of them.

    Args:
        converted: layers that are adder layers now.
        kept: Conv2d and Linear layers that are as they were, and why.
        skipped: modules with weights of other kinds, which are as they were, and why.
        norms: torch's BatchNorm2d that are addertrain's now: the same parameters, buffers and names.
        fusion: what `fuse` found, where `convert` was given an example.
    """

    converted: tuple[str, ...]
    kept: Mapping[str, str]
    skipped: Mapping[str, str]
    norms: tuple[str, ...]
    fusion: Fusion | None = None

    def __str__(self) -> str:
        lines = [f"converted {_count(self.converted, 'layer')} to adder layers: {_listed(self.converted)}"]
        lines += _by_reason("kept", self.kept)
        lines += _by_reason("skipped", self.skipped)
        if self.norms:
            lines.append(f"{_count(self.norms, 'norm')} computed by addertrain: {_listed(self.norms)}")
        if self.fusion is not None:
            lines.append(str(self.fusion))
        return "\n".join(lines)


def _by_reason(verb: str, reasons: Mapping[str, str]) -> list[str]:
    names_of: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_of.setdefault(reason, []).append(name)
    return [f"{verb} {len(names)} ({reason}): {_listed(names)}" for reason, names in names_of.items()]


def _count(names: Iterable[str], what: str) -> str:
    number = len(list(names))
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "the network itself" for name in names)
