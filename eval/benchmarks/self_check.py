"""Self-consistency with self-check: a model answers several times, criticises its uncertain answers, and then votes.

The baseline of "Critique Ability of Large Language Models" (arXiv 2310.04815, section 5) beside what it has to beat:
the first answer alone and the plain majority vote (self-consistency). What the paper leaves open is our design:

- The certainty of a question is (n1 - n2) / N: the lead of the most frequent answer over the second among its N
  samples, of which unreadable ones count in N alone. The paper's own scale (C = 1 or 2) was not recovered.
- Where it is below ``certainty_below``, every readable answer is criticised by the same model; identical texts once.
- Answers judged incorrect lose their vote. An answer whose critique has no verdict keeps it, and so do all where every
  one was judged incorrect.
- Most votes win; a tie goes to the answer that was sampled first.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from data_recipes.files import fingerprint
from data_recipes.row import Row
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric, heldout, testset
from eval.benchmarks.critic_gsm8k import EXAMPLES, PRINCIPLES
from eval.critique import asked_for_verdict, canonical, lead, spread
from eval.critique_metrics import mean_score, present, ratio
from eval.statistics import Scores


class Settings(BenchmarkSettings):
    """``num_samples`` is the number of votes."""

    set: str | None = None
    """A set of sets.yaml whose answers can be judged; absent: the mixture's held-out questions."""
    items: int = Field(0, ge=0)
    """How many questions to ask, spread over the set; 0: all."""
    full: bool = False
    """Ask the whole set; refused where the model was trained on half of it."""
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.6, ge=0)
    num_samples: int = Field(8, ge=1)
    certainty_below: float = Field(0.5, ge=0)
    """Answers are criticised where the lead of the first answer, as a share of all samples, is below this; 0: never,
    above 1: always."""
    critique_tokens: int = Field(256, ge=1)
    """Longest critique, in tokens."""
    critique_temperature: float = Field(0.0, ge=0)
    num_shots: int = Field(len(EXAMPLES), ge=0, le=len(EXAMPLES))
    """Worked critiques (of word problems) before the answer; 0: the words that the critique stage trains with."""


@dataclass(frozen=True)
class Vote:
    """What became of one question."""

    first: Answered
    majority: Answered
    """The first sample with the answer that most samples give."""
    checked: Answered
    """The same among those that were not judged incorrect."""
    uncertain: bool
    answer_tokens: int
    critique_tokens: int


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return the set's questions.

    Raises:
        UserError: there is no such set, it cannot be judged, or the model was trained on part of what is asked.
    """
    return questions(settings.set, settings.items, settings.full, mixture)


def questions(name: str | None, number: int, full: bool, mixture: Path | None) -> list[Row]:
    """Return `number` questions (0: all) of a set of sets.yaml, or without a name of the mixture's held-out ones.

    Raises:
        UserError: there is no such set, it cannot be judged, or the model was trained on part of what is asked.
    """
    if name is None:
        rows = heldout.items(heldout.Settings(type="heldout"), mixture)
        return spread((row for row in rows if row.verifiers), number, lambda row: row.id)
    return testset.items(testset.Settings(type="testset", set=name, items=number, full=full), mixture)


def follow_up(settings: Settings, answered: list[Answered]) -> list[Item]:
    """Return the requests for critiques of all readable answers to uncertain questions; none in later rounds."""
    if any(one.round for one in answered):
        return []
    asked: dict[str, Item] = {}
    for samples in by_question(answered).values():
        if not _uncertain(settings, samples):
            continue
        for one in samples:
            if one.verdict.answer:
                item = asked_for_verdict(
                    _critique_id(one),
                    f"self_check/{settings.set or 'heldout'}/critique",
                    one.row.question,
                    one.completion,
                    one.verdict.score == 1.0,
                    principles=PRINCIPLES,
                    examples=EXAMPLES[: settings.num_shots],
                    cluster=one.row.meta.get("cluster", one.row.id),
                    licence=one.row.meta.get("licence", "unknown"),
                )
                asked[item.row.id] = replace(
                    item,
                    max_tokens=settings.critique_tokens,
                    temperature=settings.critique_temperature,
                    num_samples=1,
                )
    return list(asked.values())


def _critique_id(one: Answered) -> str:
    return f"{one.row.id}/critique/{fingerprint(one.completion)}"


def by_question(answered: list[Answered]) -> dict[str, list[Answered]]:
    questions: dict[str, list[Answered]] = defaultdict(list)
    for one in sorted((one for one in answered if one.round == 0), key=lambda one: (one.row.id, one.sample)):
        questions[one.row.id].append(one)
    return questions


def _uncertain(settings: Settings, samples: list[Answered]) -> bool:
    return lead([one.verdict.answer for one in samples]) < settings.certainty_below


def votes(settings: Settings, answered: list[Answered]) -> dict[str, Vote]:
    """Return what became of every question, by its id."""
    critiques = {one.row.id: one for one in answered if one.round == 1}
    found = {}
    for question, samples in by_question(answered).items():
        uncertain = _uncertain(settings, samples)
        made = {_critique_id(one): critiques.get(_critique_id(one)) for one in samples} if uncertain else {}
        rejected = {name for name, critique in made.items() if critique and critique.verdict.answer == "incorrect"}
        kept = [one for one in samples if _critique_id(one) not in rejected and one.verdict.answer]
        found[question] = Vote(
            samples[0],
            winner(samples),
            winner(kept or samples),
            uncertain,
            sum(one.num_tokens for one in samples),
            sum(critique.num_tokens for critique in made.values() if critique),
        )
    return found


def winner(samples: list[Answered]) -> Answered:
    """Return the first sample that gives the most frequent answer; without any readable one the first sample."""
    readable = [one for one in samples if one.verdict.answer]
    counts = Counter(canonical(one.verdict.answer) for one in readable)
    return max(readable, key=lambda one: counts[canonical(one.verdict.answer)], default=samples[0])


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return the scores of the vote after self-check; what it is compared with is among the metrics."""
    return {
        f"self_check/{settings.set or 'heldout'}": {
            name: vote.checked.score for name, vote in votes(settings, answered).items()
        }
    }


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return what self-check gains over the majority vote, paired by question, and what it costs.

    ``error reduction`` is the share of the majority vote's errors that self-check saves (the paper's figure).
    """
    found = votes(settings, answered)
    firsts = [vote.first for vote in found.values()]

    def gain(one: Answered) -> float:
        return found[one.row.id].checked.score - found[one.row.id].majority.score

    answers = sum(vote.answer_tokens for vote in found.values())
    critiques = sum(vote.critique_tokens for vote in found.values())
    costs = {"majority vote": answers, "self-check": answers + critiques}
    return present(
        {
            "first sample": ratio(firsts, lambda one: found[one.row.id].first.score),
            "majority vote": ratio(firsts, lambda one: found[one.row.id].majority.score),
            "self-check less majority vote": ratio(firsts, gain, signed=True),
            "error reduction": ratio(firsts, gain, lambda one: 1 - found[one.row.id].majority.score, signed=True),
            "questions checked": ratio(firsts, lambda one: found[one.row.id].uncertain),
            "verdicts on checked answers": mean_score(one for one in answered if one.round == 1),
            **{
                f"tokens a question, {name}": Metric(cost / len(found), n=len(found), percent=False)
                for name, cost in costs.items()
            },
        }
    )
