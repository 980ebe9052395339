"""What Linux says of this machine's processor; knows no torch."""

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """The processor's name, or the machine's architecture where Linux gives no name (most aarch64)."""
    return processor_facts(_CPUINFO).get("model name") or platform.machine()


def processor_family() -> str:
    """The family, model and stepping, which tell generations apart: those that Linux gives, maybe none."""
    facts = processor_facts(_CPUINFO)
    keys = ("cpu family", "model", "stepping")
    return ", ".join(f"{key} {facts[key]}" for key in keys if key in facts)


@functools.cache
def processor_facts(path: Path) -> dict[str, str]:
    """The entries of the first core in a file like /proc/cpuinfo; none if there is no such file."""
    try:
        first, *_ = path.read_text(encoding="utf-8").split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
