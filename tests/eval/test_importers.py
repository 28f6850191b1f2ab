"""Other programs' outputs are read as they are published; what is damaged is counted, or said in a sentence."""

import gzip
import json
import random
import re
import zipfile
from pathlib import Path

import pytest

from data_recipes.errors import UserError
from eval.importers.lm_eval import read_samples
from eval.importers.mmlu_pro import letters, official_figures, read_outputs
from eval.mmlu_pro import Question, row_of
from eval.verifiers import verify


def record(number: int, **changes) -> dict:
    made = {
        "question_id": number,
        "question": f"What is {number}?",
        "options": ["one", "two", "three", "four"],
        "answer": "B",
        "answer_index": 1,
        "cot_content": "",
        "category": "computer science",
        "src": "toy",
        "pred": "B",
        "model_outputs": "The answer is (B).",
    }
    made |= changes
    return {key: value for key, value in made.items() if value is not ...}


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def zipped(folder: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "outputs.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "outputs.zip"


TWO = [record(1), record(2, pred=None, model_outputs="No idea\u2028at all")]
LIST, LINES = json.dumps(TWO).encode(), "\n".join(json.dumps(one, ensure_ascii=False) for one in TWO).encode()


@pytest.mark.parametrize(
    "made",
    [
        lambda folder: write(folder, "outputs.json", LIST),
        lambda folder: write(folder, "outputs.json", b"\xef\xbb\xbf" + LIST),
        lambda folder: write(folder, "outputs.jsonl", LINES + b"\n\n"),
        lambda folder: write(folder, "outputs.jsonl.gz", gzip.compress(LINES)),
        lambda folder: write(folder, "outputs.json.gz", gzip.compress(LIST)),
        lambda folder: zipped(folder, {"outputs.json": LIST, "__MACOSX/outputs.json": b"\0"}),
        lambda folder: zipped(folder, {f"{n}.json": json.dumps([one]).encode() for n, one in enumerate(TWO)}),
        lambda folder: write(folder, "outputs.json", LIST.replace(b"model_outputs", b"generated_text")),
        lambda folder: write(folder, "outputs.json", LIST.replace(b"model_outputs", b"output")),
    ],
)
def test_an_output_file_is_read_in_every_layout(tmp_path, made):
    outputs, passed_over = read_outputs(made(tmp_path))
    assert not passed_over
    (row, completion, pred), (_, other, missing) = outputs
    assert (completion, pred, other, missing) == ("The answer is (B).", "B", "No idea\u2028at all", None)
    assert (row.id, row.task, row.answer) == ("mmlu_pro/1", "mmlu_pro/computer_science", "B")
    assert row.meta["options"] == ["one", "two", "three", "four"] and row.meta["gold_text"] == "two"
    assert row.question == "Question:\nWhat is 1?\nOptions:\nA. one\nB. two\nC. three\nD. four\n"
    assert verify(row, completion).score == 1.0 and verify(row, other).score is None


def test_what_the_file_says_of_a_question_wins_and_the_items_fill_what_it_leaves_out(tmp_path):
    question = Question("1", "law", "Now?", ("yes", "no", "maybe"), "C", "toy", "")
    known = row_of(question, "prompt", cluster="mmlu_pro/0")
    path = write(tmp_path, "a.json", json.dumps([{"question_id": 1, "answer": "A", "output": "x"}]).encode())
    (output,), _ = read_outputs(path, [known])
    assert (output.row.answer, output.row.task) == ("A", "mmlu_pro/law")
    assert (output.row.meta["options"], output.row.meta["cluster"]) == (["yes", "no", "maybe"], "mmlu_pro/0")
    path = write(tmp_path, "b.json", json.dumps([record(1, options=["only"], answer=...)]).encode())
    (output,), _ = read_outputs(path, [known])
    assert (output.row.answer, output.row.meta["options"], output.row.meta["gold_text"]) == ("C", ["only"], "")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("a stray string", "without a question_id"),
        (None, "without a question_id"),
        (17, "without a question_id"),
        ([record(3)], "without a question_id"),
        ({}, "without a question_id"),
        (record(3, question_id=...), "without a question_id"),
        (record(3, question_id=None), "without a question_id"),
        (record(3, question_id={"a": 1}), "without a question_id"),
        (record(3, model_outputs=...), "without a text"),
        (record(3, model_outputs=None), "without a text"),
        (record(3, model_outputs=["text"]), "without a text"),
        (record(3, answer=...), "with an answer that is no letter"),
        (record(3, answer="K"), "with an answer that is no letter"),
        (record(3, answer="b"), "with an answer that is no letter"),
        (record(3, answer=1), "with an answer that is no letter"),
        (record(3, answer="AB"), "with an answer that is no letter"),
        (record(3, answer=""), "with an answer that is no letter"),
        (record(3, options=...), "without its options"),
        (record(3, options=[]), "without its options"),
        (record(3, options="one two"), "without its options"),
        (record(3, options=["one", None]), "without its options"),
        (record(3, question=...), "without its text or category"),
        (record(3, category=None), "without its text or category"),
        (record(3, category=""), "without its text or category"),
        (record(1, pred="A"), "a second answer to a question"),
    ],
)
def test_an_entry_that_is_no_output_is_counted_and_nothing_else_is_lost(tmp_path, entry, reason):
    path = write(tmp_path, "outputs.json", json.dumps([record(1), entry, record(2)]).encode())
    outputs, passed_over = read_outputs(path)
    assert [output.row.id for output in outputs] == ["mmlu_pro/1", "mmlu_pro/2"] and outputs[0].stored_pred == "B"
    assert [(count, reason in said) for said, count in passed_over.items()] == [(1, True)]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"", "empty"),
        ("a.json", b" \n ", "empty"),
        ("a.json", b"[]", "empty"),
        ("a.json", LIST[:-20], "not valid JSON"),
        ("a.json", b'[\n{"question_id": 1},\n{"question_id": }\n]', "line 3: not valid JSON"),
        ("a.json", b"[" * 100_000, "line 1: nested too deeply"),
        ("a.json", b"[1e5, " + b"9" * 10_000 + b"]", "not valid JSON"),
        ("a.json", b'["\xff"]', "line 1: not UTF-8"),
        ("a.jsonl", LINES + b'\n{"question_id": 3, "model_ou', "line 3: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n\0\0\0', "line 2: not valid JSON"),
        ("a.jsonl", b"question_id,pred\n1,A\n", "line 1: not valid JSON"),
        ("a.jsonl", b"\x89PNG\r\n", "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-9], "damaged archive"),
        ("a.jsonl.gz", b"\x1f\x8b" + b"x" * 100, "damaged archive"),
        ("a.zip", LIST, "damaged archive"),
        ("a.zip", b"", "damaged archive"),
        ("a.zip", b"PK\x03\x04" + b"x" * 99, "damaged archive"),
        ("a.json", b'"text"', "1 without a question_id"),
        ("a.json", b"[1, 2, 3]", "3 without a question_id"),
        ("a.json", json.dumps({"results": {}}).encode(), "no MMLU-Pro output"),
        ("a.json", json.dumps([record(1, answer="?")] * 4).encode(), "4 with an answer that is no letter"),
    ],
)
def test_a_file_that_is_no_output_file_is_answered_in_a_sentence(tmp_path, name, content, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        read_outputs(write(tmp_path, name, content))
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_an_archive_without_outputs_are_answered_in_a_sentence(tmp_path):
    for path, sentence in (
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "Is a directory"),
        (zipped(tmp_path, {"read.me": b"hello"}), "no .json or .jsonl file"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_outputs(path)


def test_every_policy_is_worked_out_by_hand(tmp_path):
    entries = [
        record(1),  # right at every level
        record(2, pred="A", model_outputs="the answer is A"),  # wrong
        record(3, pred=None, model_outputs="Answer: B"),  # the second pattern
        record(4, pred=None, model_outputs="I say B or C", category="law"),  # the third, and wrong
        record(5, pred=None, model_outputs="?", options=["one", "two"], category="law"),
    ]
    outputs, _ = read_outputs(write(tmp_path, "a.json", json.dumps(entries).encode()))
    assert letters(outputs, "L1") == ["B", "A", None, None, None]
    assert letters(outputs, "L2") == ["B", "A", "B", None, None]
    assert letters(outputs, "L3") == ["B", "A", "B", "C", None]
    figures = official_figures(outputs)
    assert figures["stored, wrong"] == pytest.approx(20)
    assert figures["stored, expected"] == pytest.approx(100 * (1 + 1 / 4 + 1 / 4 + 1 / 2) / 5)
    assert figures["stored, expected, macro"] == pytest.approx(100 * ((1 + 1 / 4) / 3 + (1 / 4 + 1 / 2) / 2) / 2)
    assert (figures["L1, wrong"], figures["L1, unparsed"]) == (pytest.approx(20), pytest.approx(60))
    assert (figures["L3, wrong"], figures["L3, unparsed"]) == (pytest.approx(40), pytest.approx(20))
    generator = random.Random(12345)
    guesses = [generator.choice("ABCDEFGHIJ") == "B" for _ in range(4)]
    assert figures["L1, guess-10"] == pytest.approx(100 * (1 + sum(guesses[:3])) / 5)
    assert figures["L3, guess-10"] == pytest.approx(100 * (2 + guesses[3]) / 5)


def generated(number: int, text: str = "It is 4. #### 4", name: str = "strict", value: float = 1.0, **changes) -> dict:
    made = {
        "doc_id": number,
        "doc": {"question": "2 + 2?", "answer": "4"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"Q: {number}: 2 + 2?\nA:", "arg_1": {"until": ["Q:"]}}},
        "resps": [[text]],
        "filtered_resps": ["4"],
        "filter": name,
        "metrics": ["exact_match"],
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        "exact_match": value,
    }
    made |= changes
    return {key: value for key, value in made.items() if value is not ...}


def chosen(number: int, logprobs: list[float], target: str, **changes) -> dict:
    colours = (" red", " green", " blue")
    made = {
        "doc_id": number,
        "doc": {"question": "colour?"},
        "target": target,
        "arguments": {f"gen_args_{n}": {"arg_0": "Colour?", "arg_1": colour} for n, colour in enumerate(colours)},
        "resps": [[[str(logprob), "False"]] for logprob in logprobs],
        "filtered_resps": [[str(logprob), "False"] for logprob in logprobs],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": float(logprobs.index(max(logprobs)) == int(target)),
        "acc_norm": 0.0,
    }
    return {**made, **changes}


DATE = "2026-11-25T00-39-23.821751"


def log(folder: Path, lines: list, task: str = "gsm") -> Path:
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return write(folder, f"samples_{task}_{DATE}.jsonl", content.encode())


def test_generated_answers_are_read_with_lm_evals_verdict_under_every_filter(tmp_path):
    repeated = {"resps": [["first", "second"]]}
    lines = [generated(0), generated(1, **repeated), generated(0, name="loose", value=0.0), generated(1, name="loose")]
    imported = read_samples(log(tmp_path, lines))
    assert (imported.task, imported.about, imported.passed_over) == ("gsm", {}, {})
    assert [(s.row.id, s.sample, s.completion) for s in imported.samples] == [
        ("gsm/0", 0, "It is 4. #### 4"),
        ("gsm/1", 0, "first"),
        ("gsm/1", 1, "second"),
    ]
    first = imported.samples[0]
    assert first.scores == {"strict/exact_match": 1.0, "loose/exact_match": 0.0}
    assert (first.row.answer, first.row.question, first.row.verifiers) == ("4", "Q: 0: 2 + 2?\nA:", [])


def test_a_choice_is_the_option_with_the_greatest_likelihood_and_agrees_with_lm_evals_accuracy(tmp_path):
    lines = [chosen(0, [-0.1, -0.2, -0.8], "0"), chosen(1, [-3.0, -2.0, -0.1], "1")]
    imported = read_samples(log(tmp_path, lines, "colours"))
    assert [(s.completion, s.row.answer, s.scores["acc"]) for s in imported.samples] == [
        ("red", "red", 1.0),
        ("blue", "green", 0.0),
    ]
    row = imported.samples[1].row
    assert (row.question, row.meta["options"], row.meta["logprobs"]) == (
        "Colour?",
        ["red", "green", "blue"],
        [-3.0, -2.0, -0.1],
    )


def test_options_in_the_context_and_options_asked_twice_are_read_once(tmp_path):
    pair = {n: {"arg_0": f"The {who}", "arg_1": " ran."} for n, who in (("gen_args_0", "cat"), ("gen_args_1", "dog"))}
    (sample,) = read_samples(log(tmp_path, [chosen(0, [-2.0, -1.0], "1", arguments=pair)])).samples
    assert (sample.row.question, sample.row.meta["options"], sample.completion) == (
        "The ",
        ["cat ran.", "dog ran."],
        "dog ran.",
    )
    asked = chosen(0, [-1.0, -2.0, -3.0, -0.1, -0.2, -0.3], "0", acc_mutual_info=1.0)
    bare = {f"gen_args_{n + 3}": {"arg_0": "", "arg_1": text} for n, text in enumerate((" red", " green", " blue"))}
    asked["arguments"] |= bare
    (sample,) = read_samples(log(tmp_path, [asked])).samples
    assert sample.row.meta["options"] == ["red", "green", "blue"] and sample.completion == "red"


def test_mmlu_pro_logs_become_rows_that_our_verifier_judges(tmp_path):
    doc = {**record(70), "category": "law", "options": [" one", "two"]}
    lines = [generated(5, "so the answer is (B).", "custom-extract", doc=doc, target="B")]
    (sample,) = read_samples(log(tmp_path, lines, "mmlu_pro_law")).samples
    assert (sample.row.id, sample.row.task, sample.row.meta["options"]) == (
        "mmlu_pro/70",
        "mmlu_pro/law",
        ["one", "two"],
    )
    assert verify(sample.row, sample.completion, "L1").score == sample.scores["custom-extract/exact_match"] == 1.0
    (other,) = read_samples(log(tmp_path, [generated(5)], "mmlu_pro_of_mine")).samples
    assert other.row.verifiers == [] and other.row.task == "mmlu_pro_of_mine"


def test_the_results_file_of_the_same_date_says_what_was_run(tmp_path):
    results = {
        "results": {"gsm": {}},
        "versions": {"gsm": 3.1},
        "n-shot": {"gsm": 5},
        "model_name": "a/b",
        "lm_eval_version": "0.4.13",
    }
    write(tmp_path, f"results_{DATE}.json", json.dumps(results).encode())
    write(tmp_path, "results_2025-01-01T00-00-00.0.json", b"{}")
    about = read_samples(log(tmp_path, [generated(0)])).about
    assert about == {"model": "a/b", "task_version": 3.1, "num_fewshot": 5, "lm_eval_version": "0.4.13"}
    write(tmp_path, f"results_{DATE}.json", json.dumps({**results, "versions": [], "n-shot": None}).encode())
    assert set(read_samples(log(tmp_path, [generated(0)])).about) == {"model", "lm_eval_version"}


def test_old_logs_without_filters_and_with_lists_of_arguments_are_read(tmp_path):
    old = generated(0, filter=..., metrics=..., arguments=[["Q: 2 + 2?\nA:", {"until": ["Q:"]}]])
    (sample,) = read_samples(write(tmp_path, "mine.jsonl", json.dumps(old).encode())).samples
    assert (sample.row.task, sample.row.question, sample.scores) == ("mine", "Q: 2 + 2?\nA:", {"exact_match": 1.0})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a stray string", "entry 2: no usable 'doc_id'"),
        (generated(1, doc_id=...), "entry 2: no usable 'doc_id'"),
        (generated(1, doc_id="1"), "no usable 'doc_id'"),
        (generated(1, doc=...), "no usable 'doc'"),
        (generated(1, doc=["text"]), "no usable 'doc'"),
        (generated(1, target=...), "no usable 'target'"),
        (generated(1, arguments=...), "no usable 'arguments'"),
        (generated(1, arguments="prompt"), "no usable 'arguments'"),
        (generated(1, arguments={}), "no prompt in 'arguments'"),
        (generated(1, arguments=["prompt"]), "no prompt in 'arguments'"),
        (generated(1, arguments=[[]]), "no prompt in 'arguments'"),
        (generated(1, arguments={"gen_args_0": {"arg_0": "text"}}), "a rolling likelihood"),
        (generated(1, resps=...), "no usable 'resps'"),
        (generated(1, resps="text"), "no usable 'resps'"),
        (chosen(1, [-1.0, -2.0, -3.0], "0", resps=[["-1.0"], None, {}]), "no log-likelihoods"),
        (chosen(1, [-1.0, -2.0, -3.0], "0", resps=[[["minus one", "False"]]] * 3), "no log-likelihoods"),
        ('{"doc_id": 1, "do', "line 2: not valid JSON"),
    ],
)
def test_a_damaged_log_is_answered_in_a_sentence_that_names_the_place(tmp_path, line, sentence):
    path = log(tmp_path, [generated(0), json.dumps(line) if line == "a stray string" else line])
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        read_samples(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (generated(0, value=0.0), "a document's second line under one filter"),
        (generated(1, resps=[]), "a document without an answer"),
        (generated(1, resps=[[]]), "a document without an answer"),
        (generated(1, resps=[[None]]), "a document without an answer"),
        (chosen(1, [-1.0, -2.0, -3.0], "0", resps=[]), "a document without an answer"),
    ],
)
def test_a_document_without_an_answer_is_counted(tmp_path, line, reason):
    imported = read_samples(log(tmp_path, [generated(0), line]))
    assert imported.passed_over == {reason: 1}
    assert [(s.row.id, s.scores) for s in imported.samples] == [("gsm/0", {"strict/exact_match": 1.0})]


def test_hostile_values_are_left_out_of_the_scores(tmp_path):
    line = generated(0, metrics=["exact_match", "exact_match", ["x"], 5, "gone", "doc"], exact_match=float("nan"))
    assert read_samples(log(tmp_path, [line])).samples[0].scores == {}
    line = generated(0, metrics="all", exact_match=10**400, acc="1.0", bleu=0.25)
    assert read_samples(log(tmp_path, [line])).samples[0].scores == {"strict/bleu": 0.25}
    (sample,) = read_samples(log(tmp_path, [generated(0, "x" * 1_000_000 + "\0\u2028")])).samples
    assert len(sample.completion) == 1_000_002


def test_a_log_in_which_nothing_was_answered_is_answered_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="none of its 2 documents has an answer"):
        read_samples(log(tmp_path, [generated(0, resps=[]), generated(1, resps=[[]])]))
