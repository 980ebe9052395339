"""Run directories of networks that were never trained: their first weights, written as a run would."""

from pathlib import Path

import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.models import build_model
from addertrain.recipe import Recipe, recipe_to_yaml
from addertrain.train.recipe_record import recipe_to_record
from addertrain.train.run_directory import RunDirectory


def made_up_run(path: Path, recipe: Recipe) -> Path:
    """An unfinished run with a checkpoint after its first epoch and no curves."""
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe.model.name, kind=recipe.model.kind, num_classes=10)
    run = RunDirectory(path)
    run.store.folder.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe), encoding="utf-8")
    manifest = {"epoch": 1, "global_step": 5, "batches": 0, "recipe": recipe_to_record(recipe), "state": {}}
    tensors = {"model": model.state_dict(), "optimizer": {}, "rank_buffers": {}}
    write_checkpoint(run.store.path_for(epoch=1, global_step=5), tensors, manifest)
    return path
