"""Evaluation sets are never trained on, but for the half of one of which nothing else exists; full scores are
refused."""

import json

import pytest

from data_recipes.errors import UserError
from data_recipes.evaluation_sets import SETS, refuse_full_set
from data_recipes.halves import half_of
from data_recipes.mixture import build_mixture
from data_recipes.reading import question_of, sources_of, task_rows
from data_recipes.recipe import load_recipe
from data_recipes.row import Message, Row
from data_recipes.store import Mixture
from tests.conftest import Words

QUESTIONS = [f"How many of the {n} red ships in the bay of {n * 7} islands are left?" for n in range(60)]


def test_a_question_is_in_the_same_half_however_it_is_written():
    assert half_of("What is 3 + 5?") == half_of("  what is 3 + 5") == half_of("WHAT IS 3, 5")
    counts = sum(half_of(question) == "train" for question in QUESTIONS)
    assert 15 < counts < 45
    assert half_of("[ { ] }") in ("train", "heldout") and len({half_of("[" * n) for n in range(1, 20)}) == 2


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "realcritic").mkdir()
    lines = [{"question": question, "answer": "4"} for question in QUESTIONS]
    (tmp_path / "realcritic" / "gsm8k.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def write(half: str):
        (tmp_path / "recipe.yaml").write_text(
            "tasks:\n  critique:\n    kind: critique\n    prompt: 'Judge: {{ question }}'\n"
            f"    question: '{{{{ question }}}}'\n    source: {{type: files, path: realcritic/gsm8k.jsonl{half}}}\n"
        )
        return load_recipe("recipe.yaml", beside=tmp_path)[0]

    return write


def items(task: str) -> list[Row]:
    return [
        Row(id=f"{task}/{n}", task=task, kind="domain", messages=[Message(role="user", content=question)])
        for n, question in enumerate(QUESTIONS)
    ]


def test_a_test_split_is_refused_and_its_half_is_read(recipe):
    with pytest.raises(
        UserError, match="line 6.*realcritic is an evaluation set, which nothing trains on; add 'half: train'"
    ):
        sources_of(recipe(""), "critique")
    with pytest.raises(UserError, match="nothing trains on"):
        sources_of(recipe(", half: heldout"), "critique")
    train, _ = task_rows(recipe(", half: train"), "critique")
    assert [question_of(row) for row in train] == [q for q in QUESTIONS if half_of(q) == "train"]


def test_every_set_is_refused_by_its_hub_id_and_its_file(tmp_path):
    for one in SETS:
        sources = [f"{{type: files, path: some/where/{one.files[0]}x.jsonl}}"] if one.files[0].endswith("/") else []
        sources += [f"{{type: files, path: some/where/{one.files[0]}}}"] if not sources else []
        sources += [
            f"{{type: hub, dataset: {name}, split: {splits[0] if splits else 'anything'}}}" for name, splits in one.hub
        ]
        for source in sources:
            (tmp_path / "r.yaml").write_text(f"tasks:\n  t: {{kind: domain, source: {source}}}\n")
            with pytest.raises(UserError, match=f"{one.name} is an evaluation set"):
                sources_of(load_recipe("r.yaml", beside=tmp_path)[0], "t")


def test_the_half_may_repeat_its_own_half_of_shared_sets_and_nothing_else(recipe, tmp_path):
    """GSM8K's test holds the same questions: its training half is allowed (and said), its other half is not there."""
    manifest = build_mixture(
        recipe(", half: train"), tmp_path / "m", seed=0, tokenise=Words(), protected=items("gsm8k")
    )
    assert manifest["halves_trained_on"] == ["gsm8k", "math", "realcritic"]
    assert manifest["tasks"]["critique"]["train_rows"] == sum(half_of(q) == "train" for q in QUESTIONS)
    with pytest.raises(UserError, match="trained on half of this set"):
        refuse_full_set("gsm8k", manifest["halves_trained_on"])
    refuse_full_set("mmlu_pro", manifest["halves_trained_on"])
    # a set that is not shared stays whole
    with pytest.raises(UserError, match="cleaning leaves no training row"):
        build_mixture(recipe(", half: train"), tmp_path / "n", seed=0, tokenise=Words(), protected=items("mmlu_pro"))


def test_the_benchmark_asks_the_held_out_half_and_refuses_the_whole(recipe, tmp_path, monkeypatch):
    from eval.benchmarks import load_benchmark

    build_mixture(recipe(", half: train"), tmp_path / "m", seed=0, tokenise=Words(), protected=items("gsm8k"))
    data = tmp_path / "data" / "gsm8k"
    data.mkdir(parents=True)
    lines = [{"question": question, "answer": f"Count.\n#### {n}"} for n, question in enumerate(QUESTIONS)]
    (data / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path / "data"))
    benchmark = load_benchmark("testset")
    asked = benchmark.items(benchmark.Settings(type="testset", set="gsm8k"), tmp_path / "m")
    assert {question_of(row) for row in asked} == {q for q in QUESTIONS if half_of(q) == "heldout"}
    assert len(benchmark.items(benchmark.Settings(type="testset", set="gsm8k", items=5), tmp_path / "m")) == 5
    with pytest.raises(UserError, match="gsm8k: the model was trained on half of this set"):
        benchmark.items(benchmark.Settings(type="testset", set="gsm8k", full=True), tmp_path / "m")
    with pytest.raises(UserError, match="unknown evaluation set 'gsm9k' .did you mean 'gsm8k'"):
        benchmark.items(benchmark.Settings(type="testset", set="gsm9k"), tmp_path / "m")
    assert Mixture(tmp_path / "m").manifest["halves_trained_on"] == ["gsm8k", "math", "realcritic"]


@pytest.mark.parametrize("path", ["gsm8k/*.jsonl", "gsm8k/./test.jsonl", "gsm8k/../gsm8k/test.jsonl"])
def test_a_test_split_is_recognised_by_the_file_it_is(tmp_path, path):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    for folder, given in ((tmp_path, path), (tmp_path / "gsm8k", "test.jsonl")):
        (folder / "r.yaml").write_text(f"tasks:\n  t: {{kind: domain, source: {{type: files, path: {given}}}}}\n")
        with pytest.raises(
            UserError, match="gsm8k is an evaluation set, which nothing trains on; take its training split"
        ):
            sources_of(load_recipe("r.yaml", beside=folder)[0], "t")
