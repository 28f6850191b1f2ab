"""Self-check and RealCritic on toy answers: what is asked next, whose vote counts, and what a revision changed."""

import pytest
from critique_helpers import answer, manifest, rows_of, write_lines

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.benchmarks import Answered, realcritic, self_check


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    return tmp_path


# ---- self-check

SUM = Row(
    id="sum",
    task="gsm8k",
    kind="domain",
    messages=[Message(role="user", content="What is 20 + 4?"), Message(role="assistant", content="24")],
    answer="24",
    verifiers=["number"],
)
CHECK = self_check.Settings(type="self_check", set="gsm8k", num_samples=5)


def asked_again(settings, answered, judge) -> list[Answered]:
    """Answer the follow-up of `answered`, each critique with what `judge` says to the response it is shown."""
    items = self_check.follow_up(settings, answered)
    return answered + [
        answer(item.row, f"Judgment: {judge(item.row.question.rpartition('Response: ')[2])}", round=1, num_tokens=30)
        for item in items
    ]


def test_self_check_takes_the_vote_of_answers_judged_incorrect():
    texts = ["It is 20.", "20", "It is 24.", "24", "20 it is"]
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(texts)]
    # 20 leads by 3 to 2 of 5: certainty 0.2
    after = asked_again(CHECK, answered, lambda shown: "correct" if "24" in shown else "incorrect")
    assert len(after) == 10
    vote = self_check.votes(CHECK, after)["sum"]
    assert (vote.first.score, vote.majority.score, vote.checked.score) == (0, 0, 1)
    assert self_check.scores(CHECK, after) == {"self_check/gsm8k": {"sum": 1.0}}
    figures = self_check.metrics(CHECK, after)
    assert (figures["first sample"].value, figures["majority vote"].value) == (0.0, 0.0)
    found = self_check.metrics(CHECK, after)
    assert (found["self-check less majority vote"].value, found["error reduction"].value) == (1, 1)
    assert found["verdicts on checked answers"].value == 1 and found["questions checked"].value == 1
    assert found["tokens a question, majority vote"].value == 50
    assert found["tokens a question, self-check"].value == 50 + 5 * 30
    assert self_check.follow_up(CHECK, after) == []


def test_the_critic_never_sees_the_truth_and_answers_verdicts_of_its_own_row():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["20", "21"])]
    rows = rows_of(self_check.follow_up(CHECK, answered))
    assert [row.answer for row in rows] == ["incorrect", "incorrect"]
    assert all("24" not in row.question.rpartition("Question:")[2].replace("20 + 4", "") for row in rows)
    assert all(row.meta["question"] == "What is 20 + 4?" for row in rows)


def test_a_certain_question_is_not_criticised_and_the_threshold_is_a_bound_from_below():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["20", "20", "20", "24"])]  # certainty 0.5
    assert self_check.follow_up(CHECK, answered) == []
    assert len(self_check.follow_up(CHECK.model_copy(update={"certainty_below": 0.51}), answered)) == 2
    assert self_check.follow_up(CHECK.model_copy(update={"certainty_below": 0.0}), answered) == []
    assert self_check.votes(CHECK, answered)["sum"].checked.score == 0


def test_identical_answers_are_criticised_once_and_share_the_verdict():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["24", "20", "24", "20", "20"])]
    assert len(self_check.follow_up(CHECK, answered)) == 2
    after = asked_again(CHECK, answered, lambda shown: "incorrect" if shown.startswith("20") else "correct")
    vote = self_check.votes(CHECK, after)["sum"]
    assert (vote.majority.verdict.answer, vote.checked.verdict.answer, vote.critique_tokens) == ("20", "24", 60)


def test_ties_go_to_the_first_sample_and_unreadable_answers_do_not_vote():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["none", "24", "20", "20.0", "24.00"])]
    vote = self_check.votes(CHECK, answered)["sum"]
    assert (vote.majority.sample, vote.majority.score, vote.uncertain) == (1, 1.0, True)
    silent = [answer(SUM, "who knows", sample=i) for i in range(5)]
    vote = self_check.votes(CHECK, silent)["sum"]
    assert (vote.first.score, vote.majority.score, vote.checked.score) == (0, 0, 0)
    assert self_check.follow_up(CHECK, silent) == []


def test_where_all_are_judged_incorrect_or_nothing_is_said_the_majority_stands():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["20", "20", "24"])]
    for said in ("incorrect", "hm"):
        after = asked_again(CHECK, answered, lambda shown, said=said: said)
        assert self_check.votes(CHECK, after)["sum"].checked.verdict.answer == "20"


def test_self_check_does_not_depend_on_the_order_of_answers():
    answered = [answer(SUM, text, sample=i) for i, text in enumerate(["20", "24", "24", "20", "7"])]
    after = asked_again(CHECK, answered, lambda shown: "incorrect" if shown.startswith("24") else "correct")
    again = asked_again(CHECK, answered[::-1], lambda shown: "incorrect" if shown.startswith("24") else "correct")
    assert self_check.scores(CHECK, after) == self_check.scores(CHECK, again[::-1])
    ids = [row.id for row in rows_of(self_check.follow_up(CHECK, answered))]
    assert sorted(ids) == sorted(row.id for row in rows_of(self_check.follow_up(CHECK, answered[::-1])))


def test_error_reduction_is_the_share_of_the_votes_errors_that_are_saved():
    answered, judged = [], {}
    plans = {
        "saved": ("20", "24"),
        "spoilt": ("24", "20"),
        "kept": ("24", "24"),
        "lost": ("20", "20"),
        "too": ("20", "24"),
    }
    for name, (majority, after) in plans.items():
        row = SUM.model_copy(update={"id": name})
        other = "24" if majority == "20" else "20"
        answered += [answer(row, text, sample=i) for i, text in enumerate([majority, majority, other])]
        judged[name] = {majority: "correct" if after == majority else "incorrect", other: "correct"}
    after = answered + [
        answer(row, f"Judgment: {judged[row.id.split('/')[0]][row.question.rpartition('Response: ')[2][:2]]}", round=1)
        for row in rows_of(self_check.follow_up(CHECK, answered))
    ]
    found = self_check.metrics(CHECK, after)
    # majority right on 2 of 5; two saved, one spoilt
    assert found["self-check less majority vote"].value == pytest.approx(1 / 5)
    assert found["error reduction"].value == pytest.approx(1 / 3)
    assert found["self-check less majority vote"].low < 0 < found["self-check less majority vote"].high


def test_self_check_asks_a_set_and_refuses_one_that_nothing_judges(data):
    write_lines(data / "gsm8k" / "test.jsonl", [{"question": "What is 20 + 4?", "answer": "20 + 4 is 24.\n#### 24"}])
    mixture = manifest(data, [])
    rows = rows_of(self_check.items(CHECK, mixture))
    assert [(row.question, row.answer, row.verifiers) for row in rows] == [("What is 20 + 4?", "24", ["number"])]
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        self_check.items(CHECK.model_copy(update={"set": "gsmk8"}), mixture)


# ---- RealCritic


def shown(of_set: str, idx: int, right: bool, gt: str, **more) -> tuple[str, dict]:
    record = {"idx": idx, "question": f"{of_set} {idx}?", "gt": gt, "pred": "7", "model": "m", "reasoning": "It is 7."}
    return of_set, {**record, "previous_score": [right], **more}


def realcritic_rows(data, *records) -> list[Row]:
    for of_set in {of_set for of_set, _ in records}:
        write_lines(data / "realcritic" / f"{of_set}.jsonl", [one for name, one in records if name == of_set])
    return realcritic.items(realcritic.Settings(type="realcritic"), None)


FOUR = [
    shown("gsm8k", 0, False, "540"),
    shown("gsm8k", 1, True, "7"),
    shown("math", 0, False, "\\frac{1}{2}"),
    shown("arc-challenge", 0, True, "B", choices={"text": ["x", "y"], "label": ["A", "B"]}),
]


def test_realcritic_judges_the_revision_and_says_what_it_changed(data):
    rows = {row.id: row for row in realcritic_rows(data, *FOUR)}
    said = {
        "realcritic/gsm8k/0": "Step 1 is wrong.\nJudgment: incorrect\nThe final answer is \\boxed{540}.",
        "realcritic/gsm8k/1": "Judgment: incorrect\nThe final answer is \\boxed{8}.",
        "realcritic/math/0": "Judgment: correct\nThe final answer is \\boxed{7}.",
        "realcritic/arc-challenge/0": "All is well. The final answer is \\boxed{B}.",
    }
    answered = [answer(row, said[row.id]) for row in rows.values()]
    settings = realcritic.Settings(type="realcritic")
    assert realcritic.scores(settings, answered) == {
        "realcritic/arc-challenge": {"realcritic/arc-challenge/0": 1.0},
        "realcritic/gsm8k": {"realcritic/gsm8k/0": 1.0, "realcritic/gsm8k/1": 0.0},
        "realcritic/math": {"realcritic/math/0": 0.0},
    }
    found = {name: metric.value for name, metric in realcritic.metrics(settings, answered).items()}
    assert found == {
        "gain": 0.0,
        "judgment": pytest.approx(1 / 3),
        "judgment given": 0.75,
        "wrong to right": 0.5,
        "right to wrong": 0.5,
        "right to wrong, arc-challenge": 0.0,
        "wrong to right, gsm8k": 1.0,
        "right to wrong, gsm8k": 1.0,
        "wrong to right, math": 0.0,
    }
    assert realcritic.follow_up(settings, answered) == []
    assert all("540" not in row.question and "1}{2" not in row.question for row in rows.values())
    assert rows["realcritic/arc-challenge/0"].meta["options"] == ["x", "y"]


def test_realcritic_rounds_go_on_with_each_conversation_and_the_last_one_counts(data):
    (row,) = realcritic_rows(data, shown("gsm8k", 0, False, "540"))
    settings = realcritic.Settings(type="realcritic", rounds=3)
    answered = [answer(row, f"The final answer is \\boxed{{{n}}}.", sample=i) for i, n in enumerate((1, 540))]
    for number in (1, 2):
        items = realcritic.follow_up(settings, answered)
        assert [item.num_samples for item in items] == [1, 1] and len({item.row.id for item in items}) == 2
        assert [turn["role"] for turn in items[0].row.prompt] == ["user", "assistant"] * number + ["user"]
        assert items[0].row.prompt[-2]["content"] == answered[-2].completion
        said = ("\\boxed{540}", "\\boxed{2}")
        answered += [answer(item.row, text, round=number) for item, text in zip(items, said, strict=True)]
    assert realcritic.follow_up(settings, answered) == []
    assert realcritic.scores(settings, answered) == {"realcritic/gsm8k": {"realcritic/gsm8k/0": 0.5}}
    found = realcritic.metrics(settings, answered)
    assert found["accuracy after round 1"].value == found["accuracy after round 2"].value == 0.5
    assert len({one.row.id for one in answered}) == 5, "one item of two samples, then two conversations in two rounds"
