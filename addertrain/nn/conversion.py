"""The reports of `convert` (`network.conversion`) and of `fuse`, which can be printed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """What `fuse` found in a network; it prints a line of numbers, then what was left out, and why.

    Args:
        layers: adder layers, by name, and whether each reads a ReLU's output.
        norms: norms that are computed together with a layer, a ReLU or a residual's sum.
        block_ends: those of them whose norm, sum and ReLU are one pass.
        not_followed: modules that stay as they are because their code cannot be followed, and why.
        layers_left: adder layers that are not known to read a ReLU's output, and why.
        norms_left: norms that are computed alone, and why.
        block_ends_left: norms whose result a sum reads that is not part of the same pass, and why.
    """

    layers: Mapping[str, bool]
    norms: tuple[str, ...]
    block_ends: tuple[str, ...]
    not_followed: Mapping[str, str]
    layers_left: Mapping[str, str]
    norms_left: Mapping[str, str]
    block_ends_left: Mapping[str, str]

    def __str__(self) -> str:
        line = f"fuse: {sum(self.layers.values())} of {_counted(self.layers, 'adder layer')} read a ReLU, "
        line += f"{_counted(self.norms, 'norm')}, {_counted(self.block_ends, 'block end')}"
        for reason in dict.fromkeys(self.not_followed.values()):
            names = [name for name, why in self.not_followed.items() if why == reason]
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            line += f"; the code of {names[0] or 'the network itself'}{more} stays as it is ({reason})"
        lines = [line]
        lines += _by_reason("adder layers that are not known to read a ReLU:", self.layers_left)
        lines += _by_reason("norms computed alone:", self.norms_left)
        lines += _by_reason("block ends in several passes:", self.block_ends_left)
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Names of the original network's modules by what became of them.

    Args:
        converted: layers that are adder layers now.
        kept: Conv2d and Linear layers that are as they were, and why.
        skipped: modules with weights of other kinds, which are as they were, and why.
        norms: BatchNorm2d of torch, timm and the like that are addertrain's now: the same parameters, buffers
            and names.
        fusion: what `fuse` found, where `convert` was given an example.
    """

    converted: tuple[str, ...]
    kept: Mapping[str, str]
    skipped: Mapping[str, str]
    norms: tuple[str, ...]
    fusion: Fusion | None = None

    def __str__(self) -> str:
        lines = [f"converted {_counted(self.converted, 'layer')} to adder layers: {_listed(self.converted)}"]
        lines += _by_reason("kept", self.kept)
        lines += _by_reason("skipped", self.skipped)
        if self.norms:
            lines.append(f"{_counted(self.norms, 'norm')} computed by addertrain: {_listed(self.norms)}")
        if self.fusion is not None:
            lines.append(str(self.fusion))
        return "\n".join(lines)


def _by_reason(verb: str, reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason, with the names that share it."""
    names_of: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_of.setdefault(reason, []).append(name)
    return [f"{verb} {len(names)} ({reason}): {_listed(names)}" for reason, names in names_of.items()]


def _counted(names: Iterable[str], what: str) -> str:
    """Their number, and the word in its singular or plural."""
    number = len(list(names))
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: Iterable[str]) -> str:
    """The names in a row; the network itself has an empty one."""
    return ", ".join(name or "the network itself" for name in names)
