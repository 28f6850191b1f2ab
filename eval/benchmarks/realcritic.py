"""RealCritic, closed loop: a critique is as good as the solution it leads to.

The model criticises a solution and then solves the problem anew from its critique; what is judged is the answer of the
new solution (arXiv 2501.14492, cross-critique; with more rounds its iterative critique). The repository's layout of the
answer is kept (critique, conclusion, corrected solution with its answer in a box); the words are ours. GPQA, its eighth
set, is not among those of ``sets.yaml``.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from data_recipes.row import Message, Row
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.critique import spread
from eval.critique_metrics import present, ratio
from eval.halved_sets import records_of, required
from eval.statistics import Scores
from eval.verifiers.verdict import read_line

SET = "realcritic"
HEADLINE = "macro"
CHOICES = ("arc-challenge", "mmlu_stem")
"""Sets whose answer is the letter of an option; those of the others are mathematics."""
ASK = """\
Below are a problem and a student's solution, which may be right or wrong.

First criticise the solution step by step: is each step valid and calculated right? Stop at the first step that is \
wrong and say what is wrong with it. Close the critique with the line "Judgment: correct" or "Judgment: incorrect".

Then write the solution again: as it stands if it is correct, else corrected from the first wrong step on. End with \
"The final answer is \\boxed{...}", with INSIDE in the box."""
AGAIN = """\
Look at your critique and your solution once more: is anything in them wrong? Write both anew in the same form, with \
the line "Judgment: correct" or "Judgment: incorrect" about the student's solution and the final answer in \\boxed{}."""


class Settings(BenchmarkSettings):
    """The repository's settings: greedy, up to 2048 tokens, one round."""

    max_tokens: int = Field(2048, ge=1)
    rounds: int = Field(1, ge=1, le=10)
    """How often the critique is made: in each round after the first the model goes over its own last critique."""
    items: int = Field(0, ge=0)
    """How many solutions to ask about, spread over the sets; 0: all."""
    full: bool = False
    """Ask about the whole sets; refused where the model was trained on half of them."""


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return a row a solution, judged by the answer of the solution that the critique leads to.

    Raises:
        UserError: the solutions cannot be had, or all are asked of a model trained on half of them.
    """
    records = records_of(SET, "question", mixture, settings.full)
    return [_row(record) for record in spread(records, settings.items, lambda record: record["key"])]


def _row(record: dict[str, Any]) -> Row:
    columns = {"question": str, "gt": str, "reasoning": str, "previous_score": list, "idx": int}
    question, gold, solution, scores, idx = required(record, SET, **columns)
    (shown_right,) = required({**record, "previous_score": (scores or [None])[0]}, SET, previous_score=bool)
    of_set = record["key"].rpartition(":")[0].removesuffix(".jsonl").removesuffix("/test")
    choices = record.get("choices")
    options = choices["text"] if isinstance(choices, dict) and "text" in choices else choices
    meta = {"options": options} if isinstance(options, list) else {}
    inside = "the letter of the right option" if of_set in CHOICES else "the answer alone"
    prompt = f"{ASK.replace('INSIDE', inside)}\n\nProblem: {question.strip()}\n\nSolution: {solution.strip()}"
    name = f"{SET}/{of_set}/{idx}"
    return Row(
        id=name,
        task=f"{SET}/{of_set}",
        kind="critique",
        messages=[Message(role="user", content=prompt)],
        answer=gold,
        verifiers=["choice" if of_set in CHOICES else "math"],
        meta={"question": question, "shown_right": shown_right, "cluster": name, "licence": "MIT", **meta},
    )


def follow_up(settings: Settings, answered: list[Answered]) -> list[Item]:
    """Return the next round: each conversation goes on with the request to look once more."""
    last = _last_round(answered)
    if not last or last[0].round + 1 >= settings.rounds:
        return []
    again = Message(role="user", content=AGAIN)
    return [
        Item(
            one.row.model_copy(
                update={
                    "id": f"{one.row.meta['cluster']}/{_chain(one)}/round {one.round + 2}",
                    "messages": [*one.row.messages, Message(role="assistant", content=one.completion), again],
                    "meta": {**one.row.meta, "chain": _chain(one)},
                }
            ),
            num_samples=1,
        )
        for one in last
    ]


def _chain(one: Answered) -> int:
    return one.row.meta.get("chain", one.sample)


def _last_round(answered: list[Answered]) -> list[Answered]:
    last = max((one.round for one in answered), default=0)
    return [one for one in answered if one.round == last]


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return set -> solution -> mean score of the answers that the last round came to."""
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in _last_round(answered):
        collected[one.row.task][one.row.meta["cluster"]].append(one.score)
    return {task: {i: sum(v) / len(v) for i, v in sorted(of.items())} for task, of in sorted(collected.items())}


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return how often the last round made wrong solutions right and right ones wrong, over all sets and in each.

    ``gain`` is the share of right answers less that of the solutions shown. ``judgment`` is how often the verdict of
    the critique itself is true, where it has a readable one.
    """
    last = _last_round(answered)
    judged = {id(one): read_line(one.completion, one.row) for one in last}
    found: dict[str, Metric | None] = {
        "gain": ratio(last, lambda one: one.score - _shown(one), signed=True),
        "judgment": ratio(
            [one for one in last if judged[id(one)]],
            lambda one: (judged[id(one)] == "correct") == one.row.meta["shown_right"],
        ),
        "judgment given": ratio(last, lambda one: judged[id(one)] is not None),
    }
    for task in ("", *sorted({one.row.task for one in last})):
        of_task = [one for one in last if task in ("", one.row.task)]
        name = task.replace(f"{SET}/", ", ")
        found[f"wrong to right{name}"] = ratio(
            of_task, lambda one: (1 - _shown(one)) * one.score, lambda one: 1 - _shown(one)
        )
        found[f"right to wrong{name}"] = ratio(of_task, lambda one: _shown(one) * (1 - one.score), _shown)
    for number in range(settings.rounds - 1):
        of_round = [one for one in answered if one.round == number]
        found[f"accuracy after round {number + 1}"] = ratio(of_round, lambda one: one.score)
    return present(found)


def _shown(one: Answered) -> float:
    return float(one.row.meta["shown_right"])
