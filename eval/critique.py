"""Asking for a critique, writing one from known truth, and choosing which sampled answers are worth criticising.

Convincing wrong answers, the choice of responses with many steps and the accuracy of verdicts by certainty follow
"Critique Ability of Large Language Models" (arXiv 2310.04815): of a question's wrong samples the most frequent answer
is taken first. The certainty formula was not recovered from the paper; `certainty` is our design.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from data_recipes.row import Message, Row, normalise
from eval.benchmarks import Item
from eval.verifiers import Verdict, fault

T = TypeVar("T")

ASK = """Question: {question}

Response: {response}

Is the final answer of the response correct? Say briefly what the response says and what the answer must be, then end \
with the line "Judgment: correct" or "Judgment: incorrect"."""


CORRECT = """Question: {question}

Response: {response}

Critique: {critique}

Give the corrected response."""

VERDICTS = ["correct", "incorrect"]
CORRECTION = "correction"
"""What the names of tasks that ask for a corrected answer begin with."""


@dataclass(frozen=True)
class Example:
    """A worked critique: shown before the question, in prompts with examples."""

    question: str
    response: str
    critique: str
    verdict: str
    """``correct`` or ``incorrect``."""


@dataclass(frozen=True)
class Sample:
    """One sampled answer to a question, judged."""

    text: str
    verdict: Verdict
    seed: int
    """Its number among the question's samples."""
    model: str = ""
    """What wrote it."""


def critique_prompt(question: str, response: str) -> str:
    """Return the user turn that asks for a critique of `response`."""
    return ASK.format(question=question, response=response.strip())


def correction_prompt(question: str, response: str, critique: str) -> str:
    """Return the user turn that asks for a corrected response; what is true of it only the critique may tell."""
    return CORRECT.format(question=question, response=response.strip(), critique=critique.strip())


def few_shot_prompt(principles: str, examples: Sequence[Example], question: str, response: str) -> str:
    """Return a prompt of principles, worked critiques and the response to criticise, up to where the critique begins.

    The order is that of arXiv 2310.04815, appendix F; its text was not recovered, so the words are ours.
    """
    shown = [_shown(one.question, one.response, f"{one.critique}\nJudgment: {one.verdict}") for one in examples]
    return "\n\n".join([principles, *shown, _shown(question, response, "")])


def _shown(question: str, response: str, critique: str) -> str:
    return f"Question: {question.strip()}\n\nResponse: {response.strip()}\n\nCritique: {critique}".strip()


def asked_for_verdict(
    row_id: str,
    task: str,
    question: str,
    response: str,
    right: bool,
    *,
    principles: str,
    examples: Sequence[Example],
    **meta: Any,
) -> Item:
    """Return the item that asks for a critique of a response and is judged by its verdict.

    Args:
        examples: worked critiques; none: the question is put in the words that the critique stage trains with.
        meta: beside the question and the options, what the row should know.
    """
    if examples:
        prompt = few_shot_prompt(principles, examples, question, response)
    else:
        prompt = critique_prompt(question, response)
    row = Row(
        id=row_id,
        task=task,
        kind="critique",
        messages=[Message(role="user", content=prompt)],
        answer="correct" if right else "incorrect",
        verifiers=["verdict"],
        meta={"question": question, "options": VERDICTS, **meta},
    )
    # a model that goes on to the next question would add verdicts of its own making
    return Item(row, stop=("\n\nQuestion:",) if examples else ())


def write_critique(row: Row, verdict: Verdict) -> str:
    """Write the critique that is true of a judged answer: what it says, what is right, the fault if any, the verdict.

    Both values stand before the comparison, so that a model that writes left to right can compare them.
    """
    truth = row.meta.get("working") or f"The answer must be {row.answer}"
    if verdict.score == 1.0:
        return f"The response says {verdict.answer}. {truth}. The two agree.\nJudgment: correct"
    problem = fault(row, verdict.answer) or f"{verdict.answer} is not {row.answer}"
    return f"The response says {verdict.answer}. {truth}. {problem}.\nJudgment: incorrect"


def certainty(samples: list[Sample]) -> float:
    """Return (n1 - n2) / N: the lead of the most frequent answer over the second, among N samples (our design)."""
    return lead([s.verdict.answer for s in samples])


def lead(answers: Sequence[str | None]) -> float:
    """Return (n1 - n2) / N for answers of which some (None or empty) could not be read, but count among the N."""
    counts = [count for _, count in Counter(canonical(one) for one in answers if one).most_common(2)]
    return (counts[0] - (counts[1] if len(counts) > 1 else 0)) / len(answers) if counts else 0.0


def canonical(answer: str) -> str:
    """Return a form in which two spellings of one answer are equal: 1,200.0 is 1200, letter case and spacing go.

    Expressions are compared as they are written, so 1/2 and 0.5 stay two answers.
    """
    try:
        number = Decimal(answer.replace(",", "").strip())
    except InvalidOperation:
        return normalise(answer)
    return f"{number.normalize():f}" if number.is_finite() and abs(number.adjusted()) < 20 else normalise(answer)


def convincing_wrong(samples: list[Sample]) -> list[Sample]:
    """Return one sample of each wrong answer, the most frequent answer first, then the one sampled first.

    Unparsed samples are left out: nobody can be convinced by an answer that cannot be read.
    """
    wrong = [sample for sample in samples if sample.verdict.score is not None and sample.verdict.score < 1.0]
    counts = Counter(sample.verdict.answer for sample in wrong)
    first: dict[str, Sample] = {}
    for sample in wrong:
        first.setdefault(sample.verdict.answer, sample)
    return sorted(first.values(), key=lambda sample: -counts[sample.verdict.answer])


def convincing_pair(samples: list[Sample]) -> tuple[Sample, Sample] | None:
    """Return a right and a convincing wrong sample of one question, or None where it lacks either.

    The wrong one gives the most frequent wrong answer. Among right samples, and among wrong ones of equal frequency,
    the one with most steps is taken (section 3.2.1), then by a hash of the text.
    """
    right = [sample for sample in samples if sample.verdict.score == 1.0]
    wrong = [s for s in samples if s.verdict.score is not None and s.verdict.score < 1.0 and s.verdict.answer]
    if not right or not wrong:
        return None
    counts = Counter(canonical(sample.verdict.answer) for sample in wrong)
    most = max(counts.values())
    wrong = [sample for sample in wrong if counts[canonical(sample.verdict.answer)] == most]
    return max(right, key=_steps), max(wrong, key=_steps)


def _steps(sample: Sample) -> tuple[int, bytes]:
    return sum(bool(line.strip()) for line in sample.text.splitlines()), hashlib.sha256(sample.text.encode()).digest()


def spread(things: Iterable[T], number: int, key: Callable[[T], str]) -> list[T]:
    """Return `number` of `things` (0: all), chosen by a hash of their `key`, in their own order."""
    things = list(things)
    order = sorted(range(len(things)), key=lambda i: hashlib.sha256(key(things[i]).encode()).digest())
    kept = set(order[:number]) if number else set(order)
    return [thing for i, thing in enumerate(things) if i in kept]


def balanced(by_question: dict[str, list[Sample]], limit: int) -> list[tuple[str, Sample]]:
    """Choose as many right as wrong samples, at most `limit` in all, one of each a question where it has both.

    Questions with both come first; then right and wrong samples of other questions are paired off one to one, so that
    the classes stay equal. Of right samples one is taken a question, of wrong ones the most convincing.
    """
    right = {q: next((s for s in samples if s.verdict.score == 1.0), None) for q, samples in by_question.items()}
    wrong = {q: next(iter(convincing_wrong(samples)), None) for q, samples in by_question.items()}
    both = [q for q in by_question if right[q] and wrong[q]]
    only_right = [q for q in by_question if right[q] and not wrong[q]]
    only_wrong = [q for q in by_question if wrong[q] and not right[q]]
    pairs = [(q, q) for q in both] + list(zip(only_right, only_wrong, strict=False))
    chosen = []
    for with_right, with_wrong in pairs[: limit // 2]:
        chosen += [(with_right, right[with_right]), (with_wrong, wrong[with_wrong])]
    return chosen


def correction_row(row: Row, sample: Sample, right: Sample | None) -> Row:
    """Return the row of task ``correction/<task>``: a wrong sample and its critique; a right answer is wanted.

    It is judged as the question itself is. Its target is `right`, a right sample to the same question, else the row's.
    """
    prompt = correction_prompt(row.question, sample.text, write_critique(row, sample.verdict))
    target = right.text.strip() if right else row.target or row.answer or ""
    return row.model_copy(
        update={
            "id": f"{CORRECTION}/{row.id}/{sample.seed}",
            "task": f"{CORRECTION}/{row.task}",
            "kind": "critique",
            "messages": [Message(role="user", content=prompt), Message(role="assistant", content=target)],
            "meta": {**row.meta, "question": row.question, "sampled_from": sample.model},
        }
    )


def judging_row(row: Row) -> Row | None:
    """Return the row that judges revisions of the response which a critique row criticises: the question's own.

    None where the critique row does not know the right answer and by what it is judged (``gold``, ``gold_verifiers``).
    """
    names = row.meta.get("gold_verifiers") or []
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    if not names or row.meta.get("gold") is None:
        return None
    return Row(
        id=row.id,
        task=row.task,
        kind="domain",
        messages=[Message(role="user", content=row.meta["question"])],
        answer=row.meta["gold"],
        verifiers=names,
        meta=row.meta.get("gold_meta", {}),
    )


def is_critique(row: Row) -> bool:
    """Tell whether a row asks what is wrong with an answer (a correction wants another answer)."""
    return row.kind == "critique" and not row.task.startswith(f"{CORRECTION}/")


def tertiles(certainties: dict[str, float]) -> dict[str, str]:
    """Return question -> ``low``, ``mid`` or ``high``: the third of the questions, by certainty, that it falls into.

    Questions of equal certainty fall into one third (arXiv 2310.04815 reports by certainty; thirds are our design).
    """
    ranked = sorted(certainties.values())
    names = ("low", "mid", "high")
    return {one: names[3 * ranked.index(value) // len(ranked)] for one, value in certainties.items()}


def critique_row(row: Row, sample: Sample, row_certainty: float, tertile: str) -> Row:
    """Turn a judged sample into a critique row of task ``critique/<task>``, judged by its verdict line."""
    right = sample.verdict.score == 1.0
    return Row(
        id=f"critique/{row.id}/{sample.seed}",
        task=f"critique/{row.task}",
        kind="critique",
        messages=[
            Message(role="user", content=critique_prompt(row.question, sample.text)),
            Message(role="assistant", content=write_critique(row, sample.verdict)),
        ],
        answer="correct" if right else "incorrect",
        verifiers=["verdict"],
        meta={
            "question": row.question,
            "response": sample.text.strip(),
            "gold": row.answer,
            "gold_verifiers": row.verifiers,
            "gold_meta": row.meta,
            "response_answer": sample.verdict.answer,
            "sampled_from": sample.model,
            "certainty": round(row_certainty, 3),
            "certainty_tertile": tertile,
            "licence": row.meta.get("licence", "unknown"),
        },
    )
