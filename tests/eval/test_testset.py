"""Sets are asked with options, clusters and tasks; what is wrong with settings or rows is said in one sentence."""

import json

import pytest

from data_recipes.errors import UserError
from data_recipes.halves import half_of
from data_recipes.validation import validated
from eval.benchmarks import Answered, Item, load_benchmark
from eval.verifiers import verify

testset = load_benchmark("testset")
CANARY = "KEEP OUT OF TRAINING\n-----\n"
TABLE = {
    "table": {"uid": "t1", "table": [["", "2019"], ["Sales", "10"]]},
    "paragraphs": [{"order": 1, "text": "Text."}],
}
FILES = {
    "gsm8k/test.jsonl": [{"question": f"How many are {n} and {n}?", "answer": f"Add.\n#### {2 * n}"} for n in range(8)],
    "mmlu_pro/test/a.jsonl": [
        {"question_id": 1, "question": "Which?", "options": ["x", "y", "z"], "answer": "B"},
        {"question_id": 2, "question": "Which?", "options": ["x", "y", "z"], "answer": "B"},
        {"question_id": 3, "question": "Which?", "options": ["u", "v"], "answer": "A"},
    ],
    "math/math.jsonl": [{"problem": "Halve 1.", "solution": "It is $\\boxed{\\frac{1}{2}}$."}],
    "math/asdiv.jsonl": [
        {"body": "Two and two.", "question": "How many?", "answer": "4 (apples)"},
        {"body": "Ann is first.", "question": "Who?", "answer": "Ann"},
    ],
    "bbh/bbh/navigate.json": {
        "examples": [{"input": "Back?\nOptions:\n- Yes\n- No", "target": "Yes"}, {"input": "And now?", "target": "No"}]
    },
    "bbh/bbh/snarks.json": {"examples": [{"input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(B)"}]},
    "bbh/cot-prompts/navigate.txt": f"{CANARY}Walk.\n\nQ: Here?\nA: Let's think step by step.\nSo the answer is No.\n",
    "bbh/cot-prompts/snarks.txt": f"{CANARY}Laugh.\n\nQ: This?\nA: Let's think step by step.\nSo the answer is (A).\n",
    "code_and_format/input_data.jsonl": [
        {
            "key": 1,
            "prompt": "Write two words without commas.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{}, {"relation": "less than", "num_words": 3}],
        }
    ],
    "pubmedqa/ori_pqal.json": {
        "1": {"QUESTION": "Does it?", "CONTEXTS": ["It may."], "final_decision": "maybe"},
        "2": {"QUESTION": "Is it?", "CONTEXTS": ["It is."], "final_decision": "yes"},
    },
    "pubmedqa/test_ground_truth.json": {"1": "maybe"},
    "tatqa/tatqa_dataset_dev.json": [
        {
            **TABLE,
            "questions": [
                {"question": "Change?", "answer": -2.5, "answer_type": "arithmetic", "scale": "percent"},
                {"question": "Which years?", "answer": ["2019", "2018"], "answer_type": "multi-span", "scale": ""},
            ],
        }
    ],
    "tatqa/tatqa_dataset_test_gold.json": [
        {**TABLE, "questions": [{"question": "How many?", "answer": "3", "answer_type": "count", "scale": ""}]}
    ],
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of small files in the published layouts."""
    for name, content in FILES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(line) + "\n" for line in content))
        else:
            path.write_text(json.dumps(content))
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def mixture(tmp_path):
    """The folder of a mixture that trained on the training half of two sets."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "manifest.json").write_text(json.dumps({"halves_trained_on": ["gsm8k", "tatqa"]}))
    return tmp_path / "m"


def asked(name: str, mixture=None, **settings) -> list:
    return testset.items(testset.Settings(type="testset", set=name, **settings), mixture)


def test_without_a_mixture_the_whole_set_is_asked_and_with_one_the_half_it_left(data, mixture):
    assert len(asked("gsm8k")) == len(asked("gsm8k", full=True)) == 8
    half = [row.question for row in asked("gsm8k", mixture)]
    assert half == [f["question"] for f in FILES["gsm8k/test.jsonl"] if half_of(f["question"]) == "heldout"]
    assert 0 < len(half) < 8
    assert len(asked("mmlu_pro", mixture, full=True)) == 3  # nothing was trained on


def test_the_items_asked_are_spread_by_a_hash_and_stay_the_same(data):
    some = [row.id for row in asked("gsm8k", items=3)]
    assert len(some) == 3 and some == [row.id for row in asked("gsm8k", items=3)]
    assert set(some) < {row.id for row in asked("gsm8k", items=5)}


def test_rows_carry_options_clusters_and_the_text_of_the_right_answer(data):
    first, second, other = asked("mmlu_pro")
    assert first.meta["gold_text"] == "y" and first.meta["options"] == ["x", "y", "z"]
    assert first.meta["cluster"] == second.meta["cluster"] != other.meta["cluster"]  # the same question twice
    (row,) = asked("pubmedqa")
    assert row.meta["options"] == ["yes", "no", "maybe"] and verify(row, "It is unclear: maybe.").score == 1
    number, count = asked("tatqa")
    (spans,) = asked("tatqa/spans")
    assert number.meta["cluster"] == count.meta["cluster"] == spans.meta["cluster"]  # one table
    assert spans.meta["gold_text"] == "2019; 2018" and "options" not in number.meta
    assert verify(number, "-2.5%").score == verify(count, "3").score == verify(spans, "2018; 2019").score == 1


def test_big_bench_hard_has_a_task_each_and_its_published_prompt(data):
    yes, no, letter = asked("bbh")
    assert [row.task for row in (yes, no, letter)] == ["bbh/navigate", "bbh/navigate", "bbh/snarks"]
    assert (yes.meta["options"], letter.meta["options"]) == (["yes", "no"], ["this", "that"])
    assert letter.meta["gold_text"] == "that"
    item = asked("bbh", cot=True)[0]
    assert isinstance(item, Item) and item.stop == ("\n\nQ:",) and item.row.task == "bbh/navigate"
    assert item.row.prompt[0]["content"] == (
        "Walk.\n\nQ: Here?\nA: Let's think step by step.\nSo the answer is No.\n\n"
        "Q: Back?\nOptions:\n- Yes\n- No\nA: Let's think step by step."
    )
    assert verify(item.row, "I turn. So the answer is Yes.").score == 1


def test_mathematics_is_judged_by_the_box_of_the_solution_and_words_are_left_unjudged(data):
    (row,) = asked("math")
    assert row.meta["question"] == "Halve 1." and verify(row, "So \\boxed{0.5}.").score == 1
    assert [row.answer for row in asked("asdiv")] == ["4"]


def test_the_other_accuracies_of_ifeval_stand_beside_the_score(data):
    (row,) = asked("ifeval")
    settings = testset.Settings(type="testset", set="ifeval")

    def said(completion: str) -> dict[str, float]:
        verdict = verify(row, completion)
        answered = [Answered(row, 0, 0, completion, "stop", verdict, verdict.score or 0.0)]
        return {name: metric.value for name, metric in testset.metrics(settings, answered).items()}

    assert said("Good morning") == {"prompts, loose": 1, "instructions, strict": 1, "instructions, loose": 1}
    # the first line is one too much, and holds the comma
    assert said("Sure, here:\nGood day") == {"prompts, loose": 1, "instructions, strict": 0, "instructions, loose": 1}
    assert said("Good, good day") == {"prompts, loose": 0, "instructions, strict": 0, "instructions, loose": 0}
    assert said("") == {"prompts, loose": 0, "instructions, strict": 0, "instructions, loose": 0}
    (spans,) = asked("tatqa/spans")
    half = [Answered(spans, 0, 0, "2018", "stop", verify(spans, "2018"), 0.0)]
    metric = testset.metrics(testset.Settings(type="testset", set="tatqa/spans"), half)["F1"]
    assert metric.value == pytest.approx(0.67) and metric.low <= metric.value <= metric.high and metric.n == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "set"),
        ({"set": ["gsm8k"]}, "set"),
        ({"set": "gsm8k", "items": -1}, "items"),
        ({"set": "gsm8k", "items": "many"}, "items"),
        ({"set": "gsm8k", "itmes": 3}, "did you mean 'items'"),
        ({"set": "gsm8k", "full": "perhaps"}, "full"),
        ({"set": "bbh", "cot": 3}, "cot"),
        ({"set": "gsm8k", "max_tokens": 0}, "max_tokens"),
        ({"set": "gsm8k", "num_samples": 0}, "num_samples"),
        ({"set": "gsm8k", "temperature": -1}, "temperature"),
        ({"set": "gsm8k", "on_failure": "gess"}, "on_failure"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(given, says):
    with pytest.raises(UserError, match=says) as caught:
        validated(testset.Settings, {"type": "testset", **given}, "run.yaml, eval.benchmarks.0")
    assert "\n" not in str(caught.value) and "run.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"set": "gsm9k"}, "unknown evaluation set 'gsm9k' .did you mean 'gsm8k'"),
        ({"set": ""}, "unknown evaluation set ''"),
        ({"set": "tatqa/span"}, "did you mean 'tatqa/spans'"),
        ({"set": "truthfulqa"}, "truthfulqa: nothing judges these items; choose one of gsm8k"),
        ({"set": "gsm8k_solutions"}, "nothing judges these items"),
        ({"set": "asdiv/words"}, "nothing judges these items"),
        ({"set": "gsm8k", "cot": True}, "gsm8k: cot: no published prompts"),
        ({"set": "gsm8k", "full": True}, "gsm8k: the model was trained on half of this set"),
        ({"set": "tatqa/spans", "full": True}, "tatqa: the model was trained on half of this set"),
    ],
)
def test_sets_that_cannot_be_asked_are_refused_in_one_sentence(data, mixture, settings, says):
    with pytest.raises(UserError, match=says) as caught:
        asked(settings.pop("set"), mixture, **settings)
    assert "\n" not in str(caught.value)


def line(**columns) -> str:
    return json.dumps(columns) + "\n"


def ifeval(instructions, kwargs) -> str:
    return line(key=1, prompt="Write.", instruction_id_list=instructions, kwargs=kwargs)


def tatqa(**columns) -> str:
    return json.dumps([{**TABLE, "questions": [{"question": "Which?", "scale": "", **columns}]}])


BROKEN = [
    ("gsm8k", "gsm8k/test.jsonl", None, "no such file"),
    ("gsm8k", "gsm8k/test.jsonl", "", "gives no item"),
    ("gsm8k", "gsm8k/test.jsonl", '{"question": "torn', "line 1: not a JSON object"),
    ("gsm8k", "gsm8k/test.jsonl", "[1, 2]\n", "line 1: not a JSON object"),
    ("gsm8k", "gsm8k/test.jsonl", line(question="How many?"), "does not fit the source's columns"),
    ("gsm8k", "gsm8k/test.jsonl", line(question="How many?", answer="four"), "does not fit"),
    ("gsm8k", "gsm8k/test.jsonl", b"\xff\xfe{}\n", "not UTF-8"),
    ("mmlu_pro", "mmlu_pro/test/a.jsonl", line(question="?", options=["x", "y"], answer="Z"), "'Z' is neither"),
    ("mmlu_pro", "mmlu_pro/test/a.jsonl", line(question="?", options=["x"], answer="A"), "expected 2 to 26 options"),
    ("mmlu_pro", "mmlu_pro/test/a.jsonl", line(question="?", options="xy", answer="A"), "expected 2 to 26 options"),
    ("math", "math/math.jsonl", line(problem="?"), "'solution' is undefined"),
    ("bbh", "bbh/bbh/navigate.json", '{"items": []}', "holds no key 'examples'"),
    ("bbh", "bbh/bbh/navigate.json", '{"examples": [{"input": "?"}]}', "'target' is undefined"),
    ("bbh", "bbh/bbh/navigate.json", "{", "not valid JSON"),
    ("pubmedqa", "pubmedqa/test_ground_truth.json", '{"9": "yes"}', "not PubMedQA's labelled questions"),
    (
        "pubmedqa",
        "pubmedqa/ori_pqal.json",
        '{"1": {"QUESTION": "?", "CONTEXTS": [], "final_decision": "perhaps"}}',
        "the answer 'perhaps' is no label",
    ),
    ("ifeval", "code_and_format/input_data.jsonl", ifeval(["punctuation:no_coma"], [{}]), "did you mean 'punctuation"),
    ("ifeval", "code_and_format/input_data.jsonl", ifeval(["punctuation:no_comma"], []), "of one length"),
    ("ifeval", "code_and_format/input_data.jsonl", ifeval([], []), "of one length"),
    (
        "ifeval",
        "code_and_format/input_data.jsonl",
        ifeval(["length_constraints:number_words"], [{"relation": "exactly", "num_words": 3}]),
        "relation is 'exactly'",
    ),
    ("ifeval", "code_and_format/input_data.jsonl", ifeval(["keywords:existence"], [None]), "keywords is None"),
    ("tatqa", "tatqa/tatqa_dataset_dev.json", tatqa(answer="n/a", answer_type="count"), "neither a figure"),
    ("tatqa/spans", "tatqa/tatqa_dataset_dev.json", tatqa(answer=3, answer_type="span"), "neither a figure"),
    ("tatqa", "tatqa/tatqa_dataset_dev.json", json.dumps([{**TABLE, "questions": 3}]), "holds no list of records"),
]


@pytest.mark.parametrize(("name", "file", "content", "says"), BROKEN)
def test_rows_that_cannot_be_asked_or_judged_are_named_in_one_sentence(data, name, file, content, says):
    (data / file).unlink()
    if content is not None:
        (data / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says) as caught:
        asked(name)
    assert "\n" not in str(caught.value)


def test_a_missing_prompt_or_mixture_is_named(data, tmp_path):
    (data / "bbh/cot-prompts/snarks.txt").unlink()
    with pytest.raises(UserError, match="snarks.txt: not readable .*fetch BIG-Bench Hard's cot-prompts again"):
        asked("bbh", cot=True)
    with pytest.raises(UserError, match="manifest.json: no such file"):
        asked("gsm8k", tmp_path / "nowhere")
