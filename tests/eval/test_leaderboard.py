"""The page, the Markdown and the CSV of run folders made by hand, with hostile names in them, and damaged ones."""

import csv
import json
import re

import pytest

from data_recipes.errors import UserError
from eval.leaderboard.build import build_leaderboard
from eval.leaderboard.curves import panels
from eval.leaderboard.reading import visible
from eval.statistics import wilson

HOSTILE = "<script>alert(1)</script>"
FOUR = {
    "base": {"right": 1, "baseline": True},
    HOSTILE: {"right": 2, "baseline": True, "settings": {"num_examples": 3}},
    "SFT": {"right": 9, "settings": {"model": "{run}/sft/model"}, "sessions": 2},
    "GRPO": {"right": 9, "settings": {"model": "{run}/grpo/model"}},
}


def records(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_text_is_escaped_and_the_page_needs_nothing_else(write_run):
    run = write_run("x", FOUR, samples=True, wrote=HOSTILE)
    build_leaderboard([run])
    pages = [run / "leaderboard" / "index.html", *(run / "leaderboard" / "samples").rglob("index.html")]
    assert len(pages) == 1 + 4 * 2
    for page in pages:
        text = page.read_text()
        assert HOSTILE not in text and "<link" not in text and "http" not in text and "src=" not in text
    assert "&lt;script&gt;alert(1)" in pages[0].read_text()
    for part in (run / "leaderboard" / "samples").rglob("part-*.js"):
        assert part.read_bytes().isascii()


def test_findings_compare_with_the_best_baseline_and_resumed_rows_are_named(write_run):
    board = build_leaderboard([write_run("x", FOUR)])
    first, second, third = board.findings[:3]
    assert first.startswith("On heldout (mean over 2 tasks), SFT is better than “<script>alert(1)</script>”, the best")
    assert "+70.0 points [" in first and first.endswith("(corrected p < 0.001).")
    assert second.startswith("On heldout (mean over 2 tasks), GRPO is not distinguishable from “SFT”, the model it")
    assert third == (
        "On heldout (mean over 2 tasks), 4 of 6 pairs of rows can be told apart; the first rank is open between “SFT”"
        " and “GRPO”."
    )
    assert board.findings[3].startswith("On critique (mean over 20 items), SFT")
    assert any("resumed generation" in note and "SFT" in note for note in board.notes)


def test_rows_that_cannot_be_told_apart_are_said_to_be_so(write_run):
    board = build_leaderboard([write_run("x", {"a": {"right": 5}, "b": {"right": 6}})])
    assert board.findings[0].startswith("On heldout (mean over 2 tasks), no two of the 2 rows can be told apart;")
    assert [column.ranks for column in board.columns.values()] == [{0: (1, 2), 1: (1, 2)}] * 2
    assert build_leaderboard([write_run("y", {"a": {"right": 5}})]).findings == []


def test_markdown_and_csv_hold_every_cell(write_run):
    run = write_run("x", FOUR)
    board = build_leaderboard([run])
    text = (run / "leaderboard" / "leaderboard.md").read_text()
    assert HOSTILE not in text
    assert "| sum | 10 [2, 40] | 20 [6, 51] | 90 [60, 98] | 90 [60, 98] |" in text
    assert "| what a column can show | items | clusters | design effect |" in text
    rows = records(run / "leaderboard" / "leaderboard.csv")
    assert len(rows) == 4 * 2 * (1 + 2)
    cell = next(row for row in rows if row["row"] == "SFT" and row["task"] == "sort")
    assert (cell["accuracy"], cell["items"]) == ("90.00", "10") and 59 < float(cell["low"]) < 60
    headline = next(row for row in rows if (row["row"], row["benchmark"], row["task"]) == ("base", "critique", ""))
    low, high = wilson(2, 20)
    assert (headline["low"], headline["high"]) == (f"{100 * low:.2f}", f"{100 * high:.2f}")
    assert (headline["headline"], headline["micro"], headline["macro"]) == ("micro", "10.00", "10.00")
    assert (headline["best_rank"], headline["worst_rank"], headline["on_failure"]) == ("3", "4", "wrong")
    assert (headline["unparsed"], headline["truncated"]) == ("20.00", "10.00")
    assert headline["command"] == "whetstone eval tiny.yaml --set seed=0"
    pairs = records(run / "leaderboard" / "pairs.csv")
    assert len(pairs) == 2 * 6
    pair = next(p for p in pairs if (p["benchmark"], p["row"], p["other"]) == ("critique", "base", "SFT"))
    assert (pair["difference"], pair["won"], pair["lost"], pair["items"]) == ("-80.00", "0", "16", "20")
    assert float(pair["mcnemar_p"]) == pytest.approx(2 / 2**16, rel=0.01)
    assert float(pair["bootstrap_p_holm"]) < 0.01
    assert board.columns["critique"].ability.told_apart == 4


def test_the_csv_holds_what_the_boards_estimates_are(write_run):
    run = write_run("x", FOUR)
    board = build_leaderboard([run])
    for row in records(run / "leaderboard" / "leaderboard.csv"):
        line = next(line for line in board.lines if line.name == row["row"])
        entry = line.entries[row["benchmark"]]
        one = entry.tasks[row["task"]] if row["task"] else entry.headline
        assert row["accuracy"] == f"{100 * one.value:.2f}" and row["high"] == f"{100 * one.high:.2f}"


def test_metrics_and_bits_per_byte_are_columns(write_run):
    metrics = {
        "prompt sensitivity": {"value": 0.041, "low": 0.03, "high": 0.06, "n": 140, "percent": True},
        "kappa|x": {"value": 0.31, "low": None, "high": None, "n": 140, "percent": False},
        "undefined": {"value": float("nan"), "low": None, "high": None, "n": 0, "percent": True},
    }
    bits = {"sum": {f"sum/{i}": 1.0 + i / 10 for i in range(5)}}
    rows = {"a": {"right": 5, "results": {"metrics": metrics, "bits_per_byte": bits}}, "b": {"right": 4}}
    run = write_run("x", rows)
    board = build_leaderboard([run])
    text = (run / "leaderboard" / "leaderboard.md").read_text()
    assert "| heldout: prompt sensitivity | 4.1 [3.0, 6.0] | – |" in text
    assert "| heldout: kappa/x | 0.31 | – |" in text and "| heldout: undefined | – | – |" in text
    assert re.search(r"\| heldout: bits/byte \| 1\.200 \[[\d., ]+\] \| – \|", text)
    assert board.lines[0].entries["heldout"].bits.value == pytest.approx(1.2)
    kept = {row["metric"]: row for row in records(run / "leaderboard" / "leaderboard.csv")}
    assert (kept["prompt sensitivity"]["accuracy"], kept["kappa|x"]["accuracy"]) == ("4.10", "0.3100")
    assert kept["undefined"]["accuracy"] == ""


def test_items_that_hang_together_widen_the_interval(write_run):
    clusters = {f"sum/{i}": f"passage {i // 5}" for i in range(10)}
    rows = {"a": {"right": 5}, "b": {"right": 5, "results": {"clusters": clusters}}}
    board = build_leaderboard([write_run("x", rows)])
    ability = board.columns["heldout"].ability
    assert (ability.items, ability.clusters) == (20, 12) and ability.design_effect > 1.5
    plain = build_leaderboard([write_run("y", {"a": {"right": 5}, "b": {"right": 5}})]).columns["heldout"]
    wide = board.columns["heldout"].entries[0].tasks["sum"]
    assert wide.high - wide.low > 1.3 * (plain.entries[0].tasks["sum"].high - plain.entries[0].tasks["sum"].low)
    assert plain.ability.design_effect == 1.0


def test_snr_is_shown_only_where_rows_are_checkpoints(write_run):
    plain = build_leaderboard([write_run("x")])
    assert plain.columns["heldout"].ability.snr is None
    text = (plain.runs[0].folder / "leaderboard" / "leaderboard.md").read_text()
    assert "– (no row is one of several checkpoints)" in text
    rows = {f"small@step-{step}": {"right": right} for step, right in ((1, 4), (2, 5), (3, 4))}
    rows |= {"large": {"right": 9}, "always no": {"right": 1, "settings": {"constant": True}}}
    snr = build_leaderboard([write_run("y", rows)]).columns["heldout"].ability.snr
    # two models at mean 13/30 and 9/10; the small one's checkpoints 0.4, 0.5, 0.4
    signal, noise = (0.9 - 13 / 30) / ((0.9 + 13 / 30) / 2), (0.02 / 9) ** 0.5 / (13 / 30)
    assert (snr.models, snr.checkpoints, snr.snr) == (2, 3, pytest.approx(signal / noise))


def test_rows_with_other_items_are_compared_on_common_ones_and_noted(write_run):
    run = write_run("x")
    change(
        run / "eval" / "row-2" / "results.json",
        lambda value: value["benchmarks"]["heldout"]["scores"]["sum"].pop("sum/0"),
    )
    board = build_leaderboard([run])
    pair = next(p for p in board.columns["heldout"].pairs if p.theirs == 2)
    assert (pair.items, pair.left_out) == (19, 1)
    assert any(note.startswith("CAUTION: rows of heldout answered 19 to 20 items") for note in board.notes)
    assert "19 of 20 items" in (run / "leaderboard" / "index.html").read_text()


def test_rows_without_a_benchmark_have_a_dash_and_no_rank(write_run):
    board = build_leaderboard([write_run("x", {"a": {"right": 5}, "b": {"right": 4, "only": ["critique"]}})])
    assert board.columns["heldout"].ranks == {0: (1, 1)} and board.columns["heldout"].pairs == []
    text = (board.runs[0].folder / "leaderboard" / "leaderboard.md").read_text()
    assert "| sum | 50 [24, 76] | – |" in text


def test_rows_scored_unlike_one_another_are_noted(write_run):
    run = write_run("x")
    change(run / "eval" / "row-0" / "results.json", lambda v: v["benchmarks"]["heldout"].update(on_failure="expected"))
    notes = build_leaderboard([run]).notes
    assert "CAUTION: rows of heldout are scored unlike one another: unparsed answers count as expected, wrong." in notes


def test_several_runs_make_one_page_and_clashing_names_tell_their_run(write_run, tmp_path):
    runs = [write_run("one"), write_run("two", {"base": {"right": 3, "baseline": True}, "new": {"right": 5}})]
    board = build_leaderboard(runs, tmp_path / "both")
    assert [line.name for line in board.lines] == ["one: base", "base, 3 examples", "SFT", "two: base", "new"]
    assert board.title == "one + two" and (tmp_path / "both" / "index.html").exists()
    assert not (runs[0] / "leaderboard").exists()
    with pytest.raises(UserError, match="say where it goes with --output"):
        build_leaderboard(runs)


def test_rows_the_run_no_longer_names_are_left_out_and_said_to_be(write_run):
    run = write_run("x")
    change(run / "eval" / "run.json", lambda value: value.update(order=["SFT", "later"], baselines=[]))
    board = build_leaderboard([run])
    assert [line.name for line in board.lines] == ["SFT"]
    assert "Left out, as the run no longer names them: base, base, 3 examples." in board.notes
    assert "Not evaluated yet: later." in board.notes


def test_a_run_without_run_json_is_shown_by_its_folders(write_run):
    run = write_run("x")
    (run / "eval" / "run.json").unlink()
    board = build_leaderboard([run])
    assert board.title == "x" and len(board.lines) == 3 and not any(line.is_baseline for line in board.lines)


def test_training_curves_of_a_run_are_drawn(write_run):
    run = write_run("x")
    (run / "sft").mkdir()
    lines = [{"step": step, "loss/sum": 3 - step / 5, f"loss/{HOSTILE}": 2.0} for step in range(1, 9)]
    (run / "sft" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    build_leaderboard([run])
    page = (run / "leaderboard" / "index.html").read_text()
    assert "SFT: loss by task" in page and "<svg" in page and HOSTILE not in page


def test_characters_that_cannot_be_seen_are_shown(write_run):
    assert visible("a\u202eb\x00c\ud800 é – 字") == "a\ufffdb\ufffdc\ufffd é – 字"
    rows = {"going \u202eback": {"right": 5, "settings": {"model": "half \ud800"}}, "b": {"right": 4}}
    board = build_leaderboard([write_run("x", rows, samples=True)])
    assert (board.lines[0].name, board.lines[0].description) == ("going \ufffdback", "half \ufffd")
    with pytest.raises(UserError, match="name: Input should be a valid string"):
        build_leaderboard([write_run("y", {"\ud800": {"right": 5}})])


def test_samples_are_kept_whole_and_what_prompts_share_once(write_run):
    wrote = "worked example " * 500
    run = write_run("x", {"a": {"right": 6}}, {"heldout": ("macro", ["sum"])}, items=450, samples=True, wrote=wrote)
    build_leaderboard([run])
    folder = run / "leaderboard" / "samples" / "1-a" / "1-heldout"
    assert sorted(path.name for path in folder.glob("part-*.js")) == ["part-0.js", "part-1.js", "part-2.js"]
    whole = re.fullmatch(r"part\(1, (.*)\);\n", (folder / "part-1.js").read_text())
    part = json.loads(whole[1])
    assert len(part["samples"]) == 200 and part["starts"] == [f"{wrote}: question "]
    sample = part["samples"][7]
    role, start, rest = sample["prompt"][0]
    assert (role, part["starts"][start] + rest) == ("user", f"{wrote}: question 207?")
    assert (sample["id"], sample["right"], sample["state"], sample["cut"]) == ("sum/207", "207", "unparsed", True)
    assert sample["completion"] == f"{wrote} 207" and sample["answer"] is None


def test_a_run_without_samples_has_no_links(write_run):
    run = write_run("x")
    build_leaderboard([run])
    assert 'href="samples/' not in (run / "leaderboard" / "index.html").read_text()


def test_a_torn_last_line_and_a_sample_stored_twice_are_passed_over(write_run):
    run = write_run("x", {"a": {"right": 6}}, {"heldout": ("macro", ["sum"])}, samples=True)
    file = run / "eval" / "row-0" / "samples.jsonl"
    lines = file.read_text()
    file.write_text(lines + lines.splitlines()[0] + "\n" + '{"benchmark": "held')
    build_leaderboard([run])
    page = (run / "leaderboard" / "samples" / "1-a" / "1-heldout" / "index.html").read_text()
    assert len(json.loads(re.search(r'type="application/json">(.*)</script>', page)[1])) == 10


def test_building_again_replaces_what_was_there(write_run):
    run = write_run("x", samples=True)
    build_leaderboard([run])
    for path in (run / "eval" / "row-2").iterdir():
        path.unlink()
    (run / "eval" / "row-2").rmdir()
    build_leaderboard([run])
    assert len(list((run / "leaderboard" / "samples").iterdir())) == 2
    assert not list((run / "leaderboard").glob(".*"))


def test_panels_share_one_scale_and_skip_missing_points():
    one, two = panels([{"step": 1, "loss/a": 4.0}, {"step": 2, "loss/a": None, "loss/b": 1.0}], "loss/")
    assert (one.task, two.task) == ("a", "b") and one.ticks == two.ticks
    assert len(one.points.split()) == len(two.points.split()) == 1
    assert panels([], "loss/") == []


def result(edit):
    return lambda run: change(run / "eval" / "row-0" / "results.json", edit)


def benchmark(**values):
    return result(lambda value: value["benchmarks"]["heldout"].update(values))


def one_score(score):
    return result(lambda value: value["benchmarks"]["heldout"]["scores"]["sum"].update({"sum/0": score}))


def about(**values):
    return lambda run: change(run / "eval" / "run.json", lambda value: value.update(values))


def line(file, text):
    def damage(run):
        with open(run / "eval" / "row-0" / file, "ab") as out:
            out.write(text.encode() + b"\n")

    return damage


def put(file, content):
    return lambda run: (run / "eval" / file).write_bytes(content)


DAMAGED = {
    "no results": (
        lambda run: [path.unlink() for path in run.glob("eval/*/results.json")],
        "nothing has been evaluated here; run 'whetstone eval FILE' first",
    ),
    "broken JSON": (put("row-0/results.json", b'{"name": "ba'), "results.json: not a readable JSON file"),
    "an empty file": (put("row-0/results.json", b""), "not a readable JSON file"),
    "no text": (put("row-0/results.json", b"\xff\xfe\x00"), "not a readable JSON file"),
    "too deep": (put("row-0/results.json", b"[" * 100_000), "not a readable JSON file"),
    "a list": (put("row-0/results.json", b"[]"), "valid dictionary"),
    "no name": (result(lambda v: v.pop("name")), "the key 'name' is missing"),
    "an empty name": (result(lambda v: v.update(name="")), "name: String should have at least 1 character"),
    "a number for a name": (result(lambda v: v.update(name=3)), "name: Input should be a valid string, not 3"),
    "no benchmarks": (result(lambda v: v.pop("benchmarks")), "the key 'benchmarks' is missing"),
    "no scores": (result(lambda v: v["benchmarks"]["heldout"].pop("scores")), "heldout.scores' is missing"),
    "a score above one": (one_score(1.5), "scores.sum.sum/0: Input should be less than or equal to 1, not 1.5"),
    "a score below zero": (one_score(-0.1), "greater than or equal to 0, not -0.1"),
    "a score that is no number": (one_score(float("nan")), "should be a finite number"),
    "a score as text": (one_score("1"), "should be a valid number, not '1'"),
    "a score of true": (one_score(True), "should be a valid number, not True"),
    "no score": (one_score(None), "should be a valid number, not None"),
    "scores in a list": (benchmark(scores=[1, 0]), "heldout.scores: Input should be a valid dictionary"),
    "an unknown headline": (benchmark(headline="median"), "headline: Input should be 'micro' or 'macro', not 'median'"),
    "another headline": (benchmark(headline="micro"), "'base' is a mean over items and 'SFT' one over tasks"),
    "more unparsed than asked": (benchmark(unparsed={"sum": 11}), "11 unparsed of 10 answers to 'sum'"),
    "unparsed of what was not asked": (benchmark(unparsed={"other": 1}), "1 unparsed of 0 answers to 'other'"),
    "a negative count": (benchmark(answers={"sum": -1}), "answers.sum: Input should be greater than or equal to 0"),
    "clusters in a list": (benchmark(clusters=["a"]), "clusters: Input should be a valid dictionary"),
    "a metric without a value": (benchmark(metrics={"f1": {"low": 0}}), "metrics.f1.value' is missing"),
    "a metric that is a number": (benchmark(metrics={"f1": 0.5}), "metrics.f1: Input should be a valid dictionary"),
    "endless bits": (benchmark(bits_per_byte={"sum": {"sum/0": float("inf")}}), "should be a finite number"),
    "endless seconds": (benchmark(seconds=float("inf")), "seconds: Input should be a finite number"),
    "the same row twice": (
        result(lambda v: v.update(name="SFT")),
        "row-2/results.json: a second row called 'SFT', after",
    ),
    "nobody answered": (
        lambda run: [change(path, lambda v: v.update(benchmarks={})) for path in run.glob("eval/*/results.json")],
        "no row has a score; run 'whetstone eval FILE' again",
    ),
    "an unknown baseline": (about(baselines=["SFX"]), "the baseline 'SFX' is none of the rows in order (did you mean"),
    "an order of other rows": (about(order=["x", "y"], baselines=[]), "none of its rows (x, y) has results"),
    "an order that is text": (about(order="SFT"), "run.json: order: Input should be a valid list"),
    "a broken run.json": (put("run.json", b"{"), "run.json: not a readable JSON file"),
    "a broken sample": (line("samples.jsonl", "{"), "samples.jsonl, line 41: not a JSON object"),
    "a sample in a list": (line("samples.jsonl", "[1]"), "samples.jsonl, line 41: not a JSON object"),
    "a sample without a prompt": (
        line("samples.jsonl", '{"benchmark": "heldout", "id": "x", "completion": ""}'),
        "samples.jsonl, line 41: no sample with benchmark, id, prompt and completion",
    ),
    "a sample whose prompt is text": (
        line("samples.jsonl", '{"benchmark": "heldout", "id": "x", "completion": "", "prompt": "hm"}'),
        "samples.jsonl, line 41: no sample with",
    ),
    "a sample number without end": (
        line(
            "samples.jsonl", '{"benchmark": "heldout", "id": "x", "completion": "", "prompt": [], "sample": Infinity}'
        ),
        "samples.jsonl, line 41: no sample with",
    ),
    "a verdict without an id": (line("verdicts.jsonl", '{"score": 1}'), "verdicts.jsonl, line 41: not the verdict"),
    "a verdict in words": (
        line("verdicts.jsonl", '{"benchmark": "heldout", "id": "x", "score": "good"}'),
        "verdicts.jsonl, line 41: not the verdict on a sample",
    ),
    "no verdicts": (
        lambda run: (run / "eval" / "row-0" / "verdicts.jsonl").unlink(),
        "its samples have no verdicts; run 'whetstone score RUN' first",
    ),
    "a broken item": (put("items.jsonl", b'{"id": \n'), "items.jsonl, line 1: not a JSON object"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_run_folders_are_answered_in_a_sentence(name, write_run):
    damage, told = DAMAGED[name]
    run = write_run("x", samples=True)
    damage(run)
    with pytest.raises(UserError) as caught:
        build_leaderboard([run])
    said = str(caught.value)
    assert told in said and "\n" not in said and (str(run) in said or "score" in said)
    assert not (run / "leaderboard" / "index.html").exists() and not list(run.glob("leaderboard/.*"))


def test_folders_that_are_none_or_given_twice_are_refused(write_run, tmp_path):
    run = write_run("x")
    for folders, told in (
        ([], "no run folder; give at least one"),
        ([tmp_path / "nowhere"], "no such folder; give a run folder"),
        ([tmp_path], "nothing has been evaluated here"),
        ([run, run / "."], "given twice; name every run folder once"),
    ):
        with pytest.raises(UserError, match=told):
            build_leaderboard(folders, tmp_path / "out")


def test_a_folder_of_somebody_elses_is_not_written_over(write_run, tmp_path):
    run = write_run("x")
    theirs = tmp_path / "results" / "samples" / "mine.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(UserError, match="samples: not a leaderboard's"):
        build_leaderboard([run], tmp_path / "results")
    assert theirs.read_text() == "precious"
    build_leaderboard([run], tmp_path / "board")
    build_leaderboard([run], tmp_path / "board")  # its own it may replace
