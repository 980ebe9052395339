"""The rate γ over a run, as a picture of characters."""

from collections.abc import Callable

HEIGHT = 8
WIDTH = 64
_EIGHTHS = " ▁▂▃▄▅▆▇█"


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
