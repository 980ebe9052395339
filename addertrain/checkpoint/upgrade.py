"""Converts manifests of formats 1 and 2 to format 3; no other file knows the older formats.

Those two formats kept the trainer's own dictionary: its loops' counters, its schedulers' attributes, and the
callbacks' states under the names of their classes. All these names are history, so they are written down here
and nowhere else: neither a renamed class nor another version of the trainer changes what is in the files.
Format 1 differs from format 2 only in its files: no rank wrote pieces of tensors.
"""

from collections.abc import Mapping
from typing import Any

# The class whose name a callback's state had, and what format 3 calls that state.
_CALLBACKS = {"RunClock": "clock", "SaveCheckpoints": "best"}
_BEST = {"best": "checkpoint", "best_top1": "top1"}
_COUNTS = ("loss", "top1", "top5", "num_images")
_SCALE = {
    "scale": "scale",
    "_growth_tracker": "good_steps",
    "growth_factor": "growth_factor",
    "backoff_factor": "backoff_factor",
    "growth_interval": "growth_interval",
}
# Position and versions stand in the manifest itself.
_REPEATED = ("epoch", "global_step", "pytorch-lightning_version")


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """`manifest` in format 3; its `format_version` is still that of the files on disk.

    Raises:
        KeyError, TypeError, AttributeError, IndexError: it is not a manifest of its format.
    """
    if manifest["format_version"] >= 3:
        return manifest
    rest = {key: value for key, value in manifest.get("state", {}).items() if key not in _REPEATED}
    fit_loop = rest.pop("loops", {}).get("fit_loop", {})
    callbacks = dict(rest.pop("callbacks", {}))
    state: dict[str, Any] = {
        name: callbacks.pop(class_name) for class_name, name in _CALLBACKS.items() if class_name in callbacks
    }
    if "best" in state:
        state["best"] = _renamed(state["best"], _BEST)
    if "epoch_so_far" in rest:
        state["counts"] = dict(zip(_COUNTS, rest.pop("epoch_so_far"), strict=True))
    if "faults" in rest:
        state["faults"] = rest.pop("faults")
    if schedulers := rest.pop("lr_schedulers", []):
        state["schedule"] = _schedule(schedulers[0])
    if "MixedPrecision" in rest:
        state["loss_scale"] = _renamed(rest.pop("MixedPrecision"), _SCALE)
    if loaders := fit_loop.get("state_dict", {}).get("combined_loader", []):
        state["loader"] = loaders[0]
    optimizers = manifest.get("optimizer", [])
    foreign = {key: value for key, value in (("callbacks", callbacks), ("entries", rest)) if value}
    return {
        **manifest,
        **_position(fit_loop),
        "optimizer": optimizers[0] if optimizers else None,
        "state": state,
        **({"foreign": foreign} if foreign else {}),
    }


def _position(fit_loop: Mapping[str, Any]) -> dict[str, Any]:
    """The position by the loops' counters, because older manifests did not always set their own."""
    if not fit_loop:  # of averaged checkpoints
        return {"batches_per_epoch": None, "is_evaluation_due": False}
    epochs, progress = fit_loop["epoch_progress"]["current"], fit_loop["epoch_loop.batch_progress"]
    steps = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    epoch = epochs["processed"]
    batches = progress["current"]["processed"] if epochs["ready"] > epoch else 0
    is_evaluation_due = batches > 0 and progress["is_last_batch"]
    per_epoch = batches if is_evaluation_due else None
    if epoch > 0:
        per_epoch = (progress["total"]["processed"] - batches) // epoch
    return {
        "epoch": epoch,
        "batches": batches,
        "global_step": steps["completed"],
        "batches_per_epoch": per_epoch,
        "is_evaluation_due": is_evaluation_due,
    }


def _schedule(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": scheduler["last_epoch"],
        "base_rates": scheduler["base_lrs"],
        "rates": scheduler["_last_lr"],
    }


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {new: values[old] for old, new in names.items()}
