"""Remembers what was proven on this machine, in a file per environment, so that the next start takes no time.

Under XDG_CACHE_HOME, by default ~/.cache: proofs belong to a machine, not to a run. If a file cannot be read
or written, the proof is repeated and the run is not affected.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from addertrain.durable import write_text
from addertrain.proof.layers import ProvenLayer


def cache_folder() -> Path | None:
    """The folder of proofs; None for a user without a home, as in some containers."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():  # the convention ignores such a path
        try:
            root = Path.home() / ".cache"
        except RuntimeError:
            return None
    return root / "addertrain" / "proofs"


class ProofStore:
    """The proofs of one environment: device, driver, versions and library."""

    def __init__(self, environment: Mapping[str, Any], folder: Path | None = None) -> None:
        self.environment = dict(environment)
        text = json.dumps(self.environment, sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        folder = folder or cache_folder()
        self.path = folder / f"{name}.json" if folder is not None else None
        self._proven = self._read()

    def holds(self, layer: ProvenLayer, kind: str) -> bool:
        """Whether this layer has been proven here."""
        return _key(layer, kind) in self._proven

    def add(self, layer: ProvenLayer, kind: str) -> None:
        """Adds a layer."""
        self._proven.add(_key(layer, kind))

    def write(self) -> None:
        """Writes all proofs, including those that another process has written in the meantime."""
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            proven = sorted(self._proven | self._read())
            write_text(self.path, json.dumps({"environment": self.environment, "proven": proven}, indent=1))

    def _read(self) -> set[str]:
        if self.path is None:
            return set()
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["environment"] != json.loads(json.dumps(self.environment, default=str)):
                return set()
            return {str(one) for one in found["proven"]}
        except (OSError, ValueError, LookupError, TypeError):
            return set()


def _key(layer: ProvenLayer, kind: str) -> str:
    images = f"{layer.forward_images} and {layer.gradient_images} images"
    return f"{layer}, {images}, {kind}"
