"""LLMBar: pairs in both orders, the letters read from what judges write, and the figures of hand-made judgments."""

import json
from math import isclose

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from data_recipes.validation import validated
from eval.benchmarks import Answered
from eval.benchmarks.llmbar import SUBSETS, Settings, items, metrics
from eval.verifiers import Verdict, verify
from eval.verifiers.preference import EXTRACTIONS, read

PAIRS = [
    {"input": "Name a fruit.", "output_1": "Apple.", "output_2": "A {input} brick.", "label": 1},
    {"input": "Name a fish.", "output_1": "A cow.", "output_2": "A cod.", "label": 2},
]


@pytest.fixture
def write_subset(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))

    def write(pairs, subset="Natural"):
        path = tmp_path / "llmbar" / "Dataset" / SUBSETS[subset] / "dataset.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pairs if isinstance(pairs, str) else json.dumps(pairs))
        return items(Settings(type="llmbar", subsets=[subset]), None)

    return write


def judged(row, text, sample=0):
    verdict = verify(row, text)
    score = 0.5 if verdict.score is None else verdict.score
    return Answered(row, 0, sample, text, "stop", verdict, score)


def test_every_pair_is_asked_in_both_orders_and_the_letter_turns_with_it(write_subset):
    rows = write_subset(PAIRS)
    assert [(row.id, row.answer) for row in rows] == [
        ("llmbar/Natural/0/given", "A"),
        ("llmbar/Natural/0/swapped", "B"),
        ("llmbar/Natural/1/given", "B"),
        ("llmbar/Natural/1/swapped", "A"),
    ]
    given, swapped = rows[0].question, rows[1].question
    assert given.index("Apple.") < given.index("# Output (b)") < given.index("A {input} brick.")
    assert swapped.index("A {input} brick.") < swapped.index("# Output (b)") < swapped.index("Apple.")


def test_the_gold_label_never_reaches_the_prompt(write_subset):
    turned = [{**pair, "label": 3 - pair["label"]} for pair in PAIRS]
    before, after = write_subset(PAIRS), write_subset(turned)
    assert [row.prompt for row in before] == [row.prompt for row in after]
    assert [row.answer for row in before] != [row.answer for row in after]


def test_pairs_that_share_an_instruction_are_one_cluster(write_subset):
    rows = write_subset([*PAIRS, {**PAIRS[0], "output_2": "Pear."}])
    clusters = {row.id: row.meta["cluster"] for row in rows}
    assert clusters["llmbar/Natural/0/given"] == clusters["llmbar/Natural/2/swapped"]
    assert len(set(clusters.values())) == 2


def test_a_judge_who_always_takes_the_first_is_half_right_never_consistent_and_all_bias(write_subset):
    rows = write_subset([PAIRS[0], PAIRS[1]] + [{**PAIRS[0], "input": f"Name {n}."} for n in range(8)])
    found = metrics(Settings(type="llmbar", subsets=["Natural"]), [judged(row, "Output (a)") for row in rows])
    assert (found["accuracy"].value, found["swap consistency"].value, found["first shown chosen"].value) == (0.5, 0, 1)
    assert found["right in both orders"].value == 0 and found["right in both orders"].high > 0.2  # 0 of 10 is no proof
    assert isclose(found["kappa"].value, 0.0, abs_tol=1e-12)
    assert found["swap consistency, Natural"] == found["swap consistency"] and found["swap consistency"].n == 10


def test_a_perfect_judge_has_kappa_one(write_subset):
    rows = write_subset(PAIRS)
    found = metrics(Settings(type="llmbar"), [judged(row, f"Output ({row.answer.lower()})") for row in rows])
    assert found["accuracy"].value == found["right in both orders"].value == found["swap consistency"].value == 1
    assert found["kappa"].value == found["kappa between orders"].value == 1
    assert found["first shown chosen"].value == 0.5


def test_unread_judgments_are_no_agreement_and_no_choice(write_subset):
    rows = write_subset(PAIRS)
    texts = ["Output (a)", "both", "both", ""]
    found = metrics(Settings(type="llmbar"), [judged(row, text) for row, text in zip(rows, texts, strict=True)])
    assert found["accuracy"].value == (1 + 3 * 0.5) / 4  # under the policy that an unread one is worth a guess
    assert found["swap consistency"].value == 0
    assert found["first shown chosen"].value == 1 and "kappa between orders" not in found
    # right: one of "1"; gold 1, 1, 2, 2; judged 1, None, None, None
    assert isclose(found["kappa"].value, (1 / 4 - 1 / 8) / (1 - 1 / 8))


def test_a_pair_of_which_one_order_is_missing_counts_for_accuracy_only(write_subset):
    rows = write_subset(PAIRS)
    found = metrics(Settings(type="llmbar"), [judged(row, "Output (a)") for row in rows[:3]])
    assert found["accuracy"].n == 3 and found["swap consistency"].n == 1
    assert metrics(Settings(type="llmbar"), []) == {}


def test_samples_are_paired_with_their_own_kind(write_subset):
    rows = write_subset(PAIRS[:1])
    answers = [judged(rows[0], "Output (a)", 0), judged(rows[1], "Output (b)", 0)]  # the first output, twice
    answers += [judged(rows[0], "Output (a)", 1), judged(rows[1], "Output (a)", 1)]  # the first place, twice
    assert metrics(Settings(type="llmbar"), answers)["swap consistency"].value == 0.5


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ('{"not": "closed"', "not valid JSON"),
        ("[1, 2]", "no JSON object"),
        ([{**PAIRS[0], "label": 0}], "its label is 0, not 1 or 2"),
        ([{**PAIRS[0], "label": "both"}], "its label is 'both', not 1 or 2"),
        ([{**PAIRS[0], "label": None}], "its label is None, not 1 or 2"),
        ([{**PAIRS[0], "label": True}], "its label is True, not 1 or 2"),
        ([{k: v for k, v in PAIRS[0].items() if k != "output_2"}], "has no text 'output_2'"),
        ([{**PAIRS[0], "input": ["Name a fruit."]}], "has no text 'input'"),
        ([PAIRS[1], {**PAIRS[0], "output_1": None}], "record 1 has no text 'output_1'"),
    ],
)
def test_a_damaged_set_is_one_sentence_that_names_the_place(write_subset, pairs, problem):
    with pytest.raises(UserError) as error:
        write_subset(pairs)
    assert problem in str(error.value) and "Natural" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_set_and_an_unknown_subset_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        items(Settings(type="llmbar"), None)
    with pytest.raises(UserError, match="no subset 'Neighbour'.*did you mean 'Neighbor'"):
        validated(Settings, {"type": "llmbar", "subsets": ["Neighbour"]}, "experiment.yaml")


ROW = Row(
    id="one",
    task="t",
    kind="critique",
    messages=[Message(role="user", content="?")],
    answer="A",
    verifiers=["preference"],
)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Output (a)", "A"),
        ("**Output (b)**", "B"),
        ("Output (a) is better than Output (b).", "A"),
        ("Output (b) is short.\nTherefore, Output (a) is the better one.", "A"),
        ("I would say that output (b) follows it.", "B"),
        ("(b)", "B"),
        ("A.", "A"),
        ("Decision: C", "C"),
        ("**Decision:** B, since A rambles", "B"),
        ("Decision: A\nNo, wait.\nDecision: B", "B"),
        ("[[A]]", "A"),
        ("Both Output (a) and Output (b) are fine.", None),
        ("Decision: A/B/C.", None),
        ("A good question.", None),
        ("", None),
        ("\0\x1b[2J<script>", None),
        ("Output " * 100_000, None),
        ("[[" * 500_000, None),
    ],
)
def test_the_letter_a_judge_settles_on(text, letter):
    assert read(text, ROW) == letter
    assert verify(ROW, text) == Verdict(None if letter is None else float(letter == "A"), letter)


def test_the_published_readings_are_kept_beside_ours():
    vanilla, compat = EXTRACTIONS["vanilla"], EXTRACTIONS["compat"]
    assert vanilla("I choose\n Output (b)", ROW) == "B" and vanilla("It is Output (b)", ROW) is None
    assert vanilla("Output (b)\nOutput (a)", ROW) == "A"  # (a) is looked for first
    assert compat("Decision: A/B/C.", ROW) == "A" and compat("A good one.", ROW) == "A"
    assert compat("**Decision:** B", ROW) is None  # the label is looked for with its space
    assert compat("So: Decision: A, or Decision: B", ROW) == "B" and compat("Decision:", ROW) is None
