"""FSDP2: parameters, gradients and momentum, sharded along their first dimension by torch's `fully_shard`."""

import warnings

from lightning.pytorch import Trainer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from addertrain.train.strategies.sharded import PartedNetwork

_UNIT_ELEMENTS = 1 << 20  # gathered together: 4 MiB of fp32, enough to hide a collective's latency


class FullySharded(PartedNetwork):
    """Each rank holds its rows of every parameter; others are gathered for a few layers at a time."""

    def shard(self, trainer: Trainer) -> None:
        """Shards the network in place, then builds the optimizer over its shards."""
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        model = self._classifier().model
        for unit in units(model):
            fully_shard(unit, mesh=mesh)
        fully_shard(model, mesh=mesh)
        # It warns of outputs that are views and would lose their hook when changed in place; none is here.
        warnings.filterwarnings("ignore", message=r".*returned a view tensor.*")
        self.setup_optimizers(trainer)

    def teardown(self) -> None:
        """Ends the training, also after an error while a unit was gathered.

        Such a unit cannot be moved to the CPU, and that error would hide the first one.
        """
        network = self.lightning_module
        for module in network.modules() if network is not None else ():
            if isinstance(module, FSDPModule):
                module.set_reshard_after_forward(True)  # else a forward pass keeps what it gathered
                module.reshard()
        super().teardown()


def units(model: nn.Module, elements: int = _UNIT_ELEMENTS) -> list[nn.Module]:
    """Submodules to gather one by one: the smallest ones with at least `elements`, inner ones first."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> int:
        """Elements below `module` that belong to no unit yet."""
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        count = own + sum(visit(child) for child in module.children())
        if count < elements or module is model or isinstance(module, nn.ModuleList | nn.ModuleDict):
            return count
        found.append(module)
        return 0

    visit(model)
    return found
