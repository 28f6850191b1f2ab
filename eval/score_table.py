"""Scores of models at checkpoints: read from tables, run folders or ladder folders into one shape.

A table is JSON Lines, JSON, CSV or Parquet, long (columns ``model, step, task, metric, score``) or wide (``model``,
``step`` and a column ``task:metric`` for each score, as lm-eval results are often published). Optional columns of a
model: ``size`` and ``recipe`` (what pairs a small model with a large one), ``params``; and of a checkpoint: ``tokens``.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_json
from data_recipes.sources import Place
from data_recipes.sources.files import Settings, records

LONG = ("model", "step", "task", "metric", "score")
FACTS = ("size", "recipe", "params", "tokens")
LOWER_IS_BETTER = ("bits_per_byte", "bpb", "loss", "perplexity", "ppl", "cross_entropy", "nll")
FIRST_CHOICE = ("accuracy", "acc", "score", "primary_score", "exact_match")
"""Metrics that are meant where none is named, the first that the table has."""
STEP_OF_NAME = re.compile(r"^(.+)@step-(\d+)$")


@dataclass(frozen=True)
class Run:
    """A model's checkpoints on one task under one metric, in the order of their steps."""

    steps: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass
class ScoreTable:
    """Scores of models at checkpoints, and what is known of the models."""

    where: str
    """The files read, for messages."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = field(default_factory=dict)
    """(task, metric) -> model -> step -> score"""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """model -> size, recipe, params: those that the table has"""
    tokens: dict[tuple[str, int], float] = field(default_factory=dict)
    """(model, step) -> tokens seen"""

    def add(self, model: str, step: int, task: str, metric: str, score: float, place: str) -> None:
        """Add one score.

        Raises:
            UserError: that score is already there.
        """
        steps = self.scores.setdefault((task, metric), {}).setdefault(model, {})
        if step in steps:
            raise UserError(
                f"{place}: a second score of {model} at step {step} on {task}, {metric}; remove one of the two"
            )
        steps[step] = score

    @property
    def tasks(self) -> list[str]:
        """The tasks in the order they were read."""
        return list(dict.fromkeys(task for task, _ in self.scores))

    @property
    def metrics(self) -> list[str]:
        """The metrics in the order they were read."""
        return list(dict.fromkeys(metric for _, metric in self.scores))

    @property
    def models(self) -> list[str]:
        """The models in the order they were read."""
        return list(dict.fromkeys(model for by_model in self.scores.values() for model in by_model))

    def metric(self, name: str | None) -> str:
        """Return the metric that is meant: the one named, the only one, or the usual one.

        Raises:
            UserError: there is no such metric, or none is named and it could be several.
        """
        if name is not None:
            return self._known("metric", [name], self.metrics)[0]
        usual = [metric for metric in FIRST_CHOICE if metric in self.metrics]
        if len(self.metrics) == 1 or usual:
            return usual[0] if usual else self.metrics[0]
        raise UserError(f"{self.where}: several metrics ({', '.join(self.metrics)}); choose one with --metric")

    def matching(self, kind: str, patterns: Sequence[str], names: list[str]) -> list[str]:
        """Return the names that fit one of the patterns (``*`` and ``?`` allowed); all of them without patterns.

        Raises:
            UserError: a pattern fits none.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                self._known(kind, [pattern], names)
        return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]

    def runs(self, task: str, metric: str, models: Iterable[str] | None = None) -> dict[str, Run]:
        """Return the runs of a task under a metric; only of `models` where given. Empty where there are none."""
        by_model = self.scores.get((task, metric), {})
        chosen = by_model.keys() if models is None else [model for model in models if model in by_model]
        return {
            model: Run(*map(tuple, zip(*sorted(by_model[model].items()), strict=True)))  # type: ignore[arg-type]
            for model in chosen
        }

    def _known(self, kind: str, names: list[str], known: list[str]) -> list[str]:
        for name in names:
            if name not in known:
                raise UserError(f"{self.where}: no {kind} {name!r}{nearest(name, known) or f'; choose another {kind}'}")
        return names


def from_lists(scores: Mapping[str, Mapping[str, Sequence[float]]], metric: str = "accuracy") -> ScoreTable:
    """Return a table from task -> model -> scores in the order of the checkpoints, numbered from 1."""
    table = ScoreTable("scores")
    for task, by_model in scores.items():
        for model, values in by_model.items():
            for step, score in enumerate(values, start=1):
                table.add(model, step, task, metric, float(score), "scores")
    return table


def read_scores(sources: Sequence[Path]) -> ScoreTable:
    """Read tables and run folders into one table; the models of several run folders carry the folder's name.

    Raises:
        UserError: a file cannot be read, a column is missing, a score is no number or is given twice.
    """
    folders = [source for source in sources if source.is_dir()]
    table = ScoreTable(", ".join(map(str, sources)))
    for source in sources:
        if source.is_dir():
            place = source / "eval" if (source / "eval").is_dir() else source
            paths = sorted(place.glob("*/results.json"))
            if not paths:
                raise UserError(f"{source}: nothing has been evaluated here; run 'whetstone eval FILE' first")
            prefix = f"{source.name}/" if len(folders) > 1 else ""
            for path in paths:
                add_result(table, read_json(path), str(path), prefix)
        else:
            add_table(table, records(Settings(type="files", path=str(source)), Place(Path.cwd())), str(source))
    if not table.scores:
        raise UserError(f"{table.where}: no scores; give a table with the columns {', '.join(LONG)}")
    return table


def from_results(results: Iterable[dict[str, Any]]) -> ScoreTable:
    """Return a table from what ``eval/*/results.json`` of a run hold; see `add_result`."""
    table = ScoreTable("results")
    for result in results:
        add_result(table, result, f"results of {result.get('name', 'a model without a name')}")
    return table


def add_result(table: ScoreTable, result: Any, where: str, prefix: str = "") -> None:
    """Add one model's results: for each task the mean over items as ``accuracy`` and ``bits_per_byte``.

    A benchmark of several tasks is a task, too, under its label: its headline, the mean over all items or over all
    tasks alike. A model called ``base@step-100`` is step 100 of the run ``base``; any other has the one checkpoint 0.
    A row of constant answers is no model and is left out.

    Raises:
        UserError: the results are not of that shape.
    """
    try:
        name, settings = str(result["name"]), result.get("settings") or {}
        if settings.get("constant"):
            return
        named = STEP_OF_NAME.match(name)
        model, step = (named[1], int(named[2])) if named else (name, 0)
        for label, benchmark in result["benchmarks"].items():
            for metric, kept in (("accuracy", "scores"), ("bits_per_byte", "bits_per_byte")):
                tasks = {task: list(items.values()) for task, items in (benchmark.get(kept) or {}).items() if items}
                means = {task: _number(sum(items) / len(items)) for task, items in tasks.items()}
                if len(means) > 1 and label not in means:
                    every = [value for items in tasks.values() for value in items]
                    alike = every if benchmark.get("headline") == "micro" else list(means.values())
                    means = {label: _number(sum(alike) / len(alike)), **means}
                for task, mean in means.items():
                    taken = step in table.scores.get((task, metric), {}).get(prefix + model, {})
                    shown = f"{label}: {task}" if taken else task  # two settings of one benchmark share its tasks
                    table.add(prefix + model, step, shown, metric, mean, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: not the results of an evaluation ({what}); evaluate that model again") from None


def add_table(table: ScoreTable, rows: Iterable[dict[str, Any]], where: str) -> None:
    """Add the rows of a long or wide table, each with a ``key`` that says where it stands.

    Raises:
        UserError: a column is missing, a value is not what its column holds, or a score is given twice.
    """
    wide: list[str] | None = None
    missing: list[str] = []
    for row in rows:
        place = f"{where}, line {str(row['key']).rpartition(':')[2]}"
        if wide is None:
            columns = [column for column in row if column not in ("key", *FACTS)]
            missing = [column for column in LONG if column not in row]
            wide = [c for c in columns if c.count(":") == 1] if {"task", "score"} <= set(missing) else []
        for column in ("model", "step") if wide else LONG:
            if column not in row:
                known = [other for other in row if other not in ("key", *LONG)]
                hint = nearest(column, known) if known else ""
                raise UserError(f"{place}: the column {column!r} is missing{hint}; add it")
        model, step = _text(row, "model", place), _step(row["step"], place)
        _add_facts(table, row, model, step, place)
        if wide:
            for column in wide:
                if row.get(column) not in (None, ""):
                    task, _, metric = column.partition(":")
                    table.add(model, step, task, metric, _score(row[column], column, place), place)
        else:
            task, metric = _text(row, "task", place), _text(row, "metric", place)
            table.add(model, step, task, metric, _score(row["score"], "score", place), place)


def _add_facts(table: ScoreTable, row: dict[str, Any], model: str, step: int, place: str) -> None:
    known = table.facts.setdefault(model, {})
    for column in ("size", "recipe", "params"):
        if row.get(column) in (None, ""):
            continue
        value = _score(row[column], column, place) if column == "params" else str(row[column])
        if column == "params" and value <= 0:
            raise UserError(f"{place}: params is {row[column]!r:.40}; write the number of parameters, above 0")
        if known.setdefault(column, value) != value:
            raise UserError(f"{place}: {model} has the {column} {value} here and {known[column]} before; mend one")
    if row.get("tokens") not in (None, ""):
        tokens = _score(row["tokens"], "tokens", place)
        if tokens <= 0:
            raise UserError(f"{place}: tokens is {row['tokens']!r:.40}; write the number of tokens seen, above 0")
        if table.tokens.setdefault((model, step), tokens) != tokens:
            raise UserError(f"{place}: {model} has two counts of tokens at step {step}; mend one of them")


def _text(row: dict[str, Any], column: str, place: str) -> str:
    if row[column] in (None, ""):
        raise UserError(f"{place}: the {column} is empty; fill it in or remove the line")
    return str(row[column])


def _step(value: Any, place: str) -> int:
    try:
        number = float(value)
        if not isinstance(value, bool) and number >= 0 and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{place}: the step is {value!r:.40}; write a whole number, 0 where a model has one checkpoint")


def _score(value: Any, column: str, place: str) -> float:
    try:
        return _number(value)
    except (TypeError, ValueError):
        raise UserError(f"{place}: {column} is {value!r:.40}, no finite number; mend it or remove the line") from None


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


MMLU_SHARES = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
LADDER_COLUMN = re.compile(r"eval/downstream(?:_\w+)?/(\w+)_(rc|mc)_5shot_(bpb|len_norm|acc|soft|soft_log)")
LADDER_METRICS = {"bpb": "bits_per_byte", "len_norm": "accuracy", "acc": "accuracy"}


def read_ladder(folder: Path, config: Path) -> tuple[ScoreTable, list[str]]:
    """Read a folder of ladder runs in OLMo-ladder's layout; return the table and the models that are to be predicted.

    The configuration names groups of CSV files with ``mode`` (``train``: the curve is fitted to it; ``eval``: it is
    predicted), ``n`` (parameters) and ``paths``, of which only the file names count. A CSV has a row a checkpoint. A
    run is called by its file, a target by its group. MMLU is the mean of its four parts, weighted as published.

    Raises:
        UserError: the configuration or a CSV is missing, or not of that layout.
    """
    groups = read_json(config)
    files: dict[str, Path] = {path.name: path for path in sorted(folder.rglob("*.csv"))}
    if not isinstance(groups, dict) or not files:
        what = f"{folder}: no CSV files" if isinstance(groups, dict) else f"{config}: no groups of runs"
        raise UserError(f"{what}; give a folder of runs and its configuration in OLMo-ladder's layout")
    table, targets = ScoreTable(str(folder)), []
    for name, group in groups.items():
        fields = group if isinstance(group, dict) else {}
        if not {"paths", "mode", "n"} <= fields.keys() or fields["mode"] not in ("train", "eval"):
            raise UserError(f"{config}: {name} needs paths, n and a mode of 'train' or 'eval'; write them")
        for path in fields["paths"]:
            file = Path(path).name
            if file not in files:
                raise UserError(f"{config}: {name} names {file}, which {folder} does not hold{nearest(file, files)}")
            model = file.removesuffix(".csv") if fields["mode"] == "train" else name
            add_ladder_run(table, model, float(fields["n"]), files[file])
        targets += [name] if fields["mode"] == "eval" else []
    return table, targets


def add_ladder_run(table: ScoreTable, model: str, params: float, path: Path) -> None:
    """Add one CSV of checkpoints in OLMo-ladder's layout.

    Raises:
        UserError: a column is missing or a value is no number.
    """
    table.facts[model] = {"params": params}
    for row in records(Settings(type="files", path=str(path)), Place(Path.cwd())):
        place = f"{path}, line {row['key'].rpartition(':')[2]}"

        def number(column: str, row: dict[str, Any] = row, place: str = place) -> float:
            if column not in row:
                raise UserError(f"{place}: the column {column!r} is missing{nearest(column, row)}; add it")
            return _score(row[column], column, place)

        batch = number("batch_size_in_tokens")
        total = "throughput/total_tokens"
        tokens = number(total) if total in row else number("_step") * batch
        step = int(number("_step")) if "_step" in row else round(tokens / batch)
        table.tokens[model, step] = float(int(tokens))
        for task, metric, score in _ladder_scores(row, number):
            table.add(model, step, task, metric, score, place)


def _ladder_scores(row: dict[str, Any], number: Callable[[str], float]) -> Iterable[tuple[str, str, float]]:
    parts: dict[tuple[str, str], dict[str, float]] = {}
    for column in row:
        found = LADDER_COLUMN.fullmatch(column)
        if not found:
            continue
        task, metric = found[1], LADDER_METRICS.get(found[3], found[3])
        metric = f"mc_{metric}" if found[2] == "mc" else metric
        part = re.fullmatch(r"mmlu_(\w+)_(val|test)", task)
        if part and part[1] in MMLU_SHARES:
            parts.setdefault((f"mmlu_avg_{part[2]}", metric), {})[part[1]] = number(column)
        yield task, metric, number(column)
    for (task, metric), scores in parts.items():
        if scores.keys() == MMLU_SHARES.keys():
            yield task, metric, float(np.average([scores[p] for p in MMLU_SHARES], weights=list(MMLU_SHARES.values())))
