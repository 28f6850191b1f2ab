"""Three ways to get more signal or less noise out of the scores there are, and what each does here.

Another metric, fewer subtasks, averaged checkpoints: the interventions of "Signal and Noise" (arXiv 2508.13144,
section 5), each as a table and findings in words.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_recipes.errors import UserError
from eval.score_table import ScoreTable
from eval.signal_noise import averaged_runs, decision_accuracy, within_run_noise
from eval.snr_report import (
    MOST,
    Choice,
    Report,
    check,
    compared,
    early_words,
    figure,
    figures_of,
    listed,
    percent,
    rankings,
    recent,
    tie_words,
)


def compare_report(table: ScoreTable, choice: Choice, metrics: Sequence[str]) -> Report:
    """Return the figures of every task under several metrics, and which metric is the better on how many tasks.

    Decision accuracy is against the final ranking by the first metric: the question a cheaper metric has to answer.

    Raises:
        UserError: see `check`; or no task has all metrics.
    """
    if len(metrics) < 2:
        raise UserError(f"{table.where}: one metric is nothing to compare; give two, as in --metrics acc acc_norm")
    rows: list[dict[str, Any]] = []
    for task in choice.tasks:
        of_task = [figures_of(table, task, metric, choice, final_metric=metrics[0]) for metric in metrics]
        rows += [row for row in of_task if row] if all(of_task) else []
    if not rows:
        raise UserError(f"{table.where}: no task has {' and '.join(metrics)} of two models; choose other metrics")
    for metric in metrics:
        check(table, choice, metric)
    columns = {"task": "task", "metric": "metric", "models": "models", "signal": "signal %", "noise": "noise %"}
    columns |= {"snr": "SNR", "decision_accuracy": "decision accuracy %"}
    findings = []
    for metric in metrics[1:]:
        better: dict[str, list[str]] = {metrics[0]: [], metric: []}
        ratios = {(row["task"], row["metric"]): row["snr"] for row in rows}
        for task in dict.fromkeys(row["task"] for row in rows):
            first, other = ratios[task, metrics[0]], ratios[task, metric]
            if first is not None and other is not None:
                better[metric if other > first else metrics[0]].append(task)
        total = sum(map(len, better.values()))
        rest = f"; {metrics[0]} on {listed(better[metrics[0]])}" if better[metrics[0]] else ""
        findings.append(
            f"{metric} has the higher SNR on {len(better[metric])} of {total} tasks"
            f"{': ' + listed(better[metric]) if better[metric] else ''}{rest}."
        )
    ranked = f"the ranking {early_words(choice)} by each metric against the last by {metrics[0]}"
    findings.append(f"Decision accuracy: {ranked}, {tie_words(choice)}.")
    return Report(f"Metrics compared: {', '.join(metrics)}", columns, rows, findings)


def average_report(table: ScoreTable, choice: Choice, ks: Sequence[int]) -> Report:
    """Return what averaging the last k checkpoints does to noise and to decision accuracy, task by task.

    The early ranking is that of the mean over the k checkpoints up to the early one; the final one stays the last
    checkpoint alone. Noise is the spread of the moving averages over the last checkpoints.

    Raises:
        UserError: see `check`; or no run has as many checkpoints.
    """
    check(table, choice)
    rows: list[dict[str, Any]] = []
    for task in choice.tasks:
        runs = compared(table, task, choice.metric, choice)
        last = {model: recent(run, choice) for model, run in runs.items()}
        row: dict[str, Any] = {"task": task, "metric": choice.metric, "models": len(runs)}
        for k in ks:
            early, final = rankings(table, task, choice.metric, choice, k)
            enough = {model: scores for model, scores in last.items() if len(scores) >= k + 2}
            row[f"noise_{k}"] = within_run_noise(averaged_runs(enough, k), MOST, choice.ddof) if enough else None
            row[f"decision_accuracy_{k}"] = decision_accuracy(early, final, compat=choice.compat)
        rows += [row] if len(runs) > 1 else []
    if all(row[f"decision_accuracy_{k}"] is None for row in rows for k in ks[1:]):
        few = f"no run has {min(ks[1:])} checkpoints to average {early_words(choice)}"
        raise UserError(f"{table.where}: {few} and a later one; give --early a later step, or fewer with -k")
    columns = {"task": "task"} | {f"noise_{k}": f"noise % of {k}" for k in ks}
    columns |= {f"decision_accuracy_{k}": f"decision % of {k}" for k in ks}
    findings = []
    for k in ks[1:]:
        pairs = [(row["task"], row[f"decision_accuracy_{ks[0]}"], row[f"decision_accuracy_{k}"]) for row in rows]
        known = [(task, one, mean) for task, one, mean in pairs if one is not None and mean is not None]
        if not known:
            continue
        better, worse = ([t for t, one, mean in known if s * (mean - one) > 0] for s in (1, -1))
        means = [100 * float(np.mean(column)) for column in ([one for _, one, _ in known], [m for *_, m in known])]
        findings.append(
            f"Averaging the last {k} checkpoints {early_words(choice)} ranks the models better than {_count(ks[0])} on"
            f" {len(better)} of {len(known)} tasks{', worse on ' + listed(worse) if worse else ''}; mean decision"
            f" accuracy {means[0]:.1f} -> {means[1]:.1f} %."
        )
    return Report(f"Averaged checkpoints: {choice.metric} ({tie_words(choice)})", columns, rows, findings)


def _count(k: int) -> str:
    return "the single one" if k == 1 else f"{k} of them"


def subset_report(table: ScoreTable, choice: Choice) -> Report:
    """Sort subtasks by SNR, add them one by one, and find the set of highest SNR (`compute_error_by_subtask`).

    A set's score is the mean over its subtasks, each weighing the same. Order and best set are chosen on the very
    models they are judged by, so the gain is overstated; with eight models or more, they are also chosen on every
    other model and judged on the rest, both ways round.

    Raises:
        UserError: see `check`; or there are fewer than two subtasks that the same models have.
    """
    check(table, choice)
    tasks = [task for task in choice.tasks if len(compared(table, task, choice.metric, choice)) > 1]
    if len(tasks) < 2:
        raise UserError(f"{table.where}: {len(tasks)} subtask to choose from; name two or more with --tasks")
    rows, best = _ordered(table, tasks, choice)
    if best is None:
        raise UserError(f"{table.where}: no model has all of the {len(tasks)} subtasks at one step; leave some out")
    names, whole = [row["task"] for row in rows], rows[-1]
    columns = {"rank": "rank", "task": "task", "snr": "SNR", "set_snr": "SNR of the set so far"}
    columns |= {"set_decision_accuracy": "its decision accuracy %"}
    findings = [
        f"Best set: the first {best['rank']} of {len(names)} subtasks, SNR {figure(best['set_snr'])} against"
        f" {figure(whole['set_snr'])} of all; decision accuracy {percent(best['set_decision_accuracy'])} against"
        f" {percent(whole['set_decision_accuracy'])} ({early_words(choice)}, {tie_words(choice)}).",
        f"The set: {', '.join(names[: best['rank']])}.",
        *_held_out(table, tasks, choice),
    ]
    return Report(f"Subtasks by SNR: {choice.metric}", columns, rows, findings)


def _ordered(
    table: ScoreTable, tasks: Sequence[str], choice: Choice
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a row a subtask, highest SNR first, with the figures of the set so far; and the row of the best set."""
    ratios = {task: (figures_of(table, task, choice.metric, choice) or {}).get("snr") for task in tasks}
    names = sorted(tasks, key=lambda task: -1 if ratios[task] is None else ratios[task], reverse=True)
    sets = _sets(table, names, choice)
    rows = []
    for rank, task in enumerate(names, start=1):
        made = figures_of(sets, str(rank), choice.metric, choice) or {}
        row = {"rank": rank, "task": task, "metric": choice.metric, "snr": ratios[task], "set_snr": made.get("snr")}
        rows.append(row | {"set_decision_accuracy": made.get("decision_accuracy")})
    known = [row for row in rows if row["set_snr"] is not None]
    return rows, max(known, key=lambda row: row["set_snr"]) if known else None


def _sets(table: ScoreTable, names: Sequence[str], choice: Choice) -> ScoreTable:
    """Return a table whose task ``3`` is the mean over the first three subtasks, where a model has all of `names`."""
    columns = [table.scores[name, choice.metric] for name in names]
    sets = ScoreTable(table.where, facts=table.facts)
    for model in dict.fromkeys([*choice.models, *choice.noise_from]):
        if not all(model in column for column in columns):
            continue
        for step in sorted(set.intersection(*(set(column[model]) for column in columns))):
            means = np.cumsum([column[model][step] for column in columns]) / np.arange(1, len(names) + 1)
            for rank, mean in enumerate(means, start=1):
                sets.add(model, step, str(rank), choice.metric, float(mean), table.where)
    return sets


def _held_out(table: ScoreTable, tasks: Sequence[str], choice: Choice) -> list[str]:
    models = sorted(choice.models)
    if len(models) < 8 or choice.small or choice.noise_from:
        return []
    judged: list[list[dict[str, Any]]] = []
    for chosen_on, rest in ((models[::2], models[1::2]), (models[1::2], models[::2])):
        rows, best = _ordered(table, tasks, replace(choice, models=chosen_on))
        if best is None:
            return []
        judging = replace(choice, models=rest)
        sets = _sets(table, [row["task"] for row in rows], judging)
        ranks = (best["rank"], len(rows))
        judged.append([figures_of(sets, str(rank), choice.metric, judging) or {} for rank in ranks])

    def mean(which: int, key: str) -> float | None:
        values = [pair[which].get(key) for pair in judged]
        return None if None in values else float(np.mean(values))  # type: ignore[arg-type]

    return [
        f"Chosen on every other model and judged on the rest: SNR {figure(mean(0, 'snr'))} against"
        f" {figure(mean(1, 'snr'))} of all, decision accuracy {percent(mean(0, 'decision_accuracy'))} against"
        f" {percent(mean(1, 'decision_accuracy'))}."
    ]
