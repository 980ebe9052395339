"""A network's plain state_dict as a file of torch.save, which `torch.load(..., weights_only=True)` reads."""

from pathlib import Path
from typing import Literal

import torch

from addertrain.interchange.authors import export_official
from addertrain.train.trained import Trained

Layout = Literal["own", "authors"]


def export_state_dict(trained: Trained, path: str | Path, *, layout: Layout = "own") -> None:
    """Writes names and tensors, nothing else; `authors`: as their code reads them (ResNet-20, ResNet-50).

    Raises:
        InterchangeError: the authors have no such network.
    """
    if layout == "authors":
        state = export_official(trained.model, trained.recipe.model.name)
    else:
        state = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    torch.save(state, path)
