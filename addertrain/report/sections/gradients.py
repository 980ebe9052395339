"""Table 1 of the paper: the norms of the filters' gradients in the first iteration."""

import dataclasses

import torch

from addertrain.data import DataError, ImageData, build_loader
from addertrain.models import Kind
from addertrain.recipe import Recipe
from addertrain.report.document import Absent, Section, Source, averaged
from addertrain.report.runs import Group
from addertrain.report.study import Study
from addertrain.report.tables import Cell, Column, Spread, Table, file_name
from addertrain.train.loaders import FirstBatches
from addertrain.train.network import build_classifier

_KINDS: tuple[Kind, ...] = ("adder", "conv")
_TITLE = "Gradient norms in the first iteration (Table 1 of the paper)"


def gradients(study: Study) -> Section | Absent:
    """‖∂L/∂F‖₂ of every layer at the first weights, on the first batch; adder layers and convolutions."""
    tables: list[Table] = []
    lines: list[Source] = []
    reasons: list[str] = []
    for group in _families(study):
        recipe, seeds = group.recipe, [run.seed for run in group.runs]
        try:
            data = study.data(recipe)
        except DataError as error:
            reasons.append(str(error))
            continue
        rows = _rows(recipe, data, seeds)
        name = f"{recipe.model.name} on {recipe.data.name}"
        key = file_name(f"gradients_{recipe.model.name}_{recipe.data.name}")
        tables.append(Table(key, averaged(group, group.runs), _columns(), rows))
        words = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        text = (
            f"{name}: first weights and first batch of recipe {group.label} at {words}, and the same with "
            "the other kind of layers; computed for this report, in float32"
        )
        lines.append(Source(text))
    if not tables:
        return Absent(
            _TITLE, reasons[0] if reasons else "give a run of an adder network or a convolutional one"
        )
    text = (
        "The l2 norm of the loss's gradient by each layer's filters, before any learning rate acts, on one "
        "global batch. It is why adder layers need a rate of their own: with X − F for a gradient (Eq. 5) "
        "and normalised inputs, theirs is far smaller than a convolution's, and ALR makes up for it. The "
        "paper's values for the first layers of its LeNet: adder 0.0009, 0.0012, 0.0146; convolution "
        "0.2261, 0.2990, 0.4646."
    )
    return Section("gradients", _TITLE, text, tuple(lines), tuple(tables))


def _columns() -> tuple[Column, ...]:
    return (
        Column("layer", "layer"),
        Column("adder", "adder, ‖∂L/∂F‖₂", "", "#.3g"),
        Column("conv", "convolution, ‖∂L/∂F‖₂", "", "#.3g"),
        Column("ratio", "convolution / adder", "", "#.3g"),
    )


def _families(study: Study) -> list[Group]:
    """A group for each network and data set: adder layers, not an ablation of them, the most seeds."""
    found: dict[tuple[str, str], Group] = {}
    for group in study.groups:
        model = group.recipe.model
        if model.kind == "binary":
            continue
        key = (model.name, group.recipe.data.name)
        if key not in found or _rank(group) > _rank(found[key]):
            found[key] = group
    return list(found.values())


def _rank(group: Group) -> tuple[bool, bool, int]:
    model, optim = group.recipe.model, group.recipe.optim
    return model.kind == "adder", optim.alr == "global" and model.filter_gradient == "full", len(group.runs)


def _rows(recipe: Recipe, data: ImageData, seeds: list[int]) -> tuple[dict[str, Cell], ...]:
    norms = {
        kind: [first_gradient_norms(_of_kind(recipe, kind, seed), data) for seed in seeds] for kind in _KINDS
    }
    rows: list[dict[str, Cell]] = []
    for layer in norms["adder"][0]:
        adder = Spread.of(seed[layer] for seed in norms["adder"])
        conv = Spread.of(seed[layer] for seed in norms["conv"])
        ratio = conv.mean / adder.mean if adder and conv and adder.mean else None
        rows.append({"layer": layer, "adder": adder, "conv": conv, "ratio": ratio})
    return tuple(rows)


def _of_kind(recipe: Recipe, kind: Kind, seed: int) -> Recipe:
    model = dataclasses.replace(recipe.model, kind=kind, filter_gradient="full", input_gradient="ht")
    train = dataclasses.replace(recipe.train, seed=seed, compile="off")
    return dataclasses.replace(recipe, model=model, train=train)


def first_gradient_norms(recipe: Recipe, data: ImageData) -> dict[str, float]:
    """‖∂L/∂F‖₂ by layer, at the first weights and on the first batch of the recipe's training."""
    module = build_classifier(recipe, data, to_train=False).train()
    loader = build_loader(
        data, recipe.data, training=True, seed=recipe.train.seed, device=torch.device("cpu")
    )
    try:
        (batch,) = FirstBatches(loader, 1)
    finally:
        loader.close()
    _, loss = module.learn(batch)
    loss.backward()
    return {
        name.removesuffix(".weight"): float(parameter.grad.norm())
        for name, parameter in module.model.named_parameters()
        if parameter.dim() > 1 and parameter.grad is not None
    }
