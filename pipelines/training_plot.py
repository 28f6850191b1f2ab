"""Line charts of training metrics, as coordinates that a page draws: 0 to 1000 both ways, stretched to their place."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, floor, log10

import numpy as np

from pipelines.training_log import Series

SIZE = 1000
DOTS = 0.1
"""A curve with more points than this share of what a line may have is drawn without dots."""
DECADE = 12.0
"""A chart that may be logarithmic is, where its highest value is this many times the lowest."""


@dataclass(frozen=True)
class Curve:
    """A series, the CSS class that colours it, and what it is called."""

    colour: str
    name: str
    series: Series
    noisy: bool = False
    """Draw it smoothed, over its raw course; others are drawn as they are, with a dot a point where there are few."""


@dataclass(frozen=True)
class Drawn:
    """A curve as SVG paths: its smoothed course, its raw one ("" where both are the same), and (x, y, words) dots."""

    colour: str
    name: str
    last: str
    smooth: str
    raw: str = ""
    dots: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A chart: its curves, (y, label) ticks, and where to mark a stop (x, step) and lowest points (x, y, words)."""

    name: str
    curves: list[Drawn]
    ticks: list[tuple[int, str]]
    is_log: bool
    stop: tuple[int, int] | None = None
    best: list[tuple[int, int, str]] = field(default_factory=list)


def span_of(series: Iterable[Series]) -> tuple[int, int]:
    """Return the first and last step of all series; (0, 0) where there is none."""
    known = list(series)
    return min((one.first_step for one in known), default=0), max((one.last_step for one in known), default=0)


def place(step: float, value: float, span: tuple[int, int], bounds: tuple[float, float]) -> tuple[int, int]:
    """Return (x, y) of a point, x from `span`, y downwards from `bounds`; a point outside is moved to the edge."""
    x = SIZE * (step - span[0]) / max(span[1] - span[0], 1)
    y = SIZE * (bounds[1] - value) / ((bounds[1] - bounds[0]) or 1.0)
    return round(x), round(min(max(y, 0), SIZE))


def chart(
    name: str,
    curves: list[Curve],
    span: tuple[int, int],
    most: int,
    *,
    whole: float | None = None,
    bounds: tuple[float, float] | None = None,
    stop: int | None = None,
    log: bool = False,
    mark_best: bool = False,
) -> Chart:
    """Draw curves over one another.

    Args:
        span: first and last step of the horizontal axis.
        most: points a line, about.
        whole: what 100 % is, where values are shown as percent: 1 or 100.
        bounds: of the vertical axis; absent: what the curves reach, but for spikes, which would flatten all.
        stop: step of a vertical mark.
        log: the vertical axis is logarithmic where values differ by more than an order of magnitude.
        mark_best: mark the lowest value of each curve that is not noisy.
    """
    points = [curve.series.points(most // 2) for curve in curves]
    courses = [_smoothed(one) if curve.noisy else one[:, 1] for curve, one in zip(curves, points, strict=True)]
    low, high = float(min(map(np.min, courses))), float(max(map(np.max, courses)))
    if mark_best:
        low = min([low, *(curve.series.lowest for curve in curves if not curve.noisy)])
    is_log = log and low > 0 and high / low > DECADE
    floor_of_log = low / 2
    for curve, one in zip(curves, points, strict=True):
        if curve.noisy:  # nearly all of the raw course is shown, too
            low, high = min(low, float(np.quantile(one[:, 2], 0.05))), max(high, float(np.quantile(one[:, 3], 0.95)))
    low = max(low, floor_of_log) if is_log else low

    def scaled(value: float) -> float:
        return log10(max(value, floor_of_log)) if is_log else value

    bounds = bounds or _padded(scaled(low), scaled(high), whole)

    def at(step: float, value: float) -> tuple[int, int]:
        return place(step, scaled(value), span, bounds)

    drawn, best = [], []
    for curve, one, course in zip(curves, points, courses, strict=True):
        line = [at(step, value) for step, value in zip(one[:, 0], course, strict=True)]
        raw, dots = [], []
        if curve.noisy:
            raw = [at(step, value) for step, value in _outline(one)]
        if curve.series.count <= (1 if curve.noisy else DOTS * most):
            words = [f"{curve.name}: {shown_value(v, whole)} at step {s:,.0f}" for s, v in one[:, :2]]
            dots = [(*spot, text) for spot, text in zip(line, words, strict=True)]
        last = shown_value(curve.series.last, whole)
        drawn.append(Drawn(curve.colour, curve.name, last, _path(line), _path(raw) if raw != line else "", dots))
        if mark_best and not curve.noisy:
            lowest, step = curve.series.lowest, curve.series.lowest_step
            best.append((*at(step, lowest), f"{curve.name}: lowest, {shown_value(lowest)} at step {step:,}"))
    ticks = [(at(0, value)[1], text) for value, text in _ticks(bounds, is_log, whole)]
    mark = (place(min(max(stop, span[0]), span[1]), 0.0, span, bounds)[0], stop) if stop is not None else None
    return Chart(name, drawn, ticks, is_log, mark, best)


def shown_value(value: float, whole: float | None = None) -> str:
    """Return a value as it is printed: percent of `whole`, or three decimals, or three digits for what those hide."""
    if whole:
        return f"{100 * value / whole:.1f} %"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def _smoothed(points: np.ndarray) -> np.ndarray:
    """Return means over a window of a twelfth of the points, centred (a trailing one lags behind evaluations)."""
    sums = np.concatenate([[0.0], np.cumsum(points[:, 1])])
    places = np.arange(len(points))
    reach = np.minimum(np.minimum(places, places[::-1]), len(points) // 25)  # as far to either side at the ends, too
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _outline(points: np.ndarray) -> list[tuple[float, float]]:
    """Return the points themselves, and both extremes of a bucket of several."""
    ways = [(step, value) for step, _, low, high in points for value in ((low, high) if low < high else (low,))]
    return [(float(step), float(value)) for step, value in ways]


def _path(places: list[tuple[int, int]]) -> str:
    if not places:
        return ""
    # a line of no length is a dot, as the ends of lines are round
    return "M" + "L".join(f"{x} {y}" for x, y in places) + ("h0" if len(places) == 1 else "")


def _padded(low: float, high: float, whole: float | None) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    if whole:  # no closer than ten points, or noise looks like news
        margin = max(margin, (0.1 * whole - (high - low)) / 2)
        return max(0.0, low - margin), min(whole, high + margin)
    return low - margin, high + margin


def _ticks(bounds: tuple[float, float], is_log: bool, whole: float | None) -> list[tuple[float, str]]:
    low, high = bounds
    if is_log:
        decades = range(floor(low), ceil(high) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            values = [s * 10.0**d for d in decades for s in steps if low <= log10(s * 10.0**d) <= high]
            if len(values) <= 5:
                break
        return [(value, f"{value:.4g}") for value in values]
    size = 10.0 ** floor(log10((high - low) / 2))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (size * factor) <= 4)
    values = [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    return [(value, f"{100 * value / whole:.4g}%" if whole else f"{value:.4g}") for value in values]
