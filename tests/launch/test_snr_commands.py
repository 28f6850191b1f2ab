"""`whetstone snr` and its two-word commands: tables in, findings out, and one sentence for every mistake."""

import argparse
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launch.snr import SNR_COMMANDS, add_snr_commands, run_snr
from pipelines.alone import guarded

MODELS = {"a": 0.30, "b": 0.42, "c": 0.55, "d": 0.71}
WOBBLE = (0.0, 0.01, -0.01, 0.005, -0.005, 0.01, -0.01, 0.0)


def rows() -> list[dict]:
    """Return two tasks under two metrics, four models at eight checkpoints: easy tells them apart, coin does not."""
    made = []
    for number, (model, level) in enumerate(MODELS.items()):
        for step, off in enumerate(WOBBLE, start=1):
            coin = 0.5 + 4 * WOBBLE[(step + 3 * number) % 8]
            for task, accuracy, bits in (("easy", level + off, 2 - level - off / 10), ("coin", coin, 2 - coin)):
                for metric, score in (("accuracy", accuracy), ("bits_per_byte", bits)):
                    made.append({"model": model, "step": 100 * step, "task": task, "metric": metric, "score": score})
    return made


def as_csv(table: list[dict]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*table[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def as_lines(table: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in table)


def snr(*words) -> None:
    """Run the command line as `whetstone snr ...` does."""
    given = ["snr", *map(str, words)]
    if " ".join(given[:2]) in SNR_COMMANDS:
        given[:2] = [" ".join(given[:2])]
    parser = argparse.ArgumentParser()
    add_snr_commands(parser.add_subparsers(dest="command", required=True))
    arguments = parser.parse_args(given)
    guarded(lambda: run_snr(arguments))


def refused(capsys, *words) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        snr(*words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in said and said.count("\n") == 1, said
    return said


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(as_csv(rows()))
    return path


def test_help_imports_nothing_heavy():
    code = "import sys, argparse, launch.snr as s; s.add_snr_commands(argparse.ArgumentParser().add_subparsers());"
    code += "print([m for m in ('numpy', 'scipy', 'rich', 'eval.signal_noise') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_it_says_which_tasks_tell_the_models_apart_and_writes_three_files(file, tmp_path, capsys):
    snr(file, "--output", tmp_path / "out")
    said = capsys.readouterr().out
    assert "easy can tell these models apart" in said and "coin cannot tell most of these models apart" in said
    saved = json.loads((tmp_path / "out" / "snr.json").read_text())
    assert saved["rows"][0]["task"] == "easy" and saved["settings"]["early"] == 0.5
    with open(tmp_path / "out" / "snr.csv", newline="") as table:
        assert [row["task"] for row in csv.DictReader(table)] == ["easy", "coin"]
    assert "- easy can tell these models apart" in (tmp_path / "out" / "snr.md").read_text()


def test_every_format_and_the_wide_layout_give_the_same_figures(file, tmp_path):
    table = rows()
    (tmp_path / "scores.jsonl").write_text(as_lines(table))
    (tmp_path / "scores.json").write_text(json.dumps(table))
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "scores.parquet")
    wide: dict = {}
    for row in table:
        cell = wide.setdefault((row["model"], row["step"]), {"model": row["model"], "step": row["step"]})
        cell[f"{row['task']}:{row['metric']}"] = row["score"]
    (tmp_path / "wide.csv").write_text(as_csv(list(wide.values())))
    found = []
    for name in ("scores.csv", "scores.jsonl", "scores.json", "scores.parquet", "wide.csv"):
        snr(tmp_path / name, "--output", tmp_path / "out")
        found.append(json.loads((tmp_path / "out" / "snr.json").read_text())["rows"])
    assert all(one == found[0] for one in found)


def test_run_folders_are_read_and_told_apart(tmp_path, capsys):
    for run, levels in (("one", (0.2, 0.3)), ("two", (0.7, 0.9))):
        for step, level in enumerate(levels):
            folder = tmp_path / run / "eval" / f"sft-{step}"
            folder.mkdir(parents=True)
            scores = {"gsm8k": {str(i): float(i < 10 * level) for i in range(10)}}
            result = {"name": f"SFT@step-{step + 1}", "settings": {}, "benchmarks": {"gsm8k": {"scores": scores}}}
            (folder / "results.json").write_text(json.dumps(result))
    snr(tmp_path / "one", tmp_path / "two", "--output", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "snr.json").read_text())["rows"][0]
    assert (row["task"], row["models"], row["checkpoints"]) == ("gsm8k", 2, 2)
    assert row["signal"] == pytest.approx((0.8 - 0.25) / 0.525)
    assert "gsm8k can tell these models apart" in capsys.readouterr().out


def test_the_three_interventions_are_commands(file, capsys):
    snr("compare", file, "--tasks", "easy")
    assert "bits_per_byte has the higher SNR on 1 of 1 tasks: easy." in capsys.readouterr().out
    snr("average", file, "-k", 1, 2)
    assert "Averaging the last 2 checkpoints at 50 % of each run" in capsys.readouterr().out
    snr("subset", file, "--tasks", "*")
    assert "Best set: the first 1 of 2 subtasks" in capsys.readouterr().out


def test_a_ladder_is_fitted_from_a_table_of_ones_own(tmp_path, capsys):
    table = []
    for params in (1e8, 2e8, 4e8, 8e8, 1.6e9, 1e10):
        for tokens in (2e9, 4e9, 8e9):
            loss = 0.5 + 60 / params**0.25 + 100 / tokens**0.26 + 1e-4 * (tokens == 4e9)
            facts = {
                "model": f"{params:.0e}",
                "step": int(tokens / 1e6),
                "params": params,
                "tokens": tokens,
                "task": "t",
            }
            for metric, score in (("bits_per_byte", loss), ("accuracy", 1 - 0.7 / (1 + 2.718 ** (-4 * (loss - 0.8))))):
                table.append({**facts, "metric": metric, "score": score})
    (tmp_path / "ladder.jsonl").write_text(as_lines(table))
    snr("ladder", tmp_path / "ladder.jsonl", "--target", "1e+10", "--moving-avg", 1, "--output", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "snr.json").read_text())["rows"][0]
    assert abs(row["loss_error"]) < 0.05 and abs(row["chained_error"]) < 0.05
    assert "1e+10: the chained prediction is off by" in capsys.readouterr().out


def without(column: str) -> str:
    return as_csv([{k: v for k, v in row.items() if k != column} for row in rows()])


def renamed(old: str, new: str) -> str:
    return as_csv([{new if k == old else k: v for k, v in row.items()} for row in rows()])


def changed(number: int, **values) -> str:
    table = rows()
    table[number] |= values
    return as_csv(table)


def only(wanted) -> str:
    return as_csv([row for row in rows() if wanted(row)])


MALFORMED = [
    ("empty.csv", "", "line 1: no header of distinct column names; add one"),
    ("header.csv", "model,step,task,metric,score\n", "no scores; give a table with the columns"),
    ("empty.jsonl", "", "no scores; give a table"),
    ("empty.json", "[]", "no scores; give a table"),
    ("no-model.csv", without("model"), "line 2: the column 'model' is missing"),
    ("no-step.csv", without("step"), "the column 'step' is missing"),
    ("no-task.csv", without("task"), "the column 'task' is missing"),
    ("no-metric.csv", without("metric"), "the column 'metric' is missing"),
    ("no-score.csv", without("score"), "the column 'score' is missing"),
    ("renamed.csv", renamed("score", "scores"), "the column 'score' is missing (did you mean 'scores'?); add it"),
    ("modle.csv", renamed("model", "modle"), "the column 'model' is missing (did you mean 'modle'?)"),
    ("word.csv", changed(3, score="high"), "line 5: score is 'high', no finite number"),
    ("nan.csv", changed(3, score="nan"), "line 5: score is 'nan', no finite number"),
    ("inf.csv", changed(0, score="-inf"), "line 2: score is '-inf', no finite number"),
    ("percent.csv", changed(0, score="41 %"), "line 2: score is '41 %', no finite number"),
    ("blank.csv", changed(1, score=""), "line 3: score is '', no finite number"),
    ("null.jsonl", as_lines([{**rows()[0], "score": None}]), "line 1: score is None, no finite number"),
    ("true.jsonl", as_lines([{**rows()[0], "score": True}]), "line 1: score is True, no finite number"),
    ("list.jsonl", as_lines([{**rows()[0], "score": [1]}]), "line 1: score is [1], no finite number"),
    ("step.csv", changed(2, step="last"), "line 4: the step is 'last'; write a whole number"),
    ("half.csv", changed(2, step="1.5"), "line 4: the step is '1.5'; write a whole number"),
    ("before.csv", changed(2, step="-1"), "line 4: the step is '-1'; write a whole number"),
    ("nostep.csv", changed(2, step=""), "line 4: the step is ''; write a whole number"),
    ("nobody.csv", changed(2, model=""), "line 4: the model is empty; fill it in"),
    ("notask.csv", changed(2, task=""), "line 4: the task is empty; fill it in"),
    ("twice.csv", as_csv([*rows(), rows()[0]]), "line 130: a second score of a at step 100 on easy, accuracy; remove"),
    ("one.csv", only(lambda row: row["model"] == "a"), "no task has the accuracy of two models; add models"),
    ("once.csv", only(lambda row: row["step"] == 800), "every run has one checkpoint only, so noise cannot be told"),
    ("equal.csv", as_csv([{**row, "score": 0.25} for row in rows()]), "all scores are equal (0.25); check the column"),
    ("cells.csv", as_csv(rows()) + "a,1,easy\n", "3 cells where the header has 5"),
    ("torn.jsonl", as_lines(rows()) + '{"model": "a", "st', "line 129: not a JSON object (a truncated line?)"),
    ("torn.json", '[{"model": "a"', "not valid JSON"),
    ("torn.parquet", "PAR1 and no more", "not readable as Parquet"),
    ("table.xlsx", "PK", "not one of .jsonl, .json, .csv, .parquet"),
    ("nul.csv", "model,step\0\n", "a NUL byte, not text"),
    ("wide.csv", "model,step,easy:acc,hard:acc\na,1,0.5,x\n", "line 2: hard:acc is 'x', no finite number"),
    (
        "params.csv",
        as_csv([{**row, "params": "-3"} for row in rows()]),
        "params is '-3'; write the number of",
    ),
    ("tokens.csv", as_csv([{**row, "tokens": 0} for row in rows()]), "tokens is '0'; write the number of tokens"),
    ("sizes.csv", as_csv([{**row, "size": row["task"]} for row in rows()]), "a has the size coin here and easy before"),
    ("metrics.csv", as_csv([{**row, "metric": row["metric"] + "_x"} for row in rows()]), "several metrics (accuracy_x"),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED, ids=[name for name, *_ in MALFORMED])
def test_a_malformed_table_ends_in_one_sentence(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    said = refused(capsys, tmp_path / name)
    assert said.startswith("whetstone: ") and str(tmp_path / name) in said and message in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{file}", "--metric", "acuracy"], "no metric 'acuracy' (did you mean 'accuracy'?)"),
        (["{file}", "--tasks", "esy"], "no task 'esy' (did you mean 'easy'?)"),
        (["{file}", "--tasks", "x*"], "no task 'x*' (known: coin, easy)"),
        (["{file}", "--models", "z"], "no model 'z' (known: a, b, c, d)"),
        (["{file}", "--models", "a"], "no task has the accuracy of two models"),
        (["{file}", "--noise-from", "z"], "no model 'z'"),
        (["{file}", "--signal", "dispersal"], "no signal 'dispersal' (did you mean 'dispersion'?)"),
        (["{file}", "--lower", "ppl"], "no metric 'ppl'"),
        (["{file}", "--last", "1"], "--last: 1 checkpoint has no spread; give 2 or more"),
        (["{file}", "--averaged", "0"], "--averaged: 0 checkpoints have no mean"),
        (["{file}", "--early", "0"], "--early: 0 is before the first step"),
        (["{file}", "--early", "nan"], "--early: nan is before the first step"),
        (["{file}", "--small", "1B"], "no model has the size '1B' of --small; add a column 'size'"),
        (["compar", "{file}"], "compar: neither a file nor a command of snr (did you mean 'snr compare'?)"),
        (["{file}.gone"], "no such file or folder; mend the path"),
        (["{folder}"], "nothing has been evaluated here; run 'whetstone eval FILE' first"),
        (["{file}", "--output", "{file}"], "a file, not a folder; give --output another name"),
        (["compare", "{file}", "--metrics", "accuracy"], "one metric is nothing to compare; give two"),
        (["compare", "{file}", "--metrics", "accuracy", "ppl"], "no metric 'ppl'"),
        (["average", "{file}", "-k", "1"], "-k: 1 is nothing to compare; give two counts"),
        (["average", "{file}", "-k", "0", "2"], "-k: 0 2 is nothing to compare"),
        (["average", "{file}", "-k", "1", "90"], "no run has 90 checkpoints to average at 50 % of each run"),
        (["subset", "{file}", "--tasks", "easy"], "1 subtask to choose from; name two or more with --tasks"),
        (["ladder", "{file}"], "no model to predict is named; give one with --target"),
        (["ladder", "{file}", "--target", "d"], "the params of a are missing; add a column 'params'"),
        (["ladder", "{file}", "--target", "d", "--skip-perc", "1"], "a share from 0 up to but not including 1"),
        (["ladder", "{file}", "--target", "d", "--loss-metric", "loss"], "no metric 'loss'"),
        (["ladder", "{file}", "--config", "{file}"], "--config describes one folder of runs; give that folder alone"),
        (["ladder", "{folder}", "--config", "{folder}/none.json"], "none.json: no such file"),
    ],
)
def test_a_mistaken_command_ends_in_one_sentence(file, capsys, words, message):
    given = [word.format(file=file, folder=file.parent) for word in words]
    assert message in refused(capsys, *given)
    assert file.read_text() == as_csv(rows()), "nothing was written over"
