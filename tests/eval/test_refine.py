"""Rounds of critique and revision: who is asked what, what became right or wrong, and what votes would have done."""

import re

import pytest
from critique_helpers import answer

from data_recipes.files import read_json, read_jsonl
from data_recipes.row import Message, Row
from eval.benchmarks import OtherModel, refine
from eval.engines import Completion
from eval.harness import Benchmark, Contestant, Helpers, evaluate


def question(a: int, b: int) -> Row:
    return Row(
        id=f"{a}+{b}",
        task="sums",
        kind="domain",
        messages=[Message(role="user", content=f"What is {a} + {b}?")],
        answer=str(a + b),
        verifiers=["number"],
        meta={"gold_note": "SECRET"},
    )


class Generator:
    """Adds, but is one too high for odd first numbers until a critique tells it to; every second sample is right."""

    stops_after = True

    def __init__(self, name, said):
        self.name, self.said = name, said

    def generate(self, requests):
        for request in requests:
            prompt = request.messages[-1]["content"]
            self.said.append((self.name, prompt))
            a, b = map(int, re.search(r"What is (\d+) \+ (\d+)", prompt).groups())
            wrong = a % 2 and "Critique: " not in prompt and request.key.endswith("0")
            yield request, Completion(f"It is {a + b + wrong}.", 10, 20, "stop")


class Critic(Generator):
    """Checks the sum, but finds fault with every answer to 2 + 2."""

    def generate(self, requests):
        for request in requests:
            prompt = request.messages[-1]["content"]
            self.said.append((self.name, prompt))
            a, b = map(int, re.search(r"What is (\d+) \+ (\d+)", prompt).groups())
            right = f"Response: It is {a + b}." in prompt and (a, b) != (2, 2)
            yield request, Completion(f"Judgment: {'correct' if right else 'incorrect'}", 5, 20, "stop")


@pytest.fixture
def run(tmp_path):
    """Return a function that runs refine on four sums with a critic of its own, and gives results and what was said."""

    def go(**more):
        settings = refine.Settings(type="refine", num_samples=4, critic=OtherModel(model="critic"), **more)
        rows = [question(1, 2), question(2, 2), question(3, 4), question(4, 4)]
        items = [refine.Item(row, asked_of=settings.generator) for row in rows]
        said: list[tuple[str, str]] = []

        def engine_for(contestant):
            return (Critic if contestant.model == "critic" else Generator)(contestant.model, said)

        contestant = Contestant("generator", "generator")
        evaluate([contestant], [Benchmark(settings, refine, items)], tmp_path / "eval", Helpers(engine_for))
        return read_json(tmp_path / "eval" / "generator" / "results.json")["benchmarks"]["refine"], said

    return go


def test_a_critic_of_its_own_turns_wrong_answers_right(run, tmp_path):
    results, said = run(rounds=2)
    figures = {name: one["value"] for name, one in results["metrics"].items()}
    assert figures["accuracy of first answers"] == pytest.approx(0.5)
    assert figures["accuracy after round 1"] == figures["accuracy after round 2"] == 1.0
    assert figures["wrong to right after round 1"] == 1.0 and figures["right to wrong after round 1"] == 0.0
    assert figures["revised less first answers"] == pytest.approx(0.5)
    assert results["scores"]["refine/heldout"] == {"1+2": 1.0, "2+2": 1.0, "3+4": 1.0, "4+4": 1.0}
    # 4 answers of 10 tokens; critiques of 5: 4 + 2 after a revision that is new; the revision of 2 + 2 says the same
    # again, so its critique and revision are those of the round before, which its chain counts twice
    assert figures["tokens a question"] == pytest.approx((4 * 10 + 4 * 5 + 3 * 10 + 3 * 5 + 10) / 4)
    assert {name for name, prompt in said if "Is the final answer of the response correct" in prompt} == {"critic"}
    assert {name for name, prompt in said if "Give the corrected response" in prompt} == {"generator"}
    assert not any("SECRET" in prompt for _, prompt in said)
    asked = [line["id"] for line in read_jsonl(tmp_path / "eval" / "generator" / "samples.jsonl")]
    assert len(asked) == len(said), "nothing is asked twice"


def test_votes_have_as_many_samples_as_the_tokens_buy(run):
    results, _ = run(rounds=1)
    figures = {name: one["value"] for name, one in results["metrics"].items()}
    tokens = 4 * 10 + 4 * 5 + 3 * 10
    assert figures["tokens a question"] == pytest.approx(tokens / 4)
    assert figures["votes, majority vote"] == tokens // (4 * 10) == 2
    # two votes tie where the first is wrong, and the tie goes to the first
    assert figures["majority vote at equal tokens"] == pytest.approx(0.5)
    assert figures["revised less majority vote"] == pytest.approx(0.5)
    # distinct answers are criticised once: 6 critiques over 4 samples
    assert figures["votes, self-check"] == int(tokens / (4 * 10 + 6 * 5 / 4)) == 1
    assert figures["self-check at equal tokens"] == pytest.approx(0.5)


def test_a_revision_may_make_a_right_answer_wrong():
    settings = refine.Settings(type="refine", num_samples=1)
    row = question(2, 5)
    first = answer(row, "It is 7.", num_tokens=10)
    (asked,) = refine.follow_up(settings, [first])
    critique = answer(asked.row, "The sum is 8. Judgment: incorrect", round=1, num_tokens=5)
    (asked,) = refine.follow_up(settings, [first, critique])
    assert asked.row.answer == "7" and "The sum is 8" in asked.row.question
    revision = answer(asked.row, "It is 8.", round=2, num_tokens=10)
    answered = [first, critique, revision]
    assert refine.follow_up(settings, answered) == []
    figures = refine.metrics(settings, answered)
    assert figures["right to wrong after round 1"].value == 1.0 and "wrong to right after round 1" not in figures
    assert figures["verdicts"].value == 0.0 and figures["revised less first answers"].value == -1.0


def test_an_answer_that_the_critic_lets_stand_is_not_revised_unless_all_are():
    row = question(2, 5)
    first = answer(row, "It is 7.", num_tokens=10)
    for revise, number in (("incorrect", 0), ("all", 1)):
        settings = refine.Settings(type="refine", num_samples=1, revise=revise)
        (asked,) = refine.follow_up(settings, [first])
        critique = answer(asked.row, "Judgment: correct", round=1)
        assert len(refine.follow_up(settings, [first, critique])) == number
