"""Python runs this first where its folder is on PYTHONPATH: limits our kernels as soon as they are loaded.

See `tests.instruction_sets`. Nothing is imported that the process does not import itself.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence


class _Limit(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands before the finder of `addertrain.libraries`; calls the operator when that has loaded them."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._loader: importlib.abc.Loader | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "addertrain.libraries":
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                self._loader, spec.loader = spec.loader, self
                return spec
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        assert self._loader is not None
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        import torch

        assert self._loader is not None
        self._loader.exec_module(module)
        # Where tests put another library, or none, in the place of _C, they choose the set themselves.
        if hasattr(torch.ops.addertrain, "use_cpu_instruction_set"):
            assert torch.ops.addertrain.use_cpu_instruction_set(self._number)


sys.meta_path.insert(0, _Limit(int(os.environ["ADDERTRAIN_TESTS_INSTRUCTION_SET"])))
