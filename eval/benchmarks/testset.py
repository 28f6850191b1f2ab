"""An evaluation set of ``sets.yaml`` whose answers can be judged: gsm8k, math, bbh, ifeval, pubmedqa, medqa, tatqa, ...

Of a set that the mixture read the training half of, only the held-out half is asked, and a score on all of it refused.
BIG-Bench Hard is one column a task (``bbh/navigate``); its published chain-of-thought prompts are asked with ``cot``.
Besides the scores, IFEval gets its other three accuracies and TAT-QA its F1.
"""

import hashlib
from functools import cache
from pathlib import Path

from pydantic import Field

from data_recipes.errors import UserError, nearest
from data_recipes.evaluation_sets import refuse_full_set
from data_recipes.files import fingerprint
from data_recipes.halves import half_of
from data_recipes.reading import question_of
from data_recipes.row import Message, Row, normalise
from data_recipes.sources import Place
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric, halves_trained_on
from eval.protected import SETS, evaluation_sets, items_of
from eval.statistics import bootstrap_interval
from eval.verifiers import load_verifier

BY_TASK = ("bbh",)
"""Sets whose groups are tasks of their own; in others a group is what shares a text."""
COT_PROMPTS = {
    "bbh": (
        "https://raw.githubusercontent.com/suzgunmirac/BIG-Bench-Hard/main/cot-prompts/{group}.txt",
        "{data}/bbh/cot-prompts/{group}.txt",
    )
}
"""Set -> where the published prompt of a group's task is: its address, and its file under WHETSTONE_DATA."""


class Settings(BenchmarkSettings):
    """``set`` is a name in sets.yaml; ``items`` bounds how many are asked, spread over the set (0: all)."""

    set: str
    items: int = Field(0, ge=0)
    full: bool = False
    """Ask the whole set, for an official score; refused where the model was trained on half of it."""
    cot: bool = False
    """Put the published worked examples before the question and let the model go on after "Let's think step by step."
    (bbh alone has such)."""


def items(settings: Settings, mixture: Path | None) -> list[Row | Item]:
    """Return the set's items.

    Raises:
        UserError: there is no such set, it cannot be judged, or the model was trained on part of what is asked.
    """
    trained_on = [name for name in halves_trained_on(mixture) if name == settings.set.split("/")[0]]
    for name in trained_on if settings.full else []:
        refuse_full_set(name, trained_on)
    sets = evaluation_sets().tasks
    judged = [name for name, one in sets.items() if one.verifiers]
    if settings.set in sets and settings.set not in judged:
        raise UserError(f"{settings.set}: nothing judges these items; choose one of {', '.join(judged)}")
    if settings.cot and settings.set not in COT_PROMPTS:
        raise UserError(f"{settings.set}: cot: no published prompts{nearest(settings.set, COT_PROMPTS)}; leave it out")
    rows = items_of(settings.set, full=True)
    if trained_on:
        rows = [row for row in rows if half_of(question_of(row)) == "heldout"]
    if not rows:
        raise UserError(f"{settings.set}: the set gives no item to ask; fetch its file again")
    if settings.items:
        rows = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())[: settings.items]
    asked = [as_asked(settings.set, row) for row in rows]
    return [with_examples(settings.set, row) for row in asked] if settings.cot else asked


def as_asked(name: str, row: Row) -> Row:
    """Return a set's row with what the report needs: its task, options, cluster, and the text of the right answer.

    Raises:
        UserError: the row cannot be judged; better said before a model is asked than after.
    """
    verifier = load_verifier(row.verifiers[0])
    verifier.read("?", row)
    meta, task = dict(row.meta), row.task
    cluster = normalise("\n".join([question_of(row), *map(str, meta.get("options", []))]))
    if "group" in meta and name in BY_TASK:
        task = f"{name}/{meta['group']}"
    elif "group" in meta:
        cluster = meta["group"]
    meta["cluster"] = fingerprint(cluster)
    if "options" not in meta and hasattr(verifier, "options"):
        meta["options"] = verifier.options(row)
    letter = (row.answer or "").strip("() ")
    place = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".find(letter) if len(letter) == 1 else -1
    if 0 <= place < len(meta.get("options") or ()):
        meta["gold_text"] = meta["options"][place].removeprefix(f"{letter})").strip()
    elif not row.target and hasattr(verifier, "gold"):
        meta["gold_text"] = verifier.gold(row)
    return row.model_copy(update={"task": task, "meta": meta})


def with_examples(name: str, row: Row) -> Item:
    """Return the row asked as published: task, three worked examples, question, and where the model goes on.

    Raises:
        UserError: there is no prompt for the row's task.
    """
    place = Place(SETS.parent)
    path = COT_PROMPTS[name][place.data_dir is not None].replace("{group}", row.meta["group"])
    prompt = f"{_prompt(place.resolve(path))}\n\nQ: {question_of(row)}\nA: Let's think step by step."
    return Item(row.model_copy(update={"messages": [Message(role="user", content=prompt)]}), stop=("\n\nQ:",))


@cache
def _prompt(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable ({str(error):.80}); fetch BIG-Bench Hard's cot-prompts again") from None
    return text.partition("\n-----\n")[2].strip() or text.strip()  # (a note to keep it out of training stands first)


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return the figures that the set's verifier has beside the score, with bootstrap intervals over clusters."""
    named = {name for one in answered for name in one.row.verifiers}
    found = {}
    for label, figure in {k: f for name in sorted(named) for k, f in _figures(name).items()}.items():
        parts: dict[str, list[tuple[float, float]]] = {}
        for one in answered:
            parts.setdefault(one.row.meta["cluster"], []).append(figure(one.completion, one.row))
        sums = [(sum(right for right, _ in of), sum(count for _, count in of)) for of in parts.values()]
        low, high = bootstrap_interval(sums, _share)
        found[label] = Metric(_share(sums), low, high, n=len({one.row.id for one in answered}))
    return found


def _figures(verifier: str) -> dict:
    return getattr(load_verifier(verifier), "FIGURES", {})


def _share(sums: list[tuple[float, float]]) -> float:
    return sum(right for right, _ in sums) / sum(count for _, count in sums)
