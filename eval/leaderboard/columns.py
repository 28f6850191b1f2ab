"""A benchmark over all rows: the items, each row's estimates, what tells rows apart, and what the column can show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt

import numpy as np

from data_recipes.errors import UserError
from eval.comparison import Pair, compare_all, rank_ranges
from eval.leaderboard.reading import BenchmarkResult, RunRow
from eval.power import CORRELATION, detectable
from eval.score_table import STEP_OF_NAME
from eval.signal_noise import SignalNoise, signal_noise
from eval.statistics import Estimate, Items, Scores, covariance, half_width_by_task, mean, means, share


@dataclass(frozen=True)
class Entry:
    """One row's result on one benchmark; shares in [0, 1]."""

    headline: Estimate
    half_by_subject: float | None
    """95 % half-width with subjects (tasks) as a sample of all subjects; None for one task."""
    micro: float
    macro: float
    tasks: dict[str, Estimate]
    bits: Estimate | None
    """Bits per byte of the right answers, weighed as the headline."""
    result: BenchmarkResult


@dataclass(frozen=True)
class Ability:
    """What a column can show."""

    items: int
    clusters: int
    design_effect: float
    """Variance of a row's mean with clusters over that without, mean over rows."""
    discordant: float | None
    """Share of common items fully right in exactly one of two rows, median over pairs."""
    standard_error: float | None
    """Of a paired difference, median over the pairs that differ at all."""
    assumed: bool
    """There is only one row: the error is that of another as good, with a correlation of `CORRELATION`."""
    pairs: int
    told_apart: int
    snr: SignalNoise | None
    """None: no row is one of several checkpoints of a run."""

    @property
    def smallest(self) -> float | None:
        """The smallest difference of two rows that shows with 80 % power at 5 %, two-sided."""
        return detectable(self.standard_error) if self.standard_error else None

    @property
    def smallest_of_all(self) -> float | None:
        """The same where all pairs of the column are tested."""
        return detectable(self.standard_error, pairs=max(1, self.pairs)) if self.standard_error else None


class Column:
    """A benchmark with the scores of all rows."""

    def __init__(self, label: str, rows: Sequence[RunRow], *, seed: int = 0) -> None:
        self.label = label
        self._rows = rows
        self._seed = seed
        self.results: dict[int, BenchmarkResult] = {
            number: row.result.benchmarks[label]
            for number, row in enumerate(rows)
            if any(row.result.benchmarks[label].scores.values() if label in row.result.benchmarks else ())
        }
        self.headline = self._one_headline()
        by_row = {number: result.scores for number, result in self.results.items()}
        clusters = {item: cluster for result in self.results.values() for item, cluster in result.clusters.items()}
        self.keys, self.table = _table(by_row, len(rows))
        self.items = Items.of(self.keys, clusters, micro=self.headline == "micro")
        self.tasks = list(dict.fromkeys(task for task, _ in self.keys))
        self._clusters = clusters

    def _one_headline(self) -> str:
        found = {result.headline: self._rows[number].name for number, result in self.results.items()}
        if len(found) > 1:
            raise UserError(
                f"{self.label}: {found['micro']!r} is a mean over items and {found['macro']!r} one over tasks; score"
                " both with the same version ('whetstone score RUN')"
            )
        return next(iter(found), "macro")

    @cached_property
    def entries(self) -> dict[int, Entry]:
        """Row -> its estimates, for the rows that answered."""
        return {number: self._entry(number, result) for number, result in self.results.items()}

    def _entry(self, number: int, result: BenchmarkResult) -> Entry:
        answered = ~np.isnan(self.table[:, number])
        items, scores = self.items.where(answered), self.table[answered, number]
        tasks = {}
        for code, task in enumerate(self.tasks):
            inside = answered & (self.items.tasks == code)
            if inside.any():
                tasks[task] = share(replace(self.items.where(inside), micro=True), self.table[inside, number])
        return Entry(
            headline=share(items, scores),
            half_by_subject=half_width_by_task(items, scores),
            micro=float(scores.mean()),
            macro=float(means(replace(items, micro=False), scores[:, None])[0]),
            tasks=tasks,
            bits=self._bits(result.bits_per_byte),
            result=result,
        )

    def _bits(self, bits: Scores) -> Estimate | None:
        keys, table = _table({0: bits}, 1)
        if not keys:
            return None
        return mean(Items.of(keys, self._clusters, micro=self.headline == "micro"), table[:, 0])

    @cached_property
    def pairs(self) -> list[Pair]:
        """Any two rows with items in common."""
        return compare_all(self.items, self.table, seed=self._seed)

    @cached_property
    def ranks(self) -> dict[int, tuple[int, int]]:
        """Row -> best and worst rank that the data leave open."""
        return rank_ranges(list(self.results), self.pairs)

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the benchmark's metrics, in their order."""
        return list(dict.fromkeys(name for result in self.results.values() for name in result.metrics))

    @cached_property
    def ability(self) -> Ability:
        """What the column can show of these rows."""
        errors = [pair.standard_error for pair in self.pairs if pair.standard_error > 1e-9]
        error = float(np.median(errors)) if errors else None
        if len(self.results) == 1:
            own = self.entries[next(iter(self.results))].headline.standard_error
            error = sqrt(2 * (1 - CORRELATION)) * own or None
        shares = [(pair.won + pair.lost) / pair.items for pair in self.pairs]
        return Ability(
            items=len(self.items),
            clusters=self.items.num_clusters,
            design_effect=self._design_effect(),
            discordant=float(np.median(shares)) if shares else None,
            standard_error=error,
            assumed=len(self.results) == 1,
            pairs=len(self.pairs),
            told_apart=sum(pair.told_apart for pair in self.pairs),
            snr=self._snr(),
        )

    def _design_effect(self) -> float:
        if self.items.independent:
            return 1.0
        ratios = []
        for number in self.results:
            answered = ~np.isnan(self.table[:, number])
            items, scores = self.items.where(answered), self.table[answered, number][:, None]
            alone = float(covariance(replace(items, clusters=np.arange(len(items))), scores)[0, 0])
            ratios += [float(covariance(items, scores)[0, 0]) / alone] if alone > 0 else []
        return float(np.mean(ratios)) if ratios else 1.0

    def _snr(self) -> SignalNoise | None:
        """Signal and noise within runs, where rows are checkpoints: called ``base@step-100``."""
        runs: dict[str, dict[int, float]] = {}
        for number, entry in self.entries.items():
            row = self._rows[number]
            named = STEP_OF_NAME.match(row.name)
            run, step = (named[1], int(named[2])) if named else (row.name, 0)
            if not row.result.settings.get("constant"):
                runs.setdefault(run, {})[step] = entry.headline.value
        if all(len(steps) < 2 for steps in runs.values()):
            return None
        return signal_noise({run: [steps[step] for step in sorted(steps)] for run, steps in runs.items()})


def _table(by_row: Mapping[int, Scores], rows: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the sorted (task, item) keys of all rows and their (keys, rows) scores, NaN where there is none."""
    keys = sorted({(task, item) for scores in by_row.values() for task, items in scores.items() for item in items})
    places = {key: place for place, key in enumerate(keys)}
    table = np.full((len(keys), rows), np.nan)
    for number, scores in by_row.items():
        for task, items in scores.items():
            table[[places[task, item] for item in items], number] = list(items.values())
    return keys, table
