"""The page, the Markdown and the CSV of a run folder made by hand, with hostile names in it."""

import csv
import json

import pytest
import yaml

from data_recipes.errors import UserError
from eval.leaderboard.build import build_leaderboard
from eval.leaderboard.curves import panels

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def run_dir(tmp_path):
    baselines = {"base": {}, HOSTILE: {"num_examples": 3}}
    benchmarks = [{"type": "heldout"}, {"type": "critique"}]
    experiment = {"name": f"x {HOSTILE}", "eval": {"baselines": baselines, "benchmarks": benchmarks}}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    environment = {"command": f"whetstone run {HOSTILE}", "versions": {"torch": "2"}, "python": "3.11"}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    for folder, name, right in (("base", "base", 1), ("shots", HOSTILE, 2), ("sft", "SFT", 9)):
        scores = {task: {str(i): float(i < right) for i in range(10)} for task in ("sum", "sort", "critique/sum")}
        result = {
            "name": name,
            "settings": {"constant": False, "num_examples": 0, "model": "{run}/sft/model"},
            "benchmarks": {"sum": "heldout", "sort": "heldout", "critique/sum": "critique"},
            "scores": scores,
            "unparsed": dict.fromkeys(scores, 1),
            "truncated": dict.fromkeys(scores, 0),
            "num_tokens": 1000,
            "seconds": 3.0,
            "sessions": 2 if name == "SFT" else 1,
        }
        (tmp_path / "eval" / folder).mkdir(parents=True)
        (tmp_path / "eval" / folder / "results.json").write_text(json.dumps(result))
    (tmp_path / "sft").mkdir()
    metrics = [{"step": step, "loss/sum": 3 - step / 5, f"loss/{HOSTILE}": 2.0} for step in range(1, 9)]
    (tmp_path / "sft" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return tmp_path


def test_text_is_escaped_and_the_page_needs_nothing_else(run_dir):
    build_leaderboard(run_dir)
    page = (run_dir / "leaderboard" / "index.html").read_text()
    assert HOSTILE not in page and "&lt;script&gt;alert(1)" in page
    assert "src=" not in page and "<link" not in page and "http" not in page


def test_findings_compare_with_the_best_baseline_and_resumed_rows_are_named(run_dir):
    board = build_leaderboard(run_dir)
    assert board.findings[0].startswith("On heldout (mean over 2 tasks), SFT is better than “<script>")
    assert "+70.0 ±" in board.findings[0] and len(board.findings) == 2
    assert any("resumed generation" in note and "SFT" in note for note in board.notes)


def test_markdown_and_csv_hold_every_cell(run_dir):
    build_leaderboard(run_dir)
    text = (run_dir / "leaderboard" / "leaderboard.md").read_text()
    assert HOSTILE not in text
    assert "| sum | 20 [6, 51] | 10 [2, 40] | 90 [60, 98] |" in text
    with open(run_dir / "leaderboard" / "leaderboard.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (3 + 2)
    cell = next(row for row in rows if row["row"] == "SFT" and row["task"] == "sort")
    assert (cell["accuracy"], cell["items"]) == ("90.00", "10") and 59 < float(cell["low"]) < 60


def test_a_folder_without_results_is_told_what_to_type(tmp_path):
    with pytest.raises(UserError, match="run 'whetstone eval FILE' first"):
        build_leaderboard(tmp_path)


def test_panels_share_one_scale_and_skip_missing_points():
    one, two = panels([{"step": 1, "loss/a": 4.0}, {"step": 2, "loss/a": None, "loss/b": 1.0}], "loss/")
    assert (one.task, two.task) == ("a", "b") and one.ticks == two.ticks
    assert len(one.points.split()) == len(two.points.split()) == 1
    assert panels([], "loss/") == []
