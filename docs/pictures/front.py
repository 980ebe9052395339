"""The two pictures of the front pages: what an adder layer computes, and how the project is put together."""

from collections.abc import Sequence

from docs.pictures.canvas import WIDTH, Canvas

PATCH = ((0, 2, 4), (1, 3, 4), (0, 1, 3))
FILTER = ((1, 2, 3), (1, 2, 4), (-1, 1, 3))
CELL = 40


def _grid(canvas: Canvas, left: float, top: float, rows: Sequence[Sequence[int]], colour: str) -> None:
    largest = max(abs(value) for row in rows for value in row)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            x, y = left + CELL * j, top + CELL * i
            canvas.rect(x, y, CELL, CELL)
            canvas.rect(x, y, CELL, CELL, fill=colour, line="rule", opacity=0.45 * abs(value) / largest)
            text = str(value).replace("-", "−")
            canvas.words(x + CELL / 2, y + 27, text, anchor="middle")


def layer(theme: str) -> str:
    """One patch and one filter, compared by an adder layer and by a convolution."""
    canvas = Canvas(490, "An adder layer sums differences, a convolution sums products", theme)
    pairs = [[(x, w) for x, w in zip(*rows, strict=True)] for rows in zip(PATCH, FILTER, strict=True)]
    rows = (
        ("Adder layer: how far is the patch from the filter?", "add", "−", "|x − w|", "−Σ|x − w|", -1,
         [[abs(x - w) for x, w in row] for row in pairs]),
        ("Convolution: how much of the filter is in the patch?", "multiply", "×", "x · w", "Σ x · w", 1,
         [[x * w for x, w in row] for row in pairs]),
    )  # fmt: skip
    for number, (title, colour, sign, each, formula, factor, values) in enumerate(rows):
        top = 74 + 236 * number
        canvas.words(24, top - 32, title, size=22, colour=colour, bold=True)
        for left, name, grid, shade in (
            (24, "patch x", PATCH, "other"),
            (196, "filter w", FILTER, "other"),
            (368, each, values, colour),
        ):
            _grid(canvas, left, top, grid, shade)
            canvas.words(left + 1.5 * CELL, top + 147, name, size=19, colour="muted", anchor="middle")
        canvas.words(170, top + 68, sign, size=28, colour="muted", anchor="middle")
        canvas.words(342, top + 68, "=", size=28, colour="muted", anchor="middle")
        canvas.arrow((500, top + 60), (532, top + 60))
        total = factor * sum(map(sum, values))
        canvas.words(
            616, top + 72, str(total).replace("-", "−"), size=40, colour=colour, anchor="middle", bold=True
        )
        canvas.words(616, top + 147, formula, size=19, colour="muted", anchor="middle")
    return canvas.svg()


def architecture(theme: str) -> str:
    """The parts of the package from the command line down to the kernels."""
    canvas = Canvas(520, "From a recipe to a trained network, and the parts of addertrain in between", theme)
    _box(canvas, 24, 24, 200, 74, "recipe", "one YAML file", "other")
    _box(canvas, 260, 24, 436, 74, "command line", "fit · evaluate · reproduce · plan · report", "other")
    canvas.arrow((226, 61), (256, 61))
    _box(
        canvas,
        24,
        134,
        672,
        74,
        "train",
        "Lightning · one process, DDP, ZeRO 1–3, FSDP2 · exact resumption",
        "other",
    )
    canvas.arrow((478, 100), (478, 130))
    for left, name, first, second, colour in (
        (24, "data", "FFCV, torchvision", "or in memory", "other"),
        (256, "models, nn", "adder layers and", "BatchNorm, fused", "add"),
        (488, "optim", "AdderSGD: the rate", "after the reduction", "add"),
    ):
        canvas.arrow((left + 104, 210), (left + 104, 240))
        _box(canvas, left, 244, 208, 106, name, first, colour, second)
    canvas.arrow((360, 352), (360, 382))
    canvas.arrow((592, 352), (592, 382))
    _box(canvas, 256, 386, 440, 106, "ops, kernels", "torch operators, compiled for AVX-512,", "add",
         "AVX2, NEON and CUDA (untried on GPUs)")  # fmt: skip
    _box(canvas, 24, 386, 208, 106, "run directory", "checkpoints,", "other", "curves, summary")
    canvas.path([(12, 171), (12, 439)], colour="muted", width=2)
    canvas.path([(12, 171), (24, 171)], colour="muted", width=2)
    canvas.arrow((12, 439), (22, 439))
    return canvas.svg()


def _box(
    canvas: Canvas,
    left: float,
    top: float,
    width: float,
    height: float,
    name: str,
    first: str,
    colour: str,
    second: str = "",
) -> None:
    assert left + width <= WIDTH
    canvas.rect(left, top, width, height, line="rule", radius=8)
    canvas.rect(left, top, 6, height, fill=colour, radius=3)
    canvas.words(left + 20, top + 30, name, size=21, colour=colour, bold=True)
    for number, words in enumerate(filter(None, (first, second))):
        canvas.words(left + 20, top + 58 + 26 * number, words, size=18, colour="muted")
