"""`whetstone route choose` and `import`: pairs to people, and their labels back."""

from pathlib import Path
from typing import Any

import numpy as np

from data_recipes.errors import UserError
from data_recipes.files import folder_written_atomically, write_atomically, write_json
from data_recipes.progress import console, say
from pipelines.routing import label_studio
from pipelines.routing.features import TAGS, tagged
from pipelines.routing.gain import Form, Gain, learned
from pipelines.routing.pairs import Pair, jsonl, preference_rows, read_pairs
from pipelines.routing.proxy import differences


def choose(file: Path, budget: int, output: Path, *, form: Form, at_random: bool, seed: int) -> None:
    """Choose the `budget` pairs without a human label that would gain most from one, and write them for people.

    The folder then holds ``tasks.json`` and ``config.xml`` for Label Studio, ``chosen.jsonl`` with each pair's gain and
    tags, and ``gain.json``, what was learned.

    Args:
        at_random: learn nothing and draw the pairs: the first labels, from which a gain can be learned.

    Raises:
        UserError: the pairs cannot be read or learned from, the budget is out of range, or the folder is there already.
    """
    _is_new(output)
    pairs = read_pairs(file)
    unlabelled = [number for number, pair in enumerate(pairs) if pair.human is None]
    if not 1 <= budget <= len(unlabelled):
        raise UserError(
            f"{file}: --budget {budget} cannot be: pairs without a human label: {len(unlabelled)}; give 1 to that many"
        )
    tags = tagged(pairs)
    gain = None
    if at_random:
        chosen = sorted(np.random.default_rng(seed).choice(unlabelled, budget, replace=False).tolist())
        gains = dict.fromkeys(chosen)
    else:
        decided = [number for number, pair in enumerate(pairs) if pair.decided]
        known = [pairs[number] for number in decided]
        try:
            gain = learned(known, tags[decided], differences(pairs)[decided], [form], seed)[form]
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        values = gain.of(tags[unlabelled])
        best = top(values, budget)
        chosen = [unlabelled[place] for place in best]
        gains = {unlabelled[place]: float(values[place]) for place in best}
    record: dict[str, Any] = {"pairs": len(pairs), "unlabelled": len(unlabelled), "budget": budget, "seed": seed}
    record |= {"random": True} if gain is None else _told(gain, tags)
    with folder_written_atomically(output) as folder:
        write_json(folder / "tasks.json", label_studio.tasks(pairs[number] for number in chosen))
        write_atomically(folder / "config.xml", label_studio.CONFIG)
        write_json(folder / "gain.json", record)
        rows = (
            {"id": pairs[one].id, "gain": gains[one], "tags": [TAGS[i] for i in np.flatnonzero(tags[one])]}
            for one in chosen
        )
        write_atomically(folder / "chosen.jsonl", jsonl(rows))
    if gain is not None:
        _show(gain, tags)
    how = "drawn" if gain is None else "chosen"
    say(f"{budget} of {len(unlabelled)} pairs {how}: {output}/tasks.json, for a project with {output}/config.xml")


def top(gains: np.ndarray, budget: int) -> list[int]:
    """Return the places of the `budget` largest gains, largest first; of equal ones the earlier."""
    return np.argsort(-gains, kind="stable")[:budget].tolist()


def _told(gain: Gain, tags: np.ndarray) -> dict[str, Any]:
    alone = gain.of(np.eye(len(TAGS)))
    return {
        "model": gain.form,
        "ridge": gain.ridge,
        "r2": gain.r2,
        "spearman": gain.spearman,
        "beyond_budget": gain.beyond_budget,
        "tags": {tag: {"gain": float(alone[i]), "pairs": int(tags[:, i].sum())} for i, tag in enumerate(TAGS)},
    }


def _show(gain: Gain, tags: np.ndarray) -> None:
    from rich.table import Table

    alone = gain.of(np.eye(len(TAGS)))
    table = Table(title="tags of the largest and smallest gain", title_justify="left")
    table.add_column("tag")
    table.add_column("pairs", justify="right")
    table.add_column("gain, points of 1,000", justify="right")
    order = [i for i in np.argsort(-alone, kind="stable") if tags[:, i].any()]
    for place in [*order[:5], *order[5:][-5:]]:
        table.add_row(TAGS[place], f"{int(tags[:, place].sum()):,}", f"{1000 * alone[place]:+.2f}")
    console().print(table)
    say(f"  on mixtures not fitted: R2 {gain.r2:.2f}, Spearman {gain.spearman:.2f}")
    say(f"  R2 beyond the number of labels: {gain.beyond_budget:.2f} (0 or less: no better than drawing pairs)")


def import_labels(file: Path, exports: list[Path], output: Path) -> None:
    """Put people's labels to their pairs, and write the preferences that a recipe reads.

    The folder then holds ``pairs.jsonl``, the file with ``human`` filled in, and ``preferences.jsonl``
    (`pipelines.routing.pairs.preference_rows`), and ``import.json``, the counts.

    Raises:
        UserError: a file cannot be read, a label is of no known pair or contradicts one the file has, or the folder is
            there already.
    """
    _is_new(output)
    pairs = read_pairs(file)
    labels = label_studio.read_exports(exports, pairs)
    after = [_labelled(pair, labels, file) for pair in pairs]
    rows = preference_rows(after)
    given = list(labels.by_pair.values())
    counts = {
        "tasks": labels.tasks,
        "labelled": len(given),
        "ties": given.count("tie"),
        "conflicting": labels.conflicting,
        "undecided": labels.undecided,
        "unlabelled": labels.unlabelled,
        "corrected": sum(one.decided and one.human != one.ai and one.id in labels.by_pair for one in after),
        "preferences": len(rows),
        "preferences_human": sum(row["label"] == "human" for row in rows),
    }
    with folder_written_atomically(output) as folder:
        write_atomically(folder / "pairs.jsonl", jsonl(pair.model_dump() for pair in after))
        write_atomically(folder / "preferences.jsonl", jsonl(rows))
        write_json(folder / "import.json", counts)
    say(
        f"{counts['tasks']} tasks: {counts['labelled']} labelled, {counts['corrected']} against the model's label;"
        f" {counts['ties']} ties dropped; annotators differed on {counts['conflicting']}"
        f" ({counts['undecided']} without a majority); {counts['unlabelled']} unlabelled"
    )
    say(
        f"{len(rows)} preferences, {counts['preferences_human']} of people: {output}/preferences.jsonl;"
        f" all pairs: {output}/pairs.jsonl"
    )


def _labelled(pair: Pair, labels: label_studio.Labels, file: Path) -> Pair:
    label = labels.by_pair.get(pair.id)
    if label is None or label == pair.human:
        return pair
    if pair.human is not None:
        raise UserError(
            f"{file}: the pair {pair.id!r:.80} is labelled {pair.human!r} and the export says {label!r};"
            " take the label out of the file or the task out of the export"
        )
    return pair.model_copy(update={"human": label})


def _is_new(output: Path) -> None:
    if output.exists():
        raise UserError(f"{output}: is there already; give another --output or remove it")
