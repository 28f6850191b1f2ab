"""Asking for a critique, writing one from known truth, and choosing which sampled answers are worth criticising.

Convincing wrong answers and the accuracy of verdicts by certainty follow "Critique Ability of Large Language Models"
(arXiv 2310.04815): of a question's wrong samples the most frequent answer is taken first. The certainty formula was
not recovered from the paper; `certainty` is our design.
"""

from collections import Counter
from dataclasses import dataclass

from data_recipes.row import Message, Row
from eval.verifiers import Verdict, fault

ASK = """Question: {question}

Response: {response}

Is the final answer of the response correct? Say briefly what the response says and what the answer must be, then end \
with the line "Judgment: correct" or "Judgment: incorrect"."""


@dataclass(frozen=True)
class Sample:
    """One sampled answer to a question, judged."""

    text: str
    verdict: Verdict
    seed: int


def critique_prompt(question: str, response: str) -> str:
    """Return the user turn that asks for a critique of `response`."""
    return ASK.format(question=question, response=response.strip())


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
    counts = [count for _, count in Counter(s.verdict.answer for s in samples if s.verdict.answer).most_common(2)]
    return (counts[0] - (counts[1] if len(counts) > 1 else 0)) / len(samples) if counts else 0.0


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


def critique_row(row: Row, sample: Sample, model: str, row_certainty: float) -> Row:
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
            "gold": row.answer,
            "response_answer": sample.verdict.answer,
            "sampled_from": model,
            "certainty": round(row_certainty, 3),
            "licence": row.meta.get("licence", "unknown"),
        },
    )
