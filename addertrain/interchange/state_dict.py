"""A network's plain state_dict as a file of torch.save, which `torch.load(..., weights_only=True)` reads."""

import io
from pathlib import Path
from typing import Literal

import torch

from addertrain.interchange.authors import export_official
from addertrain.interchange.target import exported
from addertrain.train.trained import Trained

Layout = Literal["own", "authors"]
"""Names of an exported state_dict: this package's own, or those of the authors' code."""


def export_state_dict(trained: Trained, path: str | Path, *, layout: Layout = "own") -> None:
    """Writes names and tensors only; layout "authors" is the one that their code reads (ResNet-20,
    ResNet-50).

    Raises:
        InterchangeError: the authors have no such network, or the file cannot be written.
    """
    if layout == "authors":
        state = export_official(trained.model, trained.recipe.model.name)
    else:
        state = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    contents = io.BytesIO()
    torch.save(state, contents)  # into memory: on a full disk it raises an error of its own, not the disk's
    with exported(path) as temporary:
        temporary.write_bytes(contents.getbuffer())
