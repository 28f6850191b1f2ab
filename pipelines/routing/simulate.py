"""`whetstone route simulate`: does routing beat drawing pairs at random? On pairs whose human labels are all known.

Each seed splits the pairs by prompt: on 40 % the gain is learned, 30 % are the pool to label, on 30 % the proxy model
is tested. A budget of the pool gets human labels, chosen by gain or drawn; the rest keep the model's; a proxy trained
on the pool (and on nothing else, so that the difference is the routing's) is asked which answer people prefer in the
tested pairs.
"""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint, write_json
from data_recipes.progress import console, say, track
from eval.statistics import t95
from pipelines.routing import proxy
from pipelines.routing.choose import top
from pipelines.routing.features import tagged
from pipelines.routing.gain import FEWEST, FORMS, MIXTURES, learned
from pipelines.routing.pairs import Pair, read_pairs

SHARES = (0.4, 0.3)
"""Of the prompts: for learning the gain, for the pool; the others are tested on."""
BUDGETS = (0.1, 0.25, 0.5, 0.75)
"""Shares of the pool that people label."""
DRAWS = 20
"""Random routings whose mean stands against the one by gain."""
LEAST_TESTED = 20
PREDICTION = ("r2", "spearman", "beyond_budget")
"""What `pipelines.routing.gain.Gain` says of itself."""


def simulate(file: Path, output: Path, *, seeds: int, budgets: Sequence[float] = BUDGETS) -> None:
    """Run the simulation, print its table and write ``results.json``; seeds in ``seeds.jsonl`` are not run again.

    Raises:
        UserError: the pairs cannot be read or are too few, a number is out of range, or the folder is another's.
    """
    if seeds < 2:
        raise UserError(f"--seeds {seeds}: give 2 at least, since the interval comes from their spread")
    for budget in budgets:
        if not 0 < budget < 1:
            raise UserError(f"--budgets {budget:g}: give shares of the pool between 0 and 1, such as 0.25")
    budgets = sorted(set(budgets))
    everything = read_pairs(file)
    pairs = [pair for pair in everything if pair.decided]
    if len(pairs) * SHARES[0] < FEWEST:
        raise UserError(
            f"{file}: {len(pairs)} pairs with a human label; a simulation takes {round(FEWEST / SHARES[0])}"
        )
    print_of = fingerprint([[pair.model_dump() for pair in pairs], list(budgets), MIXTURES])
    log = JsonlLog(output / "seeds.jsonl")
    if any(row.get("of") != print_of for row in log.rows):
        raise UserError(f"{output}/seeds.jsonl: of other pairs or budgets; give another --output or remove it")
    done = {row["seed"]: row for row in log.rows}
    tables = tagged(pairs), proxy.differences(pairs)
    for seed in track(
        (one for one in range(seeds) if one not in done), "seeds", seeds - len(done.keys() & range(seeds))
    ):
        try:
            log.append({"of": print_of, "seed": seed, **one_seed(pairs, *tables, budgets, seed)})
        except UserError as error:
            raise UserError(f"{file}, seed {seed}: {error}") from None
    log.close()
    rows = sorted((row for row in log.rows if row["seed"] < seeds), key=lambda row: row["seed"])
    results = summary(rows, budgets)
    results |= {"pairs": len(pairs), "left_out": len(everything) - len(pairs), "seeds": seeds}
    results["ai_right"] = sum(pair.ai == pair.human for pair in pairs) / len(pairs)
    write_json(output / "results.json", results)
    show(results)
    say(f"  {output}/results.json")


def split(pairs: Sequence[Pair], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of the pairs to learn from, of the pool and of the tested; pairs of a prompt stay together."""
    prompts = sorted({pair.prompt for pair in pairs})
    order = np.random.default_rng([seed, 1]).permutation(len(prompts))
    place = {prompts[number]: position / len(prompts) for position, number in enumerate(order)}
    at = np.array([place[pair.prompt] for pair in pairs])
    part = np.digitize(at, np.cumsum(SHARES))
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2)


def one_seed(
    pairs: Sequence[Pair], tags: np.ndarray, table: np.ndarray, budgets: Sequence[float], seed: int
) -> dict[str, Any]:
    """Return the accuracies of one seed's proxies on its tested pairs, and what its predictions were worth.

    Raises:
        UserError: the split leaves too few pairs, or nothing can be learned from them.
    """
    learning, pool, tested = split(pairs, seed)
    if min(len(pool), len(tested)) < LEAST_TESTED:
        raise UserError("too few prompts to split into pairs to learn from, to label and to test on; take more pairs")
    gains = learned([pairs[i] for i in learning], tags[learning], table[learning], FORMS, seed)
    human, ai = (proxy.signs([getattr(pair, who) for pair in pairs]) for who in ("human", "ai"))
    n = len(pool)

    def accuracy(asked: np.ndarray) -> np.ndarray:
        weights = proxy.fitted(table[pool], np.where(asked, human[pool], ai[pool]))
        return (proxy.preferred(table[tested], weights, human[tested]) > 0.5).mean(axis=1)

    ends = accuracy(np.array([np.zeros(n, bool), np.ones(n, bool)]))
    found: dict[str, Any] = {
        "sizes": [len(learning), n, len(tested)],
        "none": float(ends[0]),
        "all": float(ends[1]),
        "prediction": {form: {name: getattr(gain, name) for name in PREDICTION} for form, gain in gains.items()},
        "budgets": [],
    }
    ranks = np.random.default_rng([seed, 2]).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)
    wrong = human[pool] != ai[pool]
    for budget in budgets:
        count = max(1, round(budget * n))
        routed = np.zeros((len(FORMS), n), bool)
        for row, form in enumerate(FORMS):
            routed[row, top(gains[form].of(tags[pool]), count)] = True
        asked = np.concatenate([ranks < count, routed])
        right, mended = accuracy(asked), (asked & wrong).sum(axis=1) / count
        cell = {"random": [float(right[:DRAWS].mean()), float(mended[:DRAWS].mean())]}
        cell |= {form: [float(right[DRAWS + i]), float(mended[DRAWS + i])] for i, form in enumerate(FORMS)}
        found["budgets"].append(cell)
    return found


def summary(rows: Sequence[dict[str, Any]], budgets: Sequence[float]) -> dict[str, Any]:
    """Return the means over seeds, and the paired differences routed - random with their 95 % intervals.

    Splits of the same pairs overlap, so seeds are not independent: the variance of the mean is s^2 (1/J + tested / not
    tested), Nadeau and Bengio's corrected one (2003, "Inference for the Generalization Error"), with J - 1 degrees of
    freedom. It speaks of other pairs of the same kind, not of other seeds.
    """
    sizes = np.mean([row["sizes"] for row in rows], axis=0)
    spread = 1 / len(rows) + sizes[2] / (sizes[0] + sizes[1])

    def average(values: Sequence[float]) -> float:
        return float(np.mean(values))

    def of_budget(place: int, budget: float) -> dict[str, Any]:
        cells = [row["budgets"][place] for row in rows]
        drawn = np.array([cell["random"] for cell in cells])
        found: dict[str, Any] = {"budget": budget, "labels": max(1, round(budget * sizes[1]))}
        found["random"] = {"accuracy": average(drawn[:, 0]), "ai_wrong": average(drawn[:, 1])}
        for form in FORMS:
            routed = np.array([cell[form] for cell in cells])
            difference = routed[:, 0] - drawn[:, 0]
            half = t95(len(rows) - 1) * sqrt(spread * difference.var(ddof=1))
            middle = float(difference.mean())
            found[form] = {"accuracy": average(routed[:, 0]), "ai_wrong": average(routed[:, 1]), "difference": middle}
            found[form] |= {"low": middle - half, "high": middle + half, "seeds_better": average(difference > 0)}
        return found

    return {
        "sizes": sizes.tolist(),
        "none": average([row["none"] for row in rows]),
        "all": average([row["all"] for row in rows]),
        "prediction": {
            form: {name: average([row["prediction"][form][name] for row in rows]) for name in PREDICTION}
            for form in FORMS
        },
        "budgets": [of_budget(place, budget) for place, budget in enumerate(budgets)],
    }


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    from rich.table import Table

    learning, pool, tested = results["sizes"]
    left_out = f" ({results['left_out']} without a human label left out)" if results["left_out"] else ""
    right = f"the model right on {100 * results['ai_right']:.1f} %"
    say(f"{results['pairs']} pairs{left_out}, {right}; {results['seeds']} seeds:")
    say(f"  gain learned on {learning:.0f}, a pool of {pool:.0f}, tested on {tested:.0f}; accuracies of the proxy in %")
    ends = f"{100 * results['none']:.1f}, with people's {100 * results['all']:.1f}"
    say(f"  the pool with the model's labels alone {ends}")
    table = Table(title="labels of people, chosen by gain or drawn", title_justify="left")
    for heading in (
        "labels",
        "",
        "accuracy",
        "routed - random",
        "95 % interval",
        "seeds better",
        "model wrong in chosen",
    ):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for cell in results["budgets"]:
        share = f"{cell['labels']} ({100 * cell['budget']:g} %)"
        for how in ("random", *FORMS):
            one = cell[how]
            row = [share if how == "random" else "", how, f"{100 * one['accuracy']:.1f}"]
            if how == "random":
                row += ["", "", ""]
            else:
                row += [f"{100 * one['difference']:+.1f}", f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f}"]
                row += [f"{100 * one['seeds_better']:.0f} %"]
            table.add_row(*row, f"{100 * one['ai_wrong']:.1f} %")
    console().print(table)
    for form in FORMS:
        one = results["prediction"][form]
        told = f"R2 {one['r2']:.2f}, Spearman {one['spearman']:.2f}"
        beyond = f"R2 beyond the number of labels {one['beyond_budget']:.2f}"
        say(f"  {form}: on mixtures not fitted {told}, {beyond} (means over seeds)")
