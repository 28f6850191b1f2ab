"""Critique benchmarks on the published sets: how many items, in what balance, and nothing of the truth in a prompt."""

from collections import Counter

import pytest

from data_recipes.row import Row
from data_recipes.validation import parse_yaml
from eval.benchmarks import Item, bigbench_mistake, critic_gsm8k, critic_truthfulqa, realcritic
from eval.halved_sets import records_of

pytestmark = pytest.mark.data


def rows_of(module) -> list[Row]:
    made = module.items(module.Settings(type=module.__name__.rpartition(".")[2]), None)
    return [one.row if isinstance(one, Item) else one for one in made]


def test_the_labelled_solutions_are_those_that_were_published():
    records = records_of(critic_gsm8k.SET, "question", None, False, critic_gsm8k.SOURCE)
    right = Counter(record["model"] for record in records if record["is_correct"])
    assert len(records) == 5276 and round(100 * right.total() / 5276, 1) == 37.9
    assert {model: round(100 * count / 1319, 1) for model, count in right.items()} == {
        "6b_finetuning": 21.7,
        "6b_verification": 39.0,
        "175b_finetuning": 34.7,
        "175b_verification": 56.3,
    }


def test_critic_gsm8k_is_two_solutions_of_each_question_with_both_and_every_certainty_is_met():
    rows = rows_of(critic_gsm8k)
    assert Counter(row.answer for row in rows) == {"correct": 731, "incorrect": 731}
    by_question = Counter((row.meta["cluster"], row.answer) for row in rows)
    assert set(by_question.values()) == {1} and len({row.id for row in rows}) == 1462
    # of four answers, right and wrong ones among them, the lead is 0, 1 or 2
    assert Counter(row.meta["certainty"] for row in rows) == {0.0: 498, 0.25: 538, 0.5: 426}
    assert all("<<" not in row.question for row in rows)
    by_source = Counter((row.meta["source"], row.answer) for row in rows)
    assert (by_source["175b_verification", "correct"], by_source["6b_finetuning", "correct"]) == (345, 63)
    guessed = sum(max(by_source[name, "correct"], by_source[name, "incorrect"]) for name in {n for n, _ in by_source})
    assert guessed == 1044, "what guessing by source would get of 1,462: see docs/critique-benchmarks.md"


def test_a_wrong_solution_never_gives_the_right_answer_and_the_prompts_do_not_name_it():
    truths = {
        f"gsm8k/{record['key'].partition('/')[0]}": record["answer"]
        for record in records_of(critic_gsm8k.SET, "question", None, False, critic_gsm8k.SOURCE)
    }
    for row in rows_of(critic_gsm8k):
        asked = row.question.rpartition("\n\nQuestion: ")[2]
        last = asked.removesuffix("\n\nCritique:").splitlines()[-1]
        assert last.startswith("A:") and "Judgment" not in asked
        assert (last == f"A: {truths[row.meta['cluster']]}") <= (row.answer == "correct")


def test_critic_truthfulqa_is_a_true_and_a_false_answer_to_each_question():
    rows = rows_of(critic_truthfulqa)
    assert Counter(row.answer for row in rows) == {"correct": 813, "incorrect": 813}
    assert Counter(Counter(row.meta["cluster"] for row in rows).values()) == {2: 813}
    asked = [row.question.rpartition("\n\nQuestion: ")[2] for row in rows]
    assert len(set(asked)) == 1626, "no answer is both true and false"
    longer = sum(len(true) > len(false) for true, false in zip(asked[::2], asked[1::2], strict=True))
    equal = sum(len(true) == len(false) for true, false in zip(asked[::2], asked[1::2], strict=True))
    assert (longer + equal / 2) / 813 < 0.6, "guessing the longer answer gets less than it would by chance (0.63)"


def test_realcritic_has_seven_sets_about_half_right():
    rows = rows_of(realcritic)
    counts = Counter(row.task.removeprefix("realcritic/") for row in rows)
    assert counts == {
        "arc-challenge": 263,
        "college_math": 279,
        "gsm8k": 273,
        "math": 268,
        "minerva_math": 261,
        "mmlu_stem": 292,
        "olympiadbench": 267,
    }
    right = Counter(row.task.removeprefix("realcritic/") for row in rows if row.meta["shown_right"])
    assert all(abs(right[name] - counts[name] / 2) < 1 for name in counts) and len({row.id for row in rows}) == 1903
    lettered = {row.task for row in rows if row.verifiers == ["choice"]}
    assert lettered == {"realcritic/arc-challenge", "realcritic/mmlu_stem"}
    assert all(len(row.meta["options"]) in (3, 4) and row.answer in "ABCD" for row in rows if row.task in lettered)
    assert all("gt_cot" not in row.meta and row.target is None for row in rows)


def test_bigbench_mistake_is_2186_chains_of_which_478_hold_no_mistake():
    rows = rows_of(bigbench_mistake)
    assert Counter(row.task.removeprefix("bigbench_mistake/") for row in rows) == {
        "dyck_languages": 986,
        "logical_deduction": 300,
        "multistep_arithmetic": 300,
        "tracking_shuffled_objects": 300,
        "word_sorting": 300,
    }
    without = Counter(row.task.removeprefix("bigbench_mistake/") for row in rows if row.answer == "none")
    assert without == {
        "dyck_languages": 336,
        "logical_deduction": 6,
        "multistep_arithmetic": 62,
        "tracking_shuffled_objects": 40,
        "word_sorting": 34,
    }
    assert all(row.answer == "none" or 1 <= int(row.answer) <= row.meta["num_steps"] for row in rows)
    assert sum(len(row.question) > 10_000 for row in rows) == 3
    examples = parse_yaml(bigbench_mistake.EXAMPLES.read_text(), "examples")
    shown = {one["question"] for of_task in examples.values() for one in of_task}
    assert len(shown) == 15 and shown.isdisjoint(row.meta["question"] for row in rows)
