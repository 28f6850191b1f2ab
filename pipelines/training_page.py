"""A training run's live page: metrics.jsonl -> progress.html, one file that opens from disk and reloads itself."""

import time
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

import eval.leaderboard
from data_recipes.files import write_atomically
from data_recipes.progress import say
from eval.leaderboard.reading import visible
from pipelines.ranking.curve import ranked
from pipelines.training_log import Series, TrainingLog
from pipelines.training_plot import Chart, Curve, chart, place, shown_value, span_of

PAGE = "progress.html"
RESULTS = "results.json"
"""What a reward model came to on held-out pairs; drawn where it is there."""
SECONDS_BETWEEN_PAGES = 5.0
SHARE_OF_TIME = 0.02
"""A page that takes long to write is written so seldom that it costs no more than this."""
MOST_SHARES = 8
"""Tasks with a colour of their own among the shares; smaller ones are drawn as one."""
POINTS_OF_ALL_PANELS = 6_000
"""Shared by the panels of a section, so that a page of sixty tasks stays small."""


REINFORCED = {
    "reward": ("Reward by task", "What the verifiers or the reward model gave, over the samples that were judged.", {}),
    "verdict": ("Critiques with the right verdict", "Share of those that could be read.", {"whole": 1.0}),
    "located": ("Critiques that name the first mistake", "Share, where the place is known.", {"whole": 1.0}),
    "revised": (
        "Revisions that pass",
        "What the question's verifiers gave the frozen reviser's response to the critique.",
        {"whole": 1.0},
    ),
    "length": ("Length of completions by task", "Tokens. A length that grows without the reward is a warning.", {}),
    "zero_variance": (
        "Samples that teach nothing",
        "Share of samples whose group has one reward only.",
        {"whole": 1.0},
    ),
    "says_incorrect": (
        "Verdicts that say incorrect",
        "Share of the critiques that find fault, whatever is true: a critic that calls everything wrong ends at 100 %.",
        {"whole": 1.0},
    ),
    "unparsed": ("Answers that could not be read", "Share of samples; they take no part.", {"whole": 1.0}),
    "failed": (
        "Verifiers that failed",
        "Share of samples whose verifier or reward model gave nothing.",
        {"whole": 1.0},
    ),
    "kl": ("KL to the reference", "Nats a token (the k3 estimate).", {}),
    "entropy": ("Entropy", "Nats a token.", {}),
    "alpha": ("Hardness", "GRPO-S: what advantages were multiplied by.", {}),
}
"""Metric of GRPO's rollouts -> title, explanation, how it is drawn."""


def write_page(folder: Path, title: str, total_steps: int | None, running: bool) -> None:
    """Read `folder`/metrics.jsonl and write `folder`/progress.html, atomically.

    Args:
        title: what the run is called.
        total_steps: optimiser steps the run will take; None where that is not known.
        running: the page reloads itself every 10 s.
    """
    log = TrainingLog(folder / "metrics.jsonl")
    log.read_new()
    _write(folder, title, total_steps, running, log)


class PageWriter:
    """Writes the page while training goes on: each line of the log is read once, a page every 5 s at most.

    A page that cannot be written is said to be so, once, and never stops training.
    """

    def __init__(self, folder: Path, title: str, total_steps: int | None) -> None:
        self._folder, self._title, self._total_steps = folder, title, total_steps
        self._log = TrainingLog(folder / "metrics.jsonl")
        self._next = 0.0
        self._told = False

    def update(self, force: bool = False) -> None:
        """Write the page of a run that goes on, if the last one is old enough or `force` says so."""
        if force or time.monotonic() >= self._next:
            self._write(running=True)

    def close(self) -> None:
        """Write the page of a run that has ended: it says where, and no longer reloads itself."""
        self._write(running=False)

    def _write(self, running: bool) -> None:
        start = time.monotonic()
        try:
            self._log.read_new()
            _write(self._folder, self._title, self._total_steps, running, self._log)
        except OSError as error:
            if not self._told:
                say(f"  {self._folder / PAGE} could not be written ({error.strerror}); training goes on without it")
            self._told = True
        end = time.monotonic()
        self._next = end + max(SECONDS_BETWEEN_PAGES, (end - start) / SHARE_OF_TIME)


def _write(folder: Path, title: str, total_steps: int | None, running: bool, log: TrainingLog) -> None:
    shown = {**_shown(log), "ranked": ranked(folder / RESULTS)}
    page = _template().render(title=visible(title), **_state(log, total_steps, running), **shown)
    write_atomically(folder / PAGE, page.encode("utf-8", "replace"))


@cache
def _template() -> Template:
    # the leaderboard's style is the house's
    folders = [Path(__file__).parent, Path(next(iter(eval.leaderboard.__path__)))]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: None if value is None else shown_value(value)
    environment.filters["percent"] = lambda value: None if value is None else shown_value(value, whole=1.0)
    return environment.get_template("training_page.html.j2")


def _state(log: TrainingLog, total_steps: int | None, running: bool) -> dict[str, Any]:
    """Return how far the run is, in words and as a share of its steps."""
    of = f" of {total_steps:,}" if total_steps else ""
    # training also ends where early stopping has set every task aside
    done = bool(total_steps) and (log.step >= total_steps or bool(log.tasks) and set(log.tasks) <= set(log.stopped))
    facts = [f"step {log.step:,}{of}"]
    if log.epoch is not None:
        facts.append(f"epoch {log.epoch:.2f}")
    if log.seconds:
        facts.append(f"{duration(log.seconds)} of training")
    if running and total_steps and log.seconds_per_step and not done:
        facts.append(f"about {duration((total_steps - log.step) * log.seconds_per_step)} left")
    return {
        "running": running,
        "state": "running" if running else "finished" if done or not total_steps else "stopped",
        "facts": facts,
        "step": log.step,
        "of": of,
        "share_done": min(100.0, 100 * log.step / total_steps) if total_steps else None,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _shown(log: TrainingLog) -> dict[str, Any]:
    """Return the charts, the table and the warnings of the page."""
    tasks, span = log.tasks, span_of(log.series.values())
    points = max(100, min(400, POINTS_OF_ALL_PANELS // max(1, len(tasks))))
    get = log.series.get

    def curves(metric: str, task: str = "") -> list[Curve]:
        """Return a metric's curves in training and on each evaluation set, of those that there are."""
        key = f"{metric}/{task}" if task else metric
        found = [(f"held{number % 4}", visible(name), f"eval_{name}/{key}") for number, name in enumerate(log.sets)]
        held = [Curve(colour, name, get(key)) for colour, name, key in found if get(key)]
        return [Curve("train", "training", get(key), noisy=True), *held] if get(key) else held

    def by_task(metric: str, **how: Any) -> list[Chart]:
        return [
            chart(visible(task), found, span, points, stop=log.stopped.get(task), **how)
            for task in tasks
            if (found := curves(metric, task))
        ]

    def alone(name: str, found: list[Curve], **how: Any) -> list[Chart]:
        return [chart(name, found, span, 400, **how)] if found else []

    rate = [Curve("train", "learning rate", get("learning_rate"))] if get("learning_rate") else []
    return {
        "loss": alone("loss", curves("loss"), log=True, mark_best=True),
        "small": alone("learning rate", rate) + alone("gradient norm", curves("grad_norm"), log=True),
        "of_pairs": any(key.startswith("margin/") for key in log.series),
        "loss_by_task": by_task("loss", log=True, mark_best=True),
        "accuracy_by_task": by_task("accuracy", whole=1.0),
        "margin_by_task": by_task("margin"),
        "reward": alone("reward", curves("reward")),
        "reinforced": [
            (title, about, found)
            for metric, (title, about, how) in REINFORCED.items()
            if (found := by_task(metric, **how)) and (metric not in ("unparsed", "failed") or _any(log, metric))
        ],
        "shares": _shares({task: get(f"share/{task}") for task in tasks if get(f"share/{task}")}, span),
        "weights": _weights(log, span, points),
        "generated": [
            chart(visible(key.removeprefix("eval_generated/")), [Curve("held0", "score", one)], span, 400, whole=100.0)
            for key, one in log.series.items()
            if key.startswith("eval_generated/")
        ],
        "sets": [visible(name) for name in log.sets],
        "rows": [_row(log, task) for task in tasks if f"reward/{task}" not in log.series],
        "warnings": _warnings(log),
        "span": span,
    }


def _any(log: TrainingLog, metric: str) -> bool:
    return any(log.series[key].highest > 0 for task in log.tasks if (key := f"{metric}/{task}") in log.series)


def _weights(log: TrainingLog, span: tuple[int, int], points: int) -> list[Chart]:
    found = {task: log.series[f"weight/{task}"] for task in log.tasks if f"weight/{task}" in log.series}
    top = max((one.highest for one in found.values()), default=0.0)
    return [
        chart(visible(task), [Curve("train", "weight", one)], span, points, bounds=(0.0, 1.05 * top or 1.0))
        for task, one in found.items()
    ]


def _shares(series: dict[str, Series], span: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the bands of tasks' shares of seen tokens, from the bottom: name, share now, colour, SVG path."""
    if not series:
        return []
    span = (span[0], max(span[1], span[0] + 1))
    grid = np.linspace(*span, 120)
    heights = {}
    for task in sorted(series, key=lambda task: -series[task].last):
        points = series[task].points(400)
        heights[task] = np.where(grid < series[task].first_step, 0.0, np.interp(grid, points[:, 0], points[:, 1]))
    largest = list(heights)[: MOST_SHARES + (len(heights) == MOST_SHARES + 1)]
    bands = [(visible(task), series[task].last, heights[task]) for task in largest]
    rest = [task for task in heights if task not in largest]
    if rest:
        name = f"{len(rest)} smaller tasks"
        bands.append((name, sum(series[task].last for task in rest), sum(heights[task] for task in rest)))
    tops = list(accumulate(height for *_, height in bands))
    made = []
    for number, ((name, now, height), top) in enumerate(zip(bands, tops, strict=True)):
        edge = [*zip(grid, top, strict=True), *reversed([*zip(grid, top - height, strict=True)])]
        path = "M" + "L".join("{} {}".format(*place(x, y, span, (0.0, 1.0))) for x, y in edge) + "Z"
        colour = "rest" if rest and number == len(bands) - 1 else f"band{number}"
        made.append({"name": name, "share": now, "colour": colour, "path": path})
    return made


def _row(log: TrainingLog, task: str) -> dict[str, Any]:
    """Return a task's line of the table; None where there is no figure."""

    def last(key: str) -> float | None:
        return log.series[key].last if key in log.series else None

    # the first set that asks the task: "heldout", where it does
    asked = next((name for name in log.sets if f"eval_{name}/loss/{task}" in log.series), None)
    held = log.series.get(f"eval_{asked}/loss/{task}")
    return {
        "task": visible(task),
        "tokens": log.seen_tokens.get(task),
        "share": last(f"share/{task}"),
        "loss": last(f"loss/{task}"),
        "best": held.lowest if held else None,
        "best_step": held.lowest_step if held else None,
        "held": held.last if held else None,
        "held_step": held.last_step if held else None,
        "set": visible(asked) if asked not in (None, "heldout") else "",
        "accuracy": last(f"accuracy/{task}"),
        "held_accuracy": last(f"eval_{asked}/accuracy/{task}"),
        "weight": last(f"weight/{task}"),
        "stopped": log.stopped.get(task),
    }


def _warnings(log: TrainingLog) -> list[str]:
    said = [
        f"{visible(key)} was not a finite number on {count:,} line{'s' * (count > 1)}, first at step {step:,}."
        for key, (count, step) in _worst(log.not_finite)
    ]
    if len(log.not_finite) > len(said):
        said.append(f"{len(log.not_finite) - len(said)} more figures were not finite numbers; see metrics.jsonl.")
    if log.unreadable:
        said.append(f"{log.unreadable:,} lines of metrics.jsonl could not be read and are left out.")
    return said


def _worst(not_finite: dict[str, tuple[int, int]]) -> Iterable[tuple[str, tuple[int, int]]]:
    return sorted(not_finite.items(), key=lambda item: item[1][1])[:5]


def duration(seconds: float) -> str:
    """Return seconds in the two largest units that say something: ``3 h 20 min``, ``45 s``."""
    whole = round(seconds)
    for size, unit, below, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"
