"""A plan as text, with a plot of the learning rate."""

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
    """The resolved recipe, every figure on a line, and a plot of the learning rate."""
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
    cut = f", in {parts} micro-batches of {share}" if parts > 1 else ""
    return [
        ("images", f"{plan.num_train} for training, {plan.num_test} for testing, {plan.image_shape}"),
        ("ranks", f"{plan.world_size}"),
        ("batch", f"{recipe.data.global_batch_size} in all, {plan.rank_batch_size} per rank{cut}"),
        (
            "steps",
            f"{plan.num_steps} ({plan.steps_per_epoch} per epoch, {recipe.schedule.epochs} epochs)",
        ),
        *_batch_norm(plan, share),
    ]


def _batch_norm(plan: Plan, share: int) -> list[tuple[str, str]]:
    """How many images batch norm normalises over, and a warning if they are few."""
    is_shared = plan.recipe.train.sync_batchnorm and plan.world_size > 1
    images = share * plan.world_size if is_shared else share
    whose = ""
    if is_shared:
        whose = " (of all ranks, because of train.sync_batchnorm)"
    elif plan.world_size > 1:
        whose = " (a rank's own)"
    elif plan.recipe.train.accumulate > 1:
        whose = " (a micro-batch's)"
    rows = [("batch norm", f"normalises over {images} images at a time{whose}")]
    if images < _FEW_IMAGES:
        ways = "use fewer ranks or micro-batches, or a larger batch"
        if plan.world_size > 1 and not is_shared:
            ways = f"train.sync_batchnorm: true normalises over all ranks; otherwise {ways}"
        rows.append(("warning", f"statistics of {images} images are too noisy; {ways}"))
    return rows


def _network(plan: Plan) -> list[tuple[str, str]]:
    count = plan.operations
    return [
        ("parameters", f"{count.num_parameters} ({count.num_parameters / 1e6:.2f} M)"),
        ("adder elements", f"{si_text(count.adder_elements)} per image, in {len(count.adder_layers)} layers"),
        ("multiplications", f"{si_text(count.multiplications)} per image"),
        ("additions", f"{si_text(count.additions)} per image"),
        ("XNORs", f"{si_text(count.xnors)} per image, each followed by a bit count"),
        ("norms", f"{si_text(count.norm_elements)} elements per image, not included above"),
        ("VIA Nano 2000", f"{si_text(via_nano_cycles(count))} cycles per image"),
        (
            "energy at 45 nm",
            f"{1e3 * energy_joules(count):.3g} mJ per image in float32, for the arithmetic only",
        ),
    ]


def _machine(plan: Plan) -> list[tuple[str, str]]:
    memory = plan.memory
    parts = ", ".join(
        f"{name} {_gib(getattr(memory, name))}"
        for name in ("parameters", "gradients", "momentum", "buffers", "activations")
    )
    if plan.recipe.distill.teacher != "none":
        parts += "; the teacher is not included"
    if plan.seconds is None or plan.images_per_second is None:
        time = "unknown; give the speed of one rank with --rate IMAGES_PER_SECOND, or --rate measure"
    else:
        time = (
            f"{_duration(plan.seconds)} at {plan.images_per_second:.0f} images/s over all ranks, without "
            "evaluations and communication"
        )
    files = [f"{place.path} ({'there' if place.is_there else 'missing'})" for place in plan.places]
    return [
        ("memory per rank", f"{_gib(memory.total)}: {parts}"),
        *_falling_power(plan),
        *_views(plan),
        ("disk", f"{_gib(plan.disk_bytes)} of checkpoints, {_gib(plan.free_bytes)} free"),
        ("files", ", ".join(files) or "none, because the images come with scikit-learn"),
        *_page_cache(plan),
        *_decoding(plan),
        ("time", time),
    ]


def _falling_power(plan: Plan) -> list[tuple[str, str]]:
    """The steps whose power lies between 2 and 1, and their speed."""
    if not plan.num_power_steps:
        return []
    steps = f"p falls from {plan.recipe.schedule.p_start:g} to 1 in {plan.num_power_steps} steps"
    if plan.power_images_per_second is not None:
        speed = f"{plan.power_images_per_second:.0f} images/s over all ranks"
    elif plan.images_per_second is not None:
        speed = "the time below takes them to be as fast as the others, and they are several times slower"
    else:
        speed = "several times slower than the others (docs/training.md)"
    return [("power", f"{steps}: {speed}")]


def _views(plan: Plan) -> list[tuple[str, str]]:
    """What a frozen teacher does before the first step."""
    views = plan.recipe.distill.views
    if not views:
        return []
    images = f"{views} views of {plan.num_train} images before the first step"
    return [("teacher", f"looks at {images}, on every rank; the time below does not include that")]


def _page_cache(plan: Plan) -> list[tuple[str, str]]:
    """Whether existing .beton files fit into memory."""
    rows = []
    for place in plan.places:
        if place.is_there and place.path.suffix == ".beton":
            needs = picture_needs(place.path, plan.recipe.data, world_size=plan.world_size)
            cache = f"{place.path.name}: {_gib(needs.file)} of {_gib(needs.memory)} on this machine"
            rows.append(("page cache", f"{cache}; its loader: {_gib(needs.loader)} per rank"))
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
    """The lines of a bar chart: time from left to right, the rate upwards from 0 to its maximum."""
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
