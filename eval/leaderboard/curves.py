"""Small line charts, one a task, as coordinates that the page draws as SVG."""

from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 240, 130, 34, 20, 8


@dataclass
class Panel:
    """One task's curve: points in SVG units, raw and smoothed, with the axis's labels."""

    task: str
    points: str
    smooth: str
    ticks: list[tuple[float, str]]
    first_step: int
    last_step: int
    last_value: float


def panels(metrics: list[dict[str, Any]], prefix: str, run: str = "") -> list[Panel]:
    """Return one panel for every metric whose name starts with `prefix`, all on one vertical scale.

    Args:
        run: is put before each task's name.
    """
    names = sorted(
        {key for line in metrics for key in line if key.startswith(prefix)}, key=lambda n: ("critique" in n, n)
    )
    series = {name: [(line["step"], line[name]) for line in metrics if line.get(name) is not None] for name in names}
    if not series:
        return []
    values = [value for points in series.values() for _, value in points]
    low, high = min(0.0, min(values)), max(values) or 1.0
    steps = [step for points in series.values() for step, _ in points]
    return [
        _panel(run + name.removeprefix(prefix), points, low, high, min(steps), max(steps))
        for name, points in series.items()
    ]


def _panel(task: str, points: list[tuple[int, float]], low: float, high: float, first: int, last: int) -> Panel:
    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 6) * (step - first) / max(last - first, 1)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    smooth, level = [], points[0][1]
    for step, value in points:
        level = 0.7 * level + 0.3 * value
        smooth.append((step, level))
    return Panel(
        task=task,
        points=" ".join(place(*point) for point in points),
        smooth=" ".join(place(*point) for point in smooth),
        ticks=[(float(place(first, value).split(",")[1]), f"{value:.2g}") for value in (low, (low + high) / 2, high)],
        first_step=first,
        last_step=last,
        last_value=smooth[-1][1],
    )
