"""A plan in lines for a person, with the rate drawn."""

import math
from collections.abc import Callable

from addertrain.data.beton.page_cache import picture_needs
from addertrain.models import energy_joules, via_nano_cycles
from addertrain.plan.figures import GIB, Plan
from addertrain.recipe import recipe_to_yaml
from addertrain.report.tables import si_text

_FEW_IMAGES = 8  # fewer give a channel of a 1 x 1 map a standard deviation that is off by a quarter
HEIGHT = 8
WIDTH = 64
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def plan_text(plan: Plan) -> str:
    """The resolved recipe, every figure on a line, and the rate's picture."""
    rows = [*_work(plan), *_network(plan), *_machine(plan)]
    width = max(len(name) for name, _ in rows)
    recipe = plan.recipe
    return "\n".join(
        [
            recipe_to_yaml(recipe).rstrip(),
            "",
            *(f"{name:<{width}}  {value}" for name, value in rows),
            "",
            f"{'γ':>6}",
            *rate_picture(plan.rate, plan.num_steps, epochs=recipe.schedule.epochs),
        ]
    )


def _work(plan: Plan) -> list[tuple[str, str]]:
    recipe = plan.recipe
    parts = recipe.train.accumulate
    share = plan.rank_batch_size // parts
    cut = f", in {parts} parts of {share}" if parts > 1 else ""
    return [
        ("images", f"{plan.num_train} to train on, {plan.num_test} to test on, {plan.image_shape}"),
        ("ranks", f"{plan.world_size}"),
        ("batch", f"{recipe.data.global_batch_size} in all, {plan.rank_batch_size} a rank{cut}"),
        (
            "steps",
            f"{plan.num_steps} ({plan.steps_per_epoch} an epoch, {recipe.schedule.epochs} epochs)",
        ),
        *_batch_norm(plan, share),
    ]


def _batch_norm(plan: Plan, share: int) -> list[tuple[str, str]]:
    """What batch norm normalises by; a warning where that is little."""
    is_shared = plan.recipe.train.sync_batchnorm and plan.world_size > 1
    images = share * plan.world_size if is_shared else share
    whose = "a rank's own" if plan.world_size > 1 else "a part's" if plan.recipe.train.accumulate > 1 else ""
    whose = "of all ranks, train.sync_batchnorm true" if is_shared else whose
    rows = [("batch norm", f"normalises by {images} images at a time{f' ({whose})' if whose else ''}")]
    if images < _FEW_IMAGES:
        ways = "fewer ranks or parts, or a larger batch"
        if plan.world_size > 1 and not is_shared:
            ways = f"train.sync_batchnorm true normalises by the images of all ranks; else {ways}"
        rows.append(("warning", f"statistics of {images} images are noise; {ways}"))
    return rows


def _network(plan: Plan) -> list[tuple[str, str]]:
    count = plan.operations
    return [
        ("parameters", f"{count.num_parameters} ({count.num_parameters / 1e6:.2f} M)"),
        ("adder elements", f"{si_text(count.adder_elements)} an image, in {len(count.adder_layers)} layers"),
        ("multiplications", f"{si_text(count.multiplications)} an image"),
        ("additions", f"{si_text(count.additions)} an image"),
        ("XNORs", f"{si_text(count.xnors)} an image, each with a bit counted"),
        ("norms", f"{si_text(count.norm_elements)} elements an image, not in these counts"),
        ("VIA Nano 2000", f"{si_text(via_nano_cycles(count))} cycles an image"),
        ("energy at 45 nm", f"{1e3 * energy_joules(count):.3g} mJ an image, float32, arithmetic alone"),
    ]


def _machine(plan: Plan) -> list[tuple[str, str]]:
    memory = plan.memory
    parts = ", ".join(
        f"{name} {_gib(getattr(memory, name))}"
        for name in ("parameters", "gradients", "momentum", "buffers", "activations")
    )
    if plan.recipe.distill.teacher != "none":
        parts += "; the teacher comes on top"
    if plan.seconds is None or plan.images_per_second is None:
        time = "unknown; --rate IMAGES_PER_SECOND of one rank, or --rate measure, estimates it"
    else:
        time = (
            f"{_duration(plan.seconds)} at {plan.images_per_second:.0f} images/s over all ranks, evaluations "
            "and communication not included"
        )
    files = [f"{place.path} ({'there' if place.is_there else 'missing'})" for place in plan.places]
    return [
        ("memory a rank", f"{_gib(memory.total)}: {parts}"),
        ("disk", f"{_gib(plan.disk_bytes)} of checkpoints, {_gib(plan.free_bytes)} free"),
        ("files", ", ".join(files) or "none: the images come with scikit-learn"),
        *_page_cache(plan),
        *_decoding(plan),
        ("time", time),
    ]


def _page_cache(plan: Plan) -> list[tuple[str, str]]:
    """How the .beton files that are there fit into memory."""
    rows = []
    for place in plan.places:
        if place.is_there and place.path.suffix == ".beton":
            needs = picture_needs(place.path, plan.recipe.data, world_size=plan.world_size)
            cache = f"{place.path.name}: {_gib(needs.file)} of {_gib(needs.memory)} on this machine"
            rows.append(("page cache", f"{cache}; its loader: {_gib(needs.loader)} a rank"))
            if needs.warning:
                rows.append(("warning", needs.warning))
    return rows


def _decoding(plan: Plan) -> list[tuple[str, str]]:
    """How many cores decode at the plan's rate; a warning where the recipe gives them too few threads."""
    decoding = plan.decoding
    if decoding is None:
        return []
    cost = f"{decoding.ms:.3g} ms of a core an image ({decoding.source})"
    if plan.images_per_second is None:
        return [("decoding", f"{decoding.cores(1000):.3g} cores for every 1000 images/s: {cost}")]
    cores = decoding.cores(plan.images_per_second)
    share = cores / plan.world_size
    each = f", {share:.1f} a rank" if plan.world_size > 1 else ""
    rows = [("decoding", f"{cores:.1f} cores at {plan.images_per_second:.0f} images/s{each}: {cost}")]
    threads = plan.recipe.data.threads
    if threads is not None and threads < share:
        most = f"at most {1e3 * threads / decoding.ms:.0f} images/s a rank"
        advice = f"set {math.ceil(share)} or more, or null for the rank's share of the cores"
        rows.append(("warning", f"data.threads {threads} decodes {most}, which is less; {advice}"))
    return rows


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= 0.1 * GIB else f"{num_bytes / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"


def rate_picture(rate: Callable[[int], float], num_steps: int, *, epochs: int) -> list[str]:
    """Lines of a bar picture: time from left to right, the rate upwards from 0 to its largest value."""
    values = [rate(round(column * (num_steps - 1) / (WIDTH - 1))) for column in range(WIDTH)]
    highest = max(values)
    labels = {0: f"{highest:.3g}", HEIGHT - 1: "0"}
    lines = []
    for line in range(HEIGHT):
        floor = HEIGHT - 1 - line
        cells = [round(8 * (value / highest * HEIGHT - floor)) for value in values]
        bar = "".join(_EIGHTHS[min(max(cell, 0), 8)] for cell in cells)
        lines.append(f"{labels.get(line, ''):>6} │{bar}".rstrip())
    lines.append(f"{'':>6} └{'─' * WIDTH}")
    lines.append(f"{'':>8}{'epoch 0':<{WIDTH // 2}}{epochs:>{WIDTH // 2}}")
    return lines
