"""Figure 1 of the paper: two features of an image, clusters for adder layers, angles for convolutions."""

import numpy as np
from torch import Tensor

from addertrain.data import DataError
from addertrain.report.document import Absent, Section, sources
from addertrain.report.observation import Observation
from addertrain.report.runs import Group, Run
from addertrain.report.study import Study
from addertrain.report.style import CLASS_COLORS, KIND_NAMES, Axes, Picture, panels, picture

_TITLE = "Features as points of the plane (Figure 1 of the paper)"
_REMEDY = (
    "a run of a network that ends in two features: addertrain fit recipes/mnist/lenetplusplus.yaml, "
    "and lenetplusplus_conv.yaml for its convolutional baseline"
)


def features(study: Study) -> Section | Absent:
    """A panel for the first seed of each recipe whose network ends in two features."""
    shown: list[tuple[Group, Run, Observation]] = []
    for group in study.groups:
        if group.recipe.model.name != "lenet++" or not group.with_weights:
            continue
        run = group.with_weights[0]
        try:
            shown.append((group, run, study.observation(run)))
        except DataError as error:
            return Absent(_TITLE, str(error))
    if not shown:
        return Absent(_TITLE, _REMEDY)
    text = (
        "What enters the last layer, two numbers an image, coloured by class and named at each class's "
        "median. An adder layer compares features with its filters (crosses, with their class; those far "
        "outside are cut off) by their l1 distance, so a class is a cluster; a convolution by their inner "
        "product, so a class is an angle (rays: its filters' directions). Features are the outputs of a "
        "norm, without unit."
    )
    used = [run for _, run, _ in shown]
    groups = [group for group, _, _ in shown]
    return Section("features", _TITLE, text, sources(groups, only=used), (), (_figure(shown),))


def _figure(shown: list[tuple[Group, Run, Observation]]) -> Picture:
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = panels(rows, columns, panel_height=4.1)
    flat = [panel for row in axes for panel in row]
    for panel, (group, run, seen) in zip(flat, shown, strict=False):
        assert seen.last_input is not None
        _scatter(panel, seen.last_input, seen.labels)
        kind = group.recipe.model.kind
        _filters(panel, run, kind)
        panel.set_title(f"{KIND_NAMES[kind]}: {group.label}, seed {run.seed}")
        panel.set(xlabel="feature 1", ylabel="feature 2")
    for panel in flat[len(shown) :]:
        panel.set_axis_off()
    caption = f"The first {shown[0][2].num_images} test images; one point each."
    return picture(figure, "features", caption)


def _scatter(panel: Axes, points: Tensor, labels: Tensor) -> None:
    """Images as dots, classes named at their medians; the frame leaves out the farthest one in a thousand."""
    size = max(3.0, min(12.0, 8000 / len(points)))
    for label in labels.unique().tolist():
        own = points[labels == label].numpy()
        color = CLASS_COLORS[label % len(CLASS_COLORS)]
        panel.scatter(own[:, 0], own[:, 1], s=size, color=color, linewidths=0, alpha=0.6, rasterized=True)
    for label in labels.unique().tolist():
        x, y = points[labels == label].median(0).values.tolist()
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        panel.text(x, y, str(label), ha="center", va="center", fontweight="bold", bbox=box, zorder=4)
    lowest, highest = np.quantile(points.numpy(), (0.001, 0.999), axis=0)
    (x, y), reach = (lowest + highest) / 2, 0.6 * float((highest - lowest).max())
    panel.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), aspect="equal")


def _filters(panel: Axes, run: Run, kind: str) -> None:
    """The last layer's filters: centres of an adder layer, directions of a convolution."""
    filters = run.weights["fc2.weight"].flatten(1).numpy()
    if kind == "adder":
        for label, (x, y) in enumerate(filters):
            panel.plot(x, y, "x", color="black", markersize=6, zorder=3)
            panel.annotate(
                str(label), (x, y), (4, 3), textcoords="offset points", fontsize=8, annotation_clip=True
            )
    elif kind == "conv":
        reach = max(map(abs, (*panel.get_xlim(), *panel.get_ylim())))
        ends = 0.9 * reach * filters / np.linalg.norm(filters, axis=1, keepdims=True).clip(1e-12)
        for x, y in ends:
            panel.plot([0, x], [0, y], color="black", linewidth=0.7, alpha=0.6, zorder=1)
