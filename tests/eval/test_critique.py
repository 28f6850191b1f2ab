"""Which samples are criticised, and what the critiques say."""

from data_recipes.row import Message, Row
from eval.critique import Sample, balanced, certainty, convincing_wrong, critique_row, write_critique
from eval.verifiers import verify

SUM = Row(
    id="sum",
    task="chain_sum",
    kind="domain",
    messages=[Message(role="user", content="What is 98 + 93?"), Message(role="assistant", content="191")],
    answer="191",
    verifiers=["number"],
    meta={"working": "98 + 93 = 191"},
)


def samples(*texts: str) -> list[Sample]:
    return [Sample(text, verify(SUM, text), seed) for seed, text in enumerate(texts)]


def test_the_most_frequent_wrong_answer_comes_first_and_unparsed_ones_never():
    wrong = convincing_wrong(samples("181", "no idea", "200", "191", "It is 181.", "no idea", "no idea"))
    assert [(sample.verdict.answer, sample.seed) for sample in wrong] == [("181", 0), ("200", 2)]


def test_certainty_is_the_lead_of_the_most_frequent_answer():
    assert certainty(samples("191", "191", "191", "181")) == 0.5
    assert certainty(samples("191", "181")) == 0.0
    assert certainty(samples("no", "idea")) == 0.0


def test_classes_are_balanced_and_questions_with_both_come_first():
    chosen = balanced(
        {
            "only right": samples("191", "191"),
            "both": samples("191", "181", "181", "7"),
            "only wrong": samples("5", "6", "6"),
            "also only wrong": samples("5"),
            "unparsed": samples("none"),
        },
        limit=10,
    )
    assert [(question, sample.verdict.score) for question, sample in chosen] == [
        ("both", 1.0),
        ("both", 0.0),
        ("only right", 1.0),
        ("only wrong", 0.0),
    ]
    assert chosen[1][1].verdict.answer == "181" and chosen[3][1].verdict.answer == "6"
    assert len(balanced({str(i): samples("191", "181") for i in range(9)}, limit=5)) == 4


def test_a_critique_names_the_working_the_wrong_value_and_the_verdict():
    right, wrong = samples("191", "The answer is 181.")
    assert (
        write_critique(SUM, right.verdict) == "The response says 191. 98 + 93 = 191. The two agree.\nJudgment: correct"
    )
    assert write_critique(SUM, wrong.verdict) == (
        "The response says 181. 98 + 93 = 191. 181 is 10 too low.\nJudgment: incorrect"
    )
    row = critique_row(SUM, wrong, "model", 0.25)
    assert (row.task, row.kind, row.answer, row.verifiers) == (
        "critique/chain_sum",
        "critique",
        "incorrect",
        ["verdict"],
    )
    assert "What is 98 + 93?" in row.question and "The answer is 181." in row.question
    assert verify(row, row.target).score == 1.0
    assert "191" not in row.question, "the truth must not reach the prompt"
