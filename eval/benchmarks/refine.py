"""Rounds of critique and revision by any critic and any generator, beside votes that cost as many tokens.

A generator answers, a critic criticises, the generator revises where the critic finds fault, and again. Told apart, as
CTRL does (arXiv 2502.03492): how many wrong answers become right, and right ones wrong. The generator's other samples
are what the tokens could have bought instead: a majority vote among them, and a vote without those that the critic
finds incorrect (self-check, arXiv 2310.04815). The row of the leaderboard is critic and generator unless the settings
name others. What the prompts say is ours.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_recipes.files import fingerprint
from data_recipes.row import Message, Row
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric, OtherModel
from eval.benchmarks.critic_gsm8k import EXAMPLES, PRINCIPLES
from eval.benchmarks.self_check import by_question, questions, winner
from eval.critique import CORRECT, asked_for_verdict
from eval.critique_metrics import mean_score, present, ratio
from eval.statistics import Scores


class Settings(BenchmarkSettings):
    """``max_tokens`` and ``temperature`` are those of answers; revisions are greedy."""

    set: str | None = None
    """A set of sets.yaml whose answers can be judged; absent: the mixture's held-out questions."""
    items: int = Field(0, ge=0)
    """How many questions to ask, spread over the set; 0: all."""
    full: bool = False
    """Ask the whole set; refused where the model was trained on half of it."""
    rounds: int = Field(1, ge=1, le=10)
    """How often an answer is criticised and revised."""
    revise: Literal["incorrect", "all"] = "incorrect"
    """Which answers are revised: those that the critic finds incorrect, or all."""
    critic: OtherModel | None = None
    """Absent: the row's model."""
    generator: OtherModel | None = None
    """Absent: the row's model."""
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.6, ge=0)
    num_samples: int = Field(8, ge=1)
    """Answers to a question; the first one is revised, the others are for the votes."""
    critique_tokens: int = Field(256, ge=1)
    """Longest critique, in tokens."""
    num_shots: int = Field(0, ge=0, le=len(EXAMPLES))
    """Worked critiques (of word problems) before the answer; 0: the words that the critique stage trains with."""
    bits_per_byte: bool = False


@dataclass(frozen=True)
class Chain:
    """What became of the first answer to a question."""

    answers: list[Answered]
    """After 0, 1, ... rounds; one that the critic lets stand is repeated."""
    critiques: list[Answered]
    tokens: int
    missing: Item | None
    """What has to be asked before it goes on."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the questions, for the generator.

    Raises:
        UserError: there is no such set, it cannot be judged, or the model was trained on part of what is asked.
    """
    rows = questions(settings.set, settings.items, settings.full, mixture)
    return [Item(row, asked_of=settings.generator) for row in rows]


def follow_up(settings: Settings, answered: list[Answered]) -> list[Item]:
    """Return the next critiques or revisions; in the first round of critiques those of all answers, for the votes."""
    asked: dict[str, Item] = {}
    later = {one.row.id: one for one in answered if one.round}
    for samples in by_question(answered).values():
        for one in samples if not later else ():
            item = _critique_of(settings, one)
            asked[item.row.id] = item
        item = _chain(settings, samples[0], later).missing
        if item:
            asked[item.row.id] = item
    return list(asked.values())


def _chain(settings: Settings, first: Answered, later: dict[str, Answered]) -> Chain:
    answers, critiques, tokens = [first], [], first.num_tokens
    for _ in range(settings.rounds):
        asked = _critique_of(settings, answers[-1])
        critique = later.get(asked.row.id)
        if critique is None:
            return Chain(answers, critiques, tokens, asked)
        critiques.append(critique)
        tokens += critique.num_tokens
        if settings.revise == "incorrect" and critique.verdict.answer != "incorrect":
            answers += [answers[-1]] * (settings.rounds + 1 - len(answers))
            break
        asked = _revision_of(settings, first.row, answers[-1], critique)
        revision = later.get(asked.row.id)
        if revision is None:
            return Chain(answers, critiques, tokens, asked)
        answers.append(revision)
        tokens += revision.num_tokens
    return Chain(answers, critiques, tokens, None)


def _critique_of(settings: Settings, one: Answered) -> Item:
    question = one.row.meta.get("refined", one.row.id)
    item = asked_for_verdict(
        f"{question}/critique/{fingerprint(one.completion)}",
        f"{_task(settings)}/critique",
        one.row.meta.get("question") or one.row.question,
        one.completion,
        one.verdict.score == 1.0,
        principles=PRINCIPLES,
        examples=EXAMPLES[: settings.num_shots],
        cluster=one.row.meta.get("cluster", question),
        licence=one.row.meta.get("licence", "unknown"),
    )
    asked = {"max_tokens": settings.critique_tokens, "temperature": 0.0, "num_samples": 1}
    return replace(item, asked_of=settings.critic, **asked)


def _revision_of(settings: Settings, row: Row, answer: Answered, critique: Answered) -> Item:
    """Return the request for a revision: the question's own row with another prompt, so that it is judged alike."""
    said = critique.completion.strip()
    question = row.meta.get("question") or row.question
    prompt = CORRECT.format(question=question, response=answer.completion.strip(), critique=said)
    revised = row.model_copy(
        update={
            "id": f"{row.id}/revision/{fingerprint([answer.completion, said])}",
            "task": f"{_task(settings)}/revision",
            "messages": [Message(role="user", content=prompt)],
            "meta": {**row.meta, "question": question, "refined": row.id, "cluster": row.meta.get("cluster", row.id)},
        }
    )
    return Item(revised, temperature=0.0, num_samples=1, asked_of=settings.generator)


def _task(settings: Settings) -> str:
    return f"{settings.label}/{settings.set or 'heldout'}"


def chains(settings: Settings, answered: list[Answered]) -> dict[str, Chain]:
    """Return what became of each question's first answer, by the question's id."""
    later = {one.row.id: one for one in answered if one.round}
    return {name: _chain(settings, samples[0], later) for name, samples in by_question(answered).items()}


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return the scores of the answers after the last round."""
    found: Scores = defaultdict(dict)
    for name, chain in chains(settings, answered).items():
        found[_task(settings)][name] = chain.answers[-1].score
    return dict(found)


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return accuracy and changes by round, the critic's accuracy, and votes at equal tokens.

    Votes are among as many of the generator's samples as the tokens of all answers, critiques and revisions would have
    bought, rounded down, at least one; where they would have bought more than there are, all vote (see ``votes``).
    """
    found = chains(settings, answered)
    samples = by_question(answered)
    critiques = {one.row.id: one for one in answered if one.round}
    firsts = [chain.answers[0] for chain in found.values()]
    tokens = sum(chain.tokens for chain in found.values())

    def at(number: int, one: Answered) -> float:
        return found[one.row.id].answers[number].score

    figures: dict[str, Metric | None] = {"accuracy of first answers": mean_score(firsts)}
    for number in range(1, settings.rounds + 1):

        def after(one: Answered, number: int = number) -> float:
            return at(number, one)

        figures |= {
            f"accuracy after round {number}": ratio(firsts, after),
            f"wrong to right after round {number}": ratio(
                firsts, lambda one, after=after: (1 - one.score) * after(one), lambda one: 1 - one.score
            ),
            f"right to wrong after round {number}": ratio(
                firsts, lambda one, after=after: one.score * (1 - after(one)), lambda one: one.score
            ),
        }
    figures["verdicts"] = mean_score(one for chain in found.values() for one in chain.critiques)
    figures["revised less first answers"] = ratio(firsts, lambda one: at(-1, one) - one.score, signed=True)

    def critique_of(one: Answered) -> Answered | None:
        return critiques.get(_critique_of(settings, one).row.id)

    answer_tokens = sum(one.num_tokens for of in samples.values() for one in of) / settings.num_samples
    of_critics = {c.row.id: c for of in samples.values() for one in of if (c := critique_of(one))}  # alike ones once
    critique_tokens = sum(one.num_tokens for one in of_critics.values()) / settings.num_samples
    for name, cost in (("majority vote", answer_tokens), ("self-check", answer_tokens + critique_tokens)):
        votes = max(1, min(settings.num_samples, int(tokens / max(cost, 1))))
        winners = {}
        for question, of in samples.items():
            voting = of[:votes]
            if name == "self-check":
                said = {id(one): critique_of(one) for one in voting}
                kept = [one for one in voting if not (c := said[id(one)]) or c.verdict.answer != "incorrect"]
                voting = kept or voting
            winners[question] = winner(voting).score
        figures |= {
            f"{name} at equal tokens": ratio(firsts, lambda one, w=winners: w[one.row.id]),
            f"revised less {name}": ratio(firsts, lambda one, w=winners: at(-1, one) - w[one.row.id], signed=True),
            f"votes, {name}": Metric(votes, n=len(found), percent=False),
        }
    figures["tokens a question"] = Metric(tokens / len(found), n=len(found), percent=False)
    return present(figures)
