"""Somebody else's output files become a run that is scored, inspected and compared like our own."""

import json

import pytest

from data_recipes.errors import UserError
from eval.imported_run import import_files
from eval.inspection import Wanted, judged
from eval.rescoring import rescore, results_of
from eval.run_folder import open_run


def entry(number: int, output: str, answer: str = "A", **more) -> dict:
    asked = {"question": f"Which is {number}?", "options": ["one", "two", "three", "four"], "category": "math"}
    return {"question_id": number, **asked, "answer": answer, "pred": "A", "model_outputs": output, **more}


@pytest.fixture
def files(tmp_path):
    good = [entry(0, "The answer is (A)."), entry(1, "The answer is (B)."), entry(2, "Hm."), "stray"]
    better = [entry(0, "The answer is (A)."), entry(1, "answer: A", category="law"), entry(2, "The answer is (A).")]
    for name, entries in (("good", good), ("better", better)):
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    return [tmp_path / "good.json", tmp_path / "better.json"]


def means(path) -> dict[str, float]:
    found = {}
    for result in results_of(open_run(path)):
        scores = [s for b in result["benchmarks"].values() for items in b["scores"].values() for s in items.values()]
        found[result["name"]] = round(sum(scores) / len(scores), 4)
    return found


def test_mmlu_pro_files_become_rows_and_are_scored_again_without_a_model(files, tmp_path, capsys):
    import_files("mmlu-pro", files, tmp_path / "run", ["mine"])
    assert means(tmp_path / "run") == {"mine": round(1.25 / 3, 4), "better": 1.0}
    assert "1 entries without a question_id: passed over" in capsys.readouterr().out
    rescore(tmp_path / "run", {"extraction": "L1", "on_failure": "wrong"})
    assert means(tmp_path / "run") == {"mine": round(1 / 3, 4), "better": round(2 / 3, 4)}
    wrong = judged(open_run(tmp_path / "run"), Wanted(row="mine", verdicts=("wrong", "unparsed")))
    assert [one.row.id for one in wrong] == ["mmlu_pro/1", "mmlu_pro/2"]


def lm_eval_line(number: int, right: bool, filter: str) -> dict:
    return {
        "doc_id": number,
        "doc": {"q": number},
        "target": "7",
        "arguments": {"gen_args_0": {"arg_0": f"Question {number}?", "arg_1": {"until": ["Q:"]}}},
        "resps": [["It is 7" if right else "It is 8"]],
        "filtered_resps": ["7" if right else "8"],
        "filter": filter,
        "metrics": ["exact_match"],
        "doc_hash": "a",
        "prompt_hash": "b",
        "target_hash": "c",
        "exact_match": float(right),
    }


def test_lm_eval_logs_of_one_run_become_one_row_with_their_own_scores(tmp_path):
    for task, rights in (("gsm8k", [1, 0, 1, 1]), ("svamp", [0, 0])):
        lines = [
            lm_eval_line(i, bool(r), f) for f in ("strict-match", "flexible-extract") for i, r in enumerate(rights)
        ]
        path = tmp_path / "model" / f"samples_{task}_2026-01-02T03-04-05.678901.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_files("lm-eval", sorted((tmp_path / "model").glob("*.jsonl")), tmp_path / "run", [])
    (result,) = results_of(open_run(tmp_path / "run"))
    assert result["name"] == "model"
    tasks = result["benchmarks"]["imported"]["scores"]
    assert {task: sum(items.values()) for task, items in tasks.items()} == {"gsm8k": 3, "svamp": 0}


@pytest.mark.parametrize(
    ("names", "prepare", "said"),
    [
        (["a", "a"], None, "row 'a': cannot have a folder of its own beside 'a'"),
        (["a", "b", "c"], None, "--name is given 3 times, but the files make 2 row"),
        (["...", "b"], None, "row '...': cannot have a folder of its own without"),
        ([], lambda run: (run.mkdir(), (run / "mine").write_text("x")), "holds something already"),
        ([], lambda run: run.write_text("x"), "holds something already"),
    ],
)
def test_a_wrong_import_writes_nothing(files, tmp_path, names, prepare, said):
    run = tmp_path / "run"
    if prepare:
        prepare(run)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said):
        import_files("mmlu-pro", files, run, names)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '"text"', "[1, 2]", '[{"question_id": 1}]', "\x00", "PK\x03\x04", '{"a": NaN}']
)
@pytest.mark.parametrize("format", ["mmlu-pro", "lm-eval"])
def test_files_that_hold_no_outputs_end_in_one_sentence(tmp_path, format, content):
    file = tmp_path / "samples_gsm8k_2026-01-02T03-04-05.678901.jsonl"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        import_files(format, [file], tmp_path / "run", [])
    assert file.name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
