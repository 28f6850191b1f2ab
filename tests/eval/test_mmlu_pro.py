"""MMLU-Pro: the letters are those of the official patterns, the prompts those of the official scripts and lm-eval."""

import json
import random
import re
import time
from pathlib import Path

import pytest

from data_recipes.errors import UserError
from data_recipes.validation import validated
from eval.benchmarks import Answered, load_benchmark
from eval.benchmarks.mmlu_pro import Settings, items, metrics
from eval.mmlu_pro import FORMATS, INSTRUCTIONS, STYLES, fitting
from eval.verifiers import Verdict, load_verifier
from eval.verifiers.mmlu_pro import EARLY, EXTRACTIONS, STOPS, read, score

OFFICIAL_PATTERNS = (
    re.compile(r"answer is \(?([A-J])\)?"),
    re.compile(r".*[aA]nswer:\s*([A-J])"),
    re.compile(r"(\b[A-J]\b)(?!.*\b[A-J]\b)", re.DOTALL),
)
PIECES = [*"ABJK \n\t\r(_*x)", "answer is ", "answer is (", "answer:", "Answer: ", "nswer:", "**", "é", "\u2028", " I "]


def official(text: str, levels: int, last: bool) -> str | None:
    for pattern in OFFICIAL_PATTERNS[:levels]:
        found = pattern.findall(text)
        if found:
            return found[-1 if last else 0]
    return None


def random_texts(count: int, seed: int):
    rng = random.Random(seed)
    return ["".join(rng.choices(PIECES, k=rng.randrange(14))) for _ in range(count)]


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_every_chain_reads_what_the_official_patterns_read(levels, last):
    extract = EXTRACTIONS[f"L{levels}" + "-last" * last]
    texts = random_texts(20_000, seed=levels + 3 * last)
    wanted = [official(text, levels, last) for text in texts]
    assert [extract(text, None) for text in texts] == wanted
    assert 1000 < sum(letter is not None for letter in wanted) < 19_000


def test_the_default_is_the_official_three_steps_and_the_api_scripts_delete_bold_marks_first():
    texts = random_texts(2000, seed=7)
    assert [read(text, None) for text in texts] == [official(text, 3, False) for text in texts]
    plain = [text.replace("**", "") for text in texts]
    assert [EXTRACTIONS["api"](text, None) for text in texts] == [official(text, 3, False) for text in plain]
    assert [EXTRACTIONS["api-last"](text, None) for text in texts] == [official(text, 3, True) for text in plain]


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("The answer is (C).", "C"),
        (" The answer is D", "D"),
        ("B", "B"),
        (" (B)\n\nQuestion:", "B"),
        ("**G**", "G"),
        ("E. because I say so", "E"),
        ("A cell. The answer is (F).", "F"),
        ("the Answer: J", "J"),
        ("A cell divides", None),
        ("I think it is the third", None),
        ("K", None),
        ("", None),
    ],
)
def test_a_direct_answer_is_read_at_its_head_where_nothing_announces_it(completion, letter):
    assert EXTRACTIONS["direct"](completion, None) == letter


HOSTILE = {
    "one long line of labels": "answer: " * 125_000,
    "labels without letters": "answer:" * 140_000 + "K",
    "a label and a million spaces": ("answer:" + " " * 500_000) * 2,
    "labels on lines": "answer:\n" * 125_000,
    "stand-alone letters": "A " * 500_000,
    "no letter alone": "A" * 1_000_000,
    "announcements without letters": "answer is (" * 90_000,
    "announcements": "answer is (A" * 80_000,
    "brackets": "(" * 1_000_000,
    "empty lines": "\n" * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_is_read_in_linear_time(text):
    start = time.process_time()
    for extract in EXTRACTIONS.values():
        extract(text, None)
    assert time.process_time() - start < 3  # the official patterns take hours


def cut_at_first_stop(text: str) -> str:
    ends = [text.find(stop) + len(stop) for stop in STOPS if stop in text]
    return text[: min(ends)] if ends else text


def test_nothing_after_the_first_stop_changes_an_early_extraction():
    early = {name: EXTRACTIONS.get(name, read) for name in EARLY}
    texts = random_texts(20_000, seed=5)
    cut = [cut_at_first_stop(text) for text in texts]
    assert sum(one != other for one, other in zip(texts, cut, strict=True)) > 500
    for name, extract in early.items():
        assert [extract(text, None) for text in cut] == [extract(text, None) for text in texts], name
    assert set(EXTRACTIONS) - set(EARLY) == {"L1-last", "L2-last", "L3-last", "api-last"}
    assert EXTRACTIONS["L3-last"]("answer is A, no, answer is B", None) != EXTRACTIONS["L3-last"]("answer is A", None)
    assert all(EXTRACTIONS["L1"](stop, None) == stop[-1] for stop in STOPS) and len(STOPS) == 20


def record(number: int, category: str = "math", **changes) -> dict:
    made = {"question_id": number, "question": f"What is {number}?", "options": [" one", "two", "three"], "answer": "A"}
    return {**made, "category": category, "src": "toy", **changes}


def worked(number: int, category: str = "math") -> dict:
    said = f"A: Let's think step by step. It is {number}. The answer is (B)."
    return record(number, category, answer="B", cot_content=said, question=f"Example {number}?")


@pytest.fixture
def data(tmp_path: Path, monkeypatch):
    """Write a small data set in the layout of WHETSTONE_DATA; returns a function (test records, validation records)."""

    def write(test: list, validation: list) -> None:
        (tmp_path / "mmlu_pro/test").mkdir(parents=True, exist_ok=True)
        for name, records in (("test/all", test), ("validation_cot", validation)):
            lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
            (tmp_path / f"mmlu_pro/{name}.jsonl").write_text("\n".join(lines) + "\n")

    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    return write


def settings(**given) -> Settings:
    return validated(Settings, {"type": "mmlu_pro", **given}, "experiment.yaml")


def asked(**given) -> list[str]:
    return [item.row.messages[0].content for item in items(settings(**given), None)]


ABOUT = "The following are multiple choice questions (with answers) about math."


def test_the_default_prompt_is_the_official_one_with_the_options_stripped(data):
    data([record(1)], [worked(8), worked(9), worked(7, "law")])
    assert asked() == [
        f'{ABOUT} Think step by step and then finish your answer with "the answer is (X)" where X is the correct letter'
        " choice.\n\n\n\n"
        "Question:\nExample 8?\nOptions:\nA. one\nB. two\nC. three\n"
        "Answer: Let's think step by step. It is 8. The answer is (B).\n\n"
        "Question:\nExample 9?\nOptions:\nA. one\nB. two\nC. three\n"
        "Answer: Let's think step by step. It is 9. The answer is (B).\n\n"
        "Question:\nWhat is 1?\nOptions:\nA. one\nB. two\nC. three\n"
        "Answer: Let's think step by step."
    ]
    (item,) = items(settings(), None)
    assert item.stop == ("Question:",) and item.row.answer == "A" and item.row.verifiers == ["mmlu_pro"]
    assert item.row.id == "mmlu_pro/1" and item.row.task == "mmlu_pro/math"
    meta = item.row.meta
    assert (meta["options"], meta["gold_text"], meta["num_shots"]) == (["one", "two", "three"], "one", 2)
    assert (meta["category"], meta["src"], meta["licence"], meta["style"]) == ("math", "toy", "MIT", 0)


def test_the_official_local_prompt_keeps_the_space_that_gives_answers_away(data):
    data([record(1, options=[" one", "N/A", "two"])], [worked(8)])
    (text,) = asked(compat="official-local", max_prompt_tokens=0)
    assert text == asked()[0].replace("A. one", "A.  one") and "N/A" not in text


def test_the_official_api_prompt_has_its_own_sentence_and_the_first_option_on_the_line_of_the_word_options(data):
    data([record(1)], [worked(8)])
    assert asked(compat="official-api") == [
        f'{ABOUT} Think step by step and then output the answer in the format of "The answer is (X)" at the end.\n\n'
        "Question: Example 8?\nOptions: A.  one\nB. two\nC. three\n"
        "Answer: Let's think step by step. It is 8. The answer is (B).\n\n"
        "Question: What is 1?\nOptions: A.  one\nB. two\nC. three\n"
        "Answer: Let's think step by step.\n\n"
    ]
    assert items(settings(compat="official-api"), None)[0].stop == ()


def test_the_lm_eval_prompt_has_one_line_break_after_the_instruction_and_keeps_options_that_are_not_available(data):
    data([record(1, options=[" one", "N/A "])], [worked(8)])
    assert asked(compat="lm-eval") == [
        f'{ABOUT} Think step by step and then finish your answer with "the answer is (X)" where X is the correct letter'
        " choice.\n"
        "Question:\nExample 8?\nOptions:\nA. one\nB. two\nC. three\n"
        "Answer: Let's think step by step. It is 8. The answer is (B).\n\n"
        "Question:\nWhat is 1?\nOptions:\nA. one\nB. N/A\n"
        "Answer: Let's think step by step."
    ]
    assert items(settings(compat="lm-eval"), None)[0].stop == ("Question:",)


def test_a_direct_answer_follows_examples_without_reasoning(data):
    data([record(1)], [worked(8)])
    assert asked(mode="direct") == [
        f'{ABOUT} Finish your answer with "the answer is (X)" where X is the correct letter choice.\n\n\n\n'
        "Question:\nExample 8?\nOptions:\nA. one\nB. two\nC. three\nAnswer: The answer is (B).\n\n"
        "Question:\nWhat is 1?\nOptions:\nA. one\nB. two\nC. three\nAnswer:"
    ]


def test_a_tested_style_sets_instruction_format_and_stop(data):
    data([record(1)], [worked(8)])
    assert asked(styles=[15]) == [
        f"{ABOUT}\n\n"
        "Q: Example 8?\nOptions:\n(A) one\n(B) two\n(C) three\n\n"
        "The Best Choice: Let's think step by step. It is 8. The answer is (B).\n\n"
        "Q: What is 1?\nOptions:\n(A) one\n(B) two\n(C) three\n\nThe Best Choice: Let's think step by step."
    ]
    assert asked(styles=[4], num_shots=0)[0].endswith(
        "\n\nQuestion:\nWhat is 1? A) one, B) two, C) three, \nThe most likely option is Let's think step by step."
    )
    assert items(settings(styles=[15]), None)[0].stop == ("\n\nQ:",)
    assert items(settings(styles=[6]), None)[0].stop == ("**Question**:",)
    assert items(settings(styles=[15]), None)[0].row.id == "mmlu_pro/1/style-15"


def test_all_styles_are_four_instructions_with_six_formats_each(data):
    data([record(1), record(2)], [worked(8)])
    assert len({style.instruction for style in STYLES}) == len(INSTRUCTIONS) == 4 and len(set(STYLES)) == 24
    assert len(FORMATS) == 6
    every = items(settings(styles="all"), None)
    assert len(every) == len({item.row.id for item in every}) == 48
    assert len({item.row.messages[0].content for item in every}) == 48
    direct = items(settings(styles="all", mode="direct"), None)
    assert sorted({item.row.meta["style"] for item in direct}) == [*range(1, 7), *range(13, 19)]
    assert not any("step" in item.row.messages[0].content for item in direct)


def test_braces_in_a_question_are_text(data):
    data([record(1, question="{letter} {0} {x", options=["{option}", "}"])], [])
    assert "Question:\n{letter} {0} {x\nOptions:\nA. {option}\nB. }\n" in asked(num_shots=0)[0]


def test_categories_and_items_are_chosen_by_their_ids_alone(data):
    test = [record(number, category) for number in range(40) for category in ("math",)]
    test += [record(100 + number, "computer science") for number in range(5)]
    data(test, [worked(8), worked(9, "computer science")])
    chosen = items(settings(items_per_category=7), None)
    ids = [item.row.id for item in chosen]
    assert [item.row.task for item in chosen] == ["mmlu_pro/computer_science"] * 5 + ["mmlu_pro/math"] * 7
    data(test[::-1], [worked(8), worked(9, "computer science")])
    assert [item.row.id for item in items(settings(items_per_category=7), None)] == ids
    assert ids[5:] != [f"mmlu_pro/{number}" for number in range(7)]
    more = {item.row.id for item in items(settings(items_per_category=12), None)}
    assert set(ids) < more
    only = items(settings(categories=["computer science"], styles=[0, 1], items_per_category=2), None)
    questions = [item.row.meta["question_id"] for item in only]
    assert len(only) == 4 and questions[:2] == questions[2:]


def test_questions_that_occur_twice_share_a_cluster_in_all_styles(data):
    data([record(1), record(2), record(3, question="What is 1?"), record(4, question="What is 1?", options=["x"])], [])
    made = items(settings(num_shots=0, styles=[1, 2]), None)
    clusters = {(item.row.meta["question_id"], item.row.meta["cluster"]) for item in made}
    assert clusters == {("1", "mmlu_pro/1"), ("2", "mmlu_pro/2"), ("3", "mmlu_pro/1"), ("4", "mmlu_pro/4")}


def test_examples_are_left_out_until_the_prompt_is_shorter_than_the_limit():
    def build(shots):
        return "word " * (1 + 10 * len(shots))

    def count(text):
        return len(text.split())

    assert fitting(list("abcde"), build, count, 52) == (build("abcde"), 5)
    assert fitting(list("abcde"), build, count, 51) == (build("abcd"), 4)
    assert fitting(list("abcde"), build, count, 12) == (build("a"), 1)
    assert fitting(list("abcde"), build, count, 1) == (build(""), 0)


def test_a_models_tokenizer_counts_the_prompt(data, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    long = "word " * 20
    data([record(1), record(2, question=long)], [worked(number) for number in range(5)])
    whole = len(asked(num_shots=5)[0].split())
    limited = items(settings(tokenizer=str(folder), max_prompt_tokens=whole + 1), None)
    assert [item.row.meta["num_shots"] for item in limited] == [5, 4]
    assert all(len(item.row.messages[0].content.split()) < whole + 1 for item in limited)
    with pytest.raises(UserError, match="no such folder"):
        items(settings(tokenizer="/nowhere"), None)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("", "expected", False, 2048)),
        ({"mode": "direct"}, ("direct", "expected", False, 16)),
        ({"compat": "official-local", "tokenizer": "a/b"}, ("L3", "guess", False, 2048)),
        ({"compat": "official-api"}, ("api", "guess", True, 4000)),
        ({"compat": "lm-eval"}, ("L1", "wrong", False, 2048)),
        ({"compat": "lm-eval", "max_tokens": 64, "extraction": "L2"}, ("L2", "wrong", False, 64)),
    ],
)
def test_a_mode_or_compat_sets_what_the_file_does_not_say(given, found):
    made = settings(**given)
    assert (made.extraction, made.on_failure, made.chat, made.max_tokens) == found
    assert settings(**made.model_dump(exclude={"type"})) == made


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"categories": ["maths"]}, "did you mean 'math'"),
        ({"categories": ["computer sciences"]}, "did you mean 'computer_science'"),
        ({"styles": [25]}, "from 0 to 24"),
        ({"styles": [-1]}, "from 0 to 24"),
        ({"styles": []}, "from 0 to 24"),
        ({"styles": [1, 1]}, "different numbers"),
        ({"styles": "every"}, "styles"),
        ({"styles": [7], "mode": "direct"}, "7 asks for reasoning"),
        ({"compat": "lm-eval", "mode": "direct"}, "one prompt with reasoning"),
        ({"compat": "official-api", "styles": [3]}, "one prompt with reasoning"),
        ({"compat": "official-local"}, "set tokenizer"),
        ({"compat": "official"}, "official-local"),
        ({"num_shots": 6}, "less than or equal to 5"),
        ({"items_per_category": -1}, "greater than or equal to 0"),
        ({"mode": "fast"}, "'cot' or 'direct'"),
        ({"max_prompt_token": 3}, "did you mean 'max_prompt_tokens'"),
    ],
)
def test_settings_that_do_not_fit_are_answered_in_a_sentence(given, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        settings(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ([record(1, answer="D")], "no letter from A to C"),
        ([record(1, answer="a")], "no letter from A to C"),
        ([record(1, answer="AB")], "no letter from A to C"),
        ([record(1, answer=0)], "column 'answer'"),
        ([record(1, answer="")], "column 'answer'"),
        ([record(1, options=[])], "column 'options'"),
        ([record(1, options="A. one")], "column 'options'"),
        ([record(1, options=["one", 2])], "at most 10 options that are text"),
        ([record(1, options=["x"] * 11)], "at most 10 options"),
        ([record(1, question=None)], "column 'question'"),
        ([record(1, category="")], "column 'category'"),
        ([record(1), record(1)], "question_id 1 a second time"),
        ([record(1), '{"question": "cut'], "all.jsonl, line 2"),
        ([record(1), "[1, 2]"], "all.jsonl, line 2"),
        ([record(1, category="geography")], "no worked example of 'geography'"),
    ],
)
def test_damaged_items_are_answered_in_a_sentence_that_names_the_record(data, test, sentence):
    data(test, [worked(8)])
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        items(settings(), None)
    assert "\n" not in str(error.value) and "mmlu_pro, " in str(error.value)


def answers(made, scores) -> list[Answered]:
    return [
        Answered(item.row, 0, number, "", "stop", Verdict(value, None), value)
        for item, values in zip(made, scores, strict=True)
        for number, value in enumerate(values)
    ]


def test_macro_weighs_categories_alike_and_samples_are_averaged(data):
    data([record(1), record(2), record(3), record(4, "law")], [])
    chosen = settings(num_shots=0)
    made = items(chosen, None)  # law, then math
    found = metrics(chosen, answers(made, [[1.0, 0.0], [1.0], [0.0], [1.0]]))
    assert found["macro"].value == pytest.approx((0.5 + 2 / 3) / 2) and found["macro"].n == 4
    assert 0 <= found["macro"].low < found["macro"].value < found["macro"].high <= 1
    assert set(found) == {"macro"} and load_benchmark("mmlu_pro").HEADLINE == "micro"
    assert metrics(chosen, []) == {}


def test_prompt_sensitivity_is_the_spread_over_styles_on_questions_answered_in_all_of_them(data):
    data([record(number) for number in range(1, 6)], [])
    chosen = settings(num_shots=0, styles=[0, 2, 14])
    made = items(chosen, None)
    right = {0: (1, 1, 0, 0), 2: (1, 1, 1, 0), 14: (0, 1, 0, 0)}
    scores = [[float(s)] for n in (0, 2, 14) for s in (*right[n], 1)]
    answered = answers(made, scores)[:-1]  # question 5 has no answer in style 14, so it counts in none
    found = metrics(chosen, answered)
    assert [found[f"style {n}"].value for n in (0, 2, 14)] == [0.5, 0.75, 0.25]
    spread = found["prompt sensitivity"]
    assert spread.value == 0.5 and spread.n == 4 and 0 <= spread.low <= 0.5 <= spread.high <= 1
    assert found["prompt sensitivity, sd"].value == pytest.approx((2 / 3 * 0.25**2) ** 0.5)


def test_the_verifier_scores_the_letter_and_nothing_else(data):
    data([record(1)], [])
    row = items(settings(num_shots=0), None)[0].row
    assert [score(letter, row) for letter in "ABCJ"] == [1.0, 0.0, 0.0, 0.0]
    assert load_verifier("mmlu_pro").read("the answer is (K).", row) is None
