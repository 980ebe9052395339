"""Run directories of networks that were never trained: their first weights, written as a run would."""

from pathlib import Path
from typing import Any

import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.models import build_model
from addertrain.recipe import Recipe, recipe_to_yaml
from addertrain.train.recipe_record import recipe_to_record
from addertrain.train.run_directory import RunDirectory


def made_up_run(path: Path, recipe: Recipe, *, epoch: int = 1, shift: float = 0.0, **entries: Any) -> Path:
    """An unfinished run with a checkpoint after an epoch and no curves.

    Args:
        shift: is added to the first layer's weights.
        entries: of the manifest, beside those that a report cannot do without.
    """
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe.model.name, kind=recipe.model.kind, num_classes=10)
    with torch.no_grad():
        next(model.parameters()).add_(shift)
    run = RunDirectory(path)
    run.store.folder.mkdir(parents=True, exist_ok=True)
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe), encoding="utf-8")
    step = 5 * epoch
    needed = {"epoch": epoch, "global_step": step, "batches": 0, "recipe": recipe_to_record(recipe)}
    tensors = {"model": model.state_dict(), "optimizer": {}, "rank_buffers": {}}
    checkpoint = run.store.path_for(epoch=epoch, global_step=step)
    write_checkpoint(checkpoint, tensors, {**needed, "state": {}, **entries})
    return path
