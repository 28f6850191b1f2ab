"""What `whetstone snr` says: a table of figures and findings in words, for the terminal, Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_recipes.errors import UserError, nearest
from data_recipes.files import write_atomically, write_json
from data_recipes.progress import console, say
from eval.scaling_laws import LadderResult
from eval.score_table import LOWER_IS_BETTER, Run, ScoreTable
from eval.signal_noise import decision_accuracy, log_correlation, pooled_cap, signal_noise

APART, PARTLY = 0.8, 0.5
"""Shares of pairs of models a benchmark has to tell apart to be said to tell them apart, or to do so in part."""
TEXT = ("task", "metric", "target")
MOST = 30
"""Checkpoints that are taken where none are asked for, as the paper does."""
LEARNING = 0.5
"""A straight line that explains this share of the last checkpoints' spread is learning, not noise."""


@dataclass(frozen=True)
class Choice:
    """What is compared and how; the defaults are the reference's where it has any."""

    metric: str
    tasks: list[str]
    models: list[str]
    last: int | None = None
    """Checkpoints at a run's end whose spread is noise; None: 30, but none of the first half of its steps."""
    averaged: int | None = None
    """Checkpoints at a run's end whose mean is the model's score; None: as many as `last`."""
    signal: str = "dispersion"
    ddof: int = 0
    noise_from: tuple[str, ...] = ()
    """The models whose noise counts; empty: all."""
    early: float = 0.5
    """A step, or below 1 a share of each run's last step: where the early ranking is taken."""
    small: str | None = None
    target: str | None = None
    """Sizes: the ranking of the small models, paired by recipe, is compared with that of the large ones."""
    lower: tuple[str, ...] = ()
    """Metrics of which less is better, beside the well-known ones."""
    compat: bool = False
    """Pooled noise and the reference's tie rule."""


@dataclass
class Report:
    """Rows of figures with the headings to show, and what they say."""

    title: str
    columns: dict[str, str]
    """key of a row -> heading; rows may hold more, which goes to CSV and JSON only"""
    rows: list[dict[str, Any]]
    findings: list[str]


def sign(metric: str, choice: Choice) -> float:
    """Return -1 for a metric of which less is better."""
    return -1.0 if metric in LOWER_IS_BETTER or metric in choice.lower else 1.0


def compared(table: ScoreTable, task: str, metric: str, choice: Choice) -> dict[str, Run]:
    """Return the runs that are compared on a task: the chosen models, of the small size where one is given."""
    runs = table.runs(task, metric, choice.models)
    if choice.small is None:
        return runs
    return {model: run for model, run in runs.items() if table.facts.get(model, {}).get("size") == choice.small}


def recent(run: Run, choice: Choice) -> tuple[float, ...]:
    """Return the scores of a run's last checkpoints, whose spread is noise; at least two where it has as many."""
    if choice.last is not None:
        return run.scores[-choice.last :]
    late = sum(step > run.steps[-1] / 2 for step in run.steps)
    return run.scores[-min(MOST, max(2, late)) :]


def rankings(
    table: ScoreTable, task: str, metric: str, choice: Choice, k: int = 1, final_metric: str | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the early and the final scores of the models (of the recipes, with sizes), higher is better.

    Args:
        k: checkpoints up to the early one whose mean is ranked; a run with fewer is left out.
        final_metric: the metric of the final ranking; absent: the same.
    """
    final_metric = final_metric or metric
    early: dict[str, float] = {}
    final: dict[str, float] = {}
    for model, run in compared(table, task, metric, choice).items():
        limit = choice.early * run.steps[-1] if choice.early < 1 else choice.early
        scores = [s for step, s in zip(run.steps, run.scores, strict=True) if choice.small or step <= limit]
        if len(scores) >= k and (choice.small or limit < run.steps[-1]):
            name = table.facts.get(model, {}).get("recipe", model) if choice.small else model
            early[name] = sign(metric, choice) * float(np.mean(scores[-k:]))
    for model, run in table.runs(task, final_metric, choice.models).items():
        facts = table.facts.get(model, {})
        if choice.small is None or facts.get("size") == choice.target:
            final[facts.get("recipe", model) if choice.small else model] = sign(final_metric, choice) * run.scores[-1]
    return early, final


def check(table: ScoreTable, choice: Choice, metric: str | None = None) -> None:
    """Make sure that something can be said at all.

    Raises:
        UserError: fewer than two models share a task, no model has two checkpoints, a size or model is unknown, or all
            scores are equal.
    """
    metric = metric or choice.metric
    where = table.where
    for kind, size in (("small", choice.small), ("target", choice.target)):
        sizes = {str(facts["size"]) for facts in table.facts.values() if "size" in facts}
        if size is not None and size not in sizes:
            hint = nearest(size, sizes) or "; add a column 'size'"
            raise UserError(f"{where}: no model has the size {size!r} of --{kind}{hint}")
    if (choice.small is None) != (choice.target is None):
        raise UserError(f"{where}: --small and --target go together; give both sizes")
    by_task = {task: compared(table, task, metric, choice) for task in choice.tasks}
    if not any(len(runs) >= 2 for runs in by_task.values()):
        raise UserError(f"{where}: no task has the {metric} of two models; add models, or choose others with --models")
    noisy = [table.runs(task, metric, choice.noise_from or list(runs)) for task, runs in by_task.items()]
    if not any(len(run.scores) > 1 for runs in noisy for run in runs.values()):
        raise UserError(
            f"{where}: every run has one checkpoint only, so noise cannot be told; add scores of earlier checkpoints"
        )
    scores = {score for runs in by_task.values() for run in runs.values() for score in run.scores}
    if len(scores) == 1:
        raise UserError(f"{where}: all scores are equal ({scores.pop():g}); check the column, or choose another metric")


def snr_report(table: ScoreTable, choice: Choice) -> Report:
    """Return signal, noise, their ratio and decision accuracy of every task, and which tasks tell the models apart.

    Raises:
        UserError: see `check`.
    """
    check(table, choice)
    rows = [row for task in choice.tasks if (row := figures_of(table, task, choice.metric, choice))]
    rows.sort(key=lambda row: -1 if row["snr"] is None else row["snr"], reverse=True)
    columns = {
        "task": "task",
        "models": "models",
        "checkpoints": "checkpoints",
        "signal": "signal %",
        "noise": "noise %",
    }
    columns |= {"snr": "SNR", "pooled_snr": "pooled SNR"} if choice.compat else {"snr": "SNR"}
    columns |= {"decision_accuracy": "decision accuracy %", "apart": "pairs apart %"}
    findings = _which_tell_apart(rows) + _which_rankearly_words(rows, choice) + _correlation(rows, choice)
    findings += [*_warnings(rows, choice), _method(rows, choice)]
    return Report(f"Signal and noise: {choice.metric}", columns, rows, findings)


def figures_of(
    table: ScoreTable, task: str, metric: str, choice: Choice, final_metric: str | None = None
) -> dict[str, Any] | None:
    """Return a row of figures for one task; None where fewer than two models have it."""
    of_task = compared(table, task, metric, choice)
    if len(of_task) < 2:
        return None
    runs = {model: run.scores if choice.averaged else recent(run, choice) for model, run in of_task.items()}
    sources = table.runs(task, metric, choice.noise_from) if choice.noise_from else of_task
    noisy = {model: recent(run, choice) for model, run in sources.items()}
    given: dict[str, Any] = {"last": choice.last or MOST, "averaged": choice.averaged, "signal": choice.signal}
    given |= {"ddof": choice.ddof, "noise_runs": noisy}
    figures = signal_noise(runs, **given)
    early, final = rankings(table, task, metric, choice, final_metric=final_metric)
    row = {"task": task, "metric": metric, "models": figures.models, "noise_runs": figures.noise_runs}
    row |= {"checkpoints": figures.checkpoints, "signal": figures.signal, "noise": figures.noise, "snr": figures.snr}
    if choice.compat:
        row["pooled_snr"] = signal_noise(runs, **given, pooled=True).snr
    ranked = len(early.keys() & final.keys())
    row |= {"decision_accuracy": decision_accuracy(early, final, compat=choice.compat), "ranked": ranked}
    return row | {"apart": figures.apart, "trend": figures.trend}


def _which_tell_apart(rows: list[dict[str, Any]]) -> list[str]:
    said = []
    for low, high, words in (
        (APART, 2.0, "can tell these models apart (at least 8 of 10 pairs differ by more than checkpoint noise)"),
        (PARTLY, APART, "can tell these models apart only in part (5 to 8 of 10 pairs)"),
        (-1.0, PARTLY, "cannot tell most of these models apart (fewer than 5 of 10 pairs)"),
    ):
        tasks = [row["task"] for row in rows if row["apart"] is not None and low <= row["apart"] < high]
        said += [f"{listed(tasks)} {words}."] if tasks else []
    return said


def early_words(choice: Choice) -> str:
    """Say where the early ranking is taken."""
    if choice.small:
        return f"at size {choice.small}"
    return f"at {100 * choice.early:g} % of each run" if choice.early < 1 else f"at step {choice.early:g}"


def tie_words(choice: Choice) -> str:
    """Say how ties count."""
    return "ties count as 'not greater'" if choice.compat else "ties count half"


def _which_rankearly_words(rows: list[dict[str, Any]], choice: Choice) -> list[str]:
    ranked = sorted((r for r in rows if r["decision_accuracy"] is not None), key=lambda r: -r["decision_accuracy"])
    if not ranked:
        return [f"No decision accuracy: no two models have a score {early_words(choice)} and a later one."]
    final = f"that of size {choice.target}" if choice.target else "the last one"
    shown = [f"{100 * r['decision_accuracy']:.1f} % of pairs on {r['task']}" for r in (ranked[0], ranked[-1])]
    both = f"from {shown[0]} down to {shown[1]}" if len(ranked) > 1 else f"on {shown[0]}"
    models = f"{ranked[0]['ranked']} models, {tie_words(choice)}"
    return [f"The ranking {early_words(choice)} agrees with {final} {both} ({models})."]


def _correlation(rows: list[dict[str, Any]], choice: Choice) -> list[str]:
    said = []
    for key, name in (("snr", "SNR"), ("pooled_snr", "pooled SNR")):
        known = [row for row in rows if row.get(key) is not None and row["decision_accuracy"] is not None]
        r = log_correlation([row[key] for row in known], [row["decision_accuracy"] for row in known])
        if r is not None:
            said.append(f"Over {len(known)} tasks, log {name} and decision accuracy correlate with r = {r:.2f}.")
    pooled = [row["pooled_snr"] for row in rows if row.get("pooled_snr") is not None]
    if pooled:
        models = max(row["models"] for row in rows)
        said.append(
            f"Pooled SNR lies between {min(pooled):.2f} and {max(pooled):.2f} on every task: its noise holds the"
            f" models' own spread, so with {models} models it stays near {pooled_cap(models):.1f} however good the"
            " benchmark is, which is why it is not the default."
        )
    return said


def _warnings(rows: list[dict[str, Any]], choice: Choice) -> list[str]:
    said = []
    learning = [row["task"] for row in rows if (row["trend"] or 0) > LEARNING]
    if learning:
        said.append(
            f"On {listed(learning)} the scores of these checkpoints still follow a line: the noise is overstated; take"
            " fewer with --last."
        )
    flat = [row["task"] for row in rows if row["noise"] == 0]
    if flat:
        said.append(f"On {listed(flat)} the last checkpoints do not differ, so there is no ratio.")
    unknown = [row["task"] for row in rows if row["noise"] is None or row["signal"] is None]
    if unknown:
        said.append(
            f"On {listed(unknown)} a figure is undefined: a mean of 0, no run of two checkpoints, or a discrepancy of"
            " scores outside [0, 1]."
        )
    fewer = sorted({row["checkpoints"] for row in rows if choice.last and 1 < row["checkpoints"] < choice.last})
    if fewer:
        said.append(f"The runs have {_between(fewer)} checkpoints, fewer than the last {choice.last}.")
    return said


def _between(counts: Sequence[int]) -> str:
    return " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))


def _method(rows: list[dict[str, Any]], choice: Choice) -> str:
    """Say what the figures are: models, checkpoints, definitions."""
    window = _between([row["checkpoints"] for row in rows])
    why = "" if choice.last else f" (those of the second half of its steps, at most {MOST})"
    averaged = f"the mean of its last {choice.averaged}" if choice.averaged else "its mean over them"
    noisy = " and ".join(choice.noise_from) if len(choice.noise_from) < 4 else f"{len(choice.noise_from)} runs"
    return (
        f"Noise: sd (divided by n{' - 1' if choice.ddof else ''}) over mean of the last {window} checkpoints of"
        f" {noisy if choice.noise_from else 'each run, averaged over the runs'}{why}. Signal: {choice.signal} of the"
        f" models, each at {averaged}."
    )


def ladder_report(results: Sequence[LadderResult]) -> Report:
    """Return the ladder's predictions beside the actual scores, and which fits are none."""
    rows: list[dict[str, Any]] = []
    for result in results:
        row: dict[str, Any] = {"task": result.task, "target": result.target}
        for name in ("loss", "accuracy", "chained", "direct", "refit"):
            made = getattr(result, name)
            if made is not None:
                row |= {f"{name}_actual": made.actual, f"{name}_predicted": made.predicted, f"{name}_error": made.error}
                row |= {f"{name}_fit_error": made.fit_error, f"{name}_fault": made.fault}
                row[f"{name}_coefficients"] = [fit.coefficients for fit in made.fits]
        rows.append(row)
    columns = {"task": "task", "target": "target", "loss_error": "loss error %", "accuracy_error": "step 2 error %"}
    columns |= {"chained_actual": "actual", "chained_predicted": "chained", "chained_error": "chained error %"}
    columns |= {"direct_predicted": "direct", "direct_error": "direct error %", "refit_error": "refit error %"}
    findings = []
    for target in dict.fromkeys(result.target for result in results):
        chained = [abs(result.chained.error) for result in results if result.target == target]
        findings.append(
            f"{target}: the chained prediction is off by {100 * float(np.mean(chained)):.2f} % on average over"
            f" {len(chained)} tasks (relative, either way)."
        )
    faults: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, made in (("loss", result.loss), ("accuracy", result.accuracy), ("direct", result.direct)):
            if made.fault and result.task not in faults.setdefault((name, made.fault), []):
                faults[name, made.fault].append(result.task)
    for (name, fault), tasks in faults.items():
        findings.append(f"The {name} fit of {listed(tasks)} {fault}: what it predicts is no prediction.")
    again = [(result.direct.fit_error or 0, result.refit.fit_error or 0) for result in results if result.refit]
    if again:
        before, after = (100 * float(np.mean(column)) for column in zip(*again, strict=True))
        findings.append(
            f"Refitted from other starts, these direct fits miss their own points by {after:.1f} % on average instead"
            f" of {before:.1f} %."
        )
    beyond = {r.task for r in results if (r.refit or r.direct).fits[0].coefficients[-1] > 1 >= r.direct.actual}
    if beyond:
        findings.append(
            f"The direct fits of {listed(sorted(beyond))} level off above an accuracy of 1: they hold between the sizes"
            " they were fitted to, not far beyond."
        )
    return Report("Scaling-law predictions", columns, rows, findings)


def listed(tasks: Sequence[str], most: int = 12) -> str:
    """Return names as a list in words, the first `most` of them."""
    shown = list(tasks[:most]) + ([f"{len(tasks) - most} more"] if len(tasks) > most else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def figure(value: float | None) -> str:
    """Return a figure with one digit, a dash where there is none."""
    return "-" if value is None else f"{value:.1f}"


def percent(value: float | None) -> str:
    """Return a share in percent, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _cell(heading: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{100 * value:.2f}" if "%" in heading else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


def print_report(report: Report) -> None:
    """Print the table and the findings in the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=report.title, title_justify="left")
    for key, heading in report.columns.items():
        table.add_column(heading, justify="left" if key in TEXT else "right", overflow="fold", no_wrap=key in TEXT)
    for row in report.rows:
        table.add_row(*[escape(_cell(heading, row.get(key))) for key, heading in report.columns.items()])
    console().print(table)
    for sentence in report.findings:
        say(f"  {sentence}")


def write_report(report: Report, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write ``snr.csv``, ``snr.md`` and ``snr.json`` into `folder`, each whole or not at all.

    Raises:
        UserError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file, not a folder; give --output another name")
    rest = [key for row in report.rows for key, value in row.items() if not isinstance(value, list)]
    keys = list(dict.fromkeys([*report.columns, *rest]))
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(report.rows)
    write_atomically(folder / "snr.csv", out.getvalue())
    write_atomically(folder / "snr.md", markdown(report))
    found = {"title": report.title, "settings": dict(settings), "findings": report.findings, "rows": report.rows}
    write_json(folder / "snr.json", found)


def markdown(report: Report) -> str:
    """Return the report as a Markdown table and a list of findings."""
    lines = [f"# {_plain(report.title)}", "", f"| {' | '.join(report.columns.values())} |"]
    rules = ["---" if key in TEXT else "---:" for key in report.columns]
    lines.append(f"|{'|'.join(rules)}|")
    for row in report.rows:
        lines.append(f"| {' | '.join(_plain(_cell(h, row.get(key))) for key, h in report.columns.items())} |")
    return "\n".join([*lines, "", *[f"- {_plain(sentence)}" for sentence in report.findings], ""])


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("`", "'").replace("<", "&lt;").replace("\n", " ")
