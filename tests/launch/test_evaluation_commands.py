"""`whetstone import`, `score`, `inspect`, `leaderboard`, `eval --shard` at the front door: what they do and refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WHETSTONE = str(Path(sys.executable).parent / "whetstone")


def whetstone(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([WHETSTONE, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run imported from an output file of three answers."""
    folder = tmp_path_factory.mktemp("imported")
    asked = {"question": "Which?", "options": ["one", "two", "three", "four"], "answer": "A", "category": "math"}
    outputs = ["The answer is (A).", "The answer is (B). No: the answer is (A).", "Hm."]
    entries = [{"question_id": i, **asked, "pred": "A", "model_outputs": text} for i, text in enumerate(outputs)]
    (folder / "theirs.json").write_text(json.dumps(entries))
    result = whetstone("import", "mmlu-pro", folder / "theirs.json", "--output", folder / "run", "--name", "theirs")
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_an_imported_run_is_scored_read_and_put_on_a_page(run_dir, tmp_path):
    before = (run_dir / "eval" / "theirs" / "samples.jsonl").read_bytes()
    scored = whetstone("score", run_dir, "--extraction", "L3-last", "--on-failure", "wrong")
    assert scored.returncode == 0 and "66.67" in scored.stdout and "L3-last" in scored.stdout
    shown = whetstone("inspect", run_dir, "--unparsed", "-n", "1")
    assert shown.returncode == 0 and "Hm." in shown.stdout and "The answer is" not in shown.stdout
    board = whetstone("leaderboard", run_dir, "--output", tmp_path / "board")
    assert board.returncode == 0 and (tmp_path / "board" / "index.html").exists()
    power = whetstone("power", run_dir)
    assert power.returncode == 0 and "mmlu_pro" in power.stdout
    assert (run_dir / "eval" / "theirs" / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "{run}", "--extraction", "L2-lst"], "did you mean 'L2-last'"),
        (["score", "{run}", "--benchmark", "mmlu"], "no benchmark 'mmlu' (did you mean 'mmlu_pro'?)"),
        (["score", "{run}/nowhere"], "nowhere: no such folder"),
        (["inspect", "{run}", "--row", "their"], "no row 'their' (did you mean 'theirs'?)"),
        (["inspect", "{run}", "--truncated"], "no such answer"),
        (["inspect", "{run}", "--task", "mmlu_pro/mth"], "did you mean 'mmlu_pro/math'"),
        (["import", "mmlu-pro", "{run}/nowhere.json", "--output", "{run}-2"], "nowhere.json: cannot be read"),
        (["import", "mmlu-pro", "{run}/eval/run.json", "--output", "{run}"], "holds something already"),
        (["import", "lm-eval", "{run}/eval/run.json", "--output", "{run}-2"], "run.json"),
        (["leaderboard", "{run}", "{run}"], "--output"),
        (["leaderboard", "{run}/nowhere"], "nowhere"),
        (["leaderboard", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["eval", "experiments/mmlu_pro.yaml", "--shard", "3of8"], "write it as 3/8"),
        (["eval", "experiments/mmlu_pro.yaml", "--shard", "9/8"], "write it as 3/8"),
        (["eval", "experiments/mmlu_pro.yaml", "--set", "recipe=1"], "recipe"),
        (["eval", "experiments/mmlu_pro.yaml", "--set", "eval.benchmarks=[{type: mmlu}]"], "did you mean 'mmlu_pro'"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(run_dir, arguments, said, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    result = whetstone(*(word.replace("{run}", str(run_dir)) for word in arguments))
    assert result.returncode == 2, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr
    assert result.stderr.startswith("whetstone: ") and result.stderr.count("\n") == 1
