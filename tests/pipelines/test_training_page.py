"""The live page of a training run: what it says, how it is thinned, and how it behaves in a browser."""

import json
import os
import re
from math import exp, nan

import numpy as np
import pytest

from pipelines import training_log, training_page
from pipelines.training_log import BUCKETS, Series, TrainingLog
from pipelines.training_page import PageWriter, duration, write_page
from pipelines.training_plot import Curve, chart, span_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e'\"{{7*7}}\x00\ud800/it"
TASKS = ["critique/chain_sum", "finqa", HOSTILE]
PHONE = {"width": 390, "height": 844}


def training(step, tasks, **more):
    line = {"step": step, "seconds": step * 2.0, "loss": 3 * exp(-step / 50), "grad_norm": 1.0, "learning_rate": 1e-4}
    line |= {"epoch": step / 100}
    for number, task in enumerate(tasks):
        line |= {f"loss/{task}": number + 3 * exp(-step / 50), f"accuracy/{task}": 0.5 + step / 1000}
        line |= {f"tokens/{task}": 100, f"seen_tokens/{task}": 100 * step, f"share/{task}": 1 / len(tasks)}
    return line | more


def held_out(step, tasks, name="heldout", **more):
    losses = {f"eval_{name}/loss/{task}": 1 + abs(step - 40) / 100 + n for n, task in enumerate(tasks)}
    accuracies = {f"eval_{name}/accuracy/{task}": 0.625 for task in tasks}
    return {"step": step, "seconds": step * 2.0, f"eval_{name}/loss": 2.0, **losses, **accuracies, **more}


def write(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(folder, tasks=TASKS, steps=100, **more):
    """A run that is set aside on its first task at step 60."""
    lines = []
    for step in range(5, steps + 1, 5):
        lines.append(training(step, tasks, **more))
        if step % 20 == 0:
            lines.append(held_out(step, tasks, **({f"stopped/{tasks[0]}": 60} if step >= 60 else {})))
            lines.append({"step": step, "seconds": step * 2.0, "eval_generated/gsm8k": 20.0 + step / 10})
    write(folder, lines)
    return folder


def text_of(folder):
    return (folder / "progress.html").read_text(encoding="utf-8")


def series(values):
    made = Series()
    made.extend(np.array([(step, value) for step, value in enumerate(values, start=1)], dtype=float))
    return made


def test_a_short_series_keeps_every_point_and_a_long_one_its_extremes():
    assert series([3.0, 1.0, 2.0]).points(400).tolist() == [[1, 3, 3, 3], [2, 1, 1, 1], [3, 2, 2, 2]]
    values = np.sin(np.arange(50_001))
    values[31_234], values[40_000] = 90.0, -70.0
    one = series(values)
    points = one.points(2 * BUCKETS)
    assert BUCKETS <= len(points) <= 2 * BUCKETS + 1
    assert points[:, 3].max() == 90 and points[:, 2].min() == -70
    assert (one.lowest, one.lowest_step, one.highest, one.last_step) == (-70, 40_001, 90, 50_001)
    assert np.all(np.diff(points[:, 0]) > 0)
    few = one.points(60)
    assert len(few) <= 61 and few[:, 3].max() == 90
    assert Series().points(10).shape == (0, 4)


def test_a_series_that_grows_point_by_point_is_the_one_that_came_at_once():
    values = np.cos(np.arange(1_777) / 30)
    grown = Series()
    for step, value in enumerate(values, start=1):
        grown.extend(np.array([[step, value]]))
    assert np.allclose(grown.points(400), series(values).points(400))


def test_the_log_is_read_as_it_grows_each_line_once(tmp_path, monkeypatch):
    parsed = []
    whole = training_log._parsed
    monkeypatch.setattr(training_log, "_parsed", lambda lines: parsed.extend(lines) or whole(lines))
    run(tmp_path)
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    assert len(parsed) == 30 and log.step == 100
    with open(log._path, "a") as file:
        file.write(json.dumps(training(105, TASKS)) + '\n{"step": 110, "loss"')  # torn, or half written
    log.read_new()
    assert len(parsed) == 31 and log.step == 105 and log.unreadable == 0
    with open(log._path, "a") as file:
        file.write(": 0.5}\n")
    log.read_new()
    assert log.step == 110 and log.series["loss"].last == 0.5
    log.read_new()
    assert len(parsed) == 32


def test_a_log_written_anew_is_read_from_its_start(tmp_path):
    run(tmp_path, steps=100)
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][:15]
    write(tmp_path / "new", kept + [training(step, ["other"]) for step in range(60, 900, 5)])
    os.replace(tmp_path / "new" / "metrics.jsonl", tmp_path / "metrics.jsonl")  # as resuming does
    log.read_new()
    assert "other" in log.tasks and len(log.series["loss/finqa"].points(400)) == 11 and log.step == 895


def test_every_line_that_is_no_metrics_is_left_out_and_counted(tmp_path):
    run(tmp_path)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(
            b'nonsense\n[1]\n{"loss": 1}\n{"step": "5"}\n\xff\xfe\n{"step": 101, "loss": "low", "epoch": null}\n'
        )
    write_page(tmp_path, "run", 100, running=False)
    assert "5 lines of metrics.jsonl could not be read" in text_of(tmp_path)


def test_losses_that_are_not_numbers_are_said_and_not_drawn(tmp_path):
    lines = [training(step, ["a"], **({"loss/a": nan, "grad_norm": float("inf")} if step > 30 else {}))
             for step in range(5, 60, 5)]  # fmt: skip
    write(tmp_path, lines)
    write_page(tmp_path, "run", None, running=True)
    page = text_of(tmp_path)
    assert "loss/a was not a finite number on 5 lines, first at step 35." in page
    assert "nan" not in page.partition("<body>")[2].replace("finance", "")


def test_nothing_logged_yet_is_a_page_too(tmp_path):
    write_page(tmp_path, "run", 10, running=True)
    assert "No loss has been logged yet" in text_of(tmp_path)
    write(tmp_path, [{"step": 10, "seconds": 3.0, "train_runtime": 3.0, "epoch": 1.0}])
    write_page(tmp_path, "run", 10, running=False)
    assert "finished" in text_of(tmp_path)


def test_a_run_whose_tasks_were_all_set_aside_is_finished(tmp_path):
    for tasks, state in ((["a"], "finished"), (["a", "b"], "stopped")):
        write_page(run(tmp_path, tasks=tasks), "run", 1000, running=False)
        assert f'class="state {state}"' in text_of(tmp_path)


def test_the_table_says_what_the_log_says(tmp_path):
    run(tmp_path, tasks=["critique/chain_sum", "finqa"])
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    finqa, critique = (training_page._row(log, task) for task in log.tasks)  # critiques come last
    assert (finqa["task"], critique["task"]) == ("finqa", "critique/chain_sum")
    assert finqa["tokens"] == 10_000 and finqa["share"] == 0.5 and finqa["held_accuracy"] == 0.625
    assert finqa["loss"] == pytest.approx(1 + 3 * exp(-2)) and finqa["accuracy"] == pytest.approx(0.6)
    assert (finqa["best"], finqa["best_step"], finqa["held"], finqa["held_step"]) == (2.0, 40, 2.6, 100)
    assert (critique["stopped"], finqa["stopped"]) == (60, None)
    assert finqa["set"] == "" and finqa["weight"] is None


def test_other_evaluation_sets_and_benchmarks_with_slashes_are_told_apart(tmp_path):
    lines = [training(5, ["a"]), held_out(5, ["a", "b/c"], name="far"), held_out(5, ["a"])]
    lines.append({"step": 5, "seconds": 1.0, "eval_generated/loss/gsm8k": 33.0, "weight/a": 1.0})
    write(tmp_path, lines)
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    assert log.sets == ["heldout", "far"] and log.tasks == ["a", "b/c"]
    shown = training_page._shown(log)
    assert [one.name for one in shown["generated"]] == ["loss/gsm8k"]
    assert [[curve.name for curve in one.curves] for one in shown["loss_by_task"]] == [
        ["training", "heldout", "far"],
        ["far"],
    ]
    assert [row["set"] for row in shown["rows"]] == ["", "far"]
    assert [one.name for one in shown["weights"]] == ["a"]


def test_marks_stand_where_they_belong():
    train = series(np.full(101, 2.0) + np.tile([0.1, -0.1], 51)[:101])
    held = Series()
    held.extend(np.array([(1, 3.0), (51, 1.0), (101, 2.0)]))
    curves = [Curve("train", "training", train, noisy=True), Curve("held0", "heldout", held)]
    drawn = chart("t", curves, span_of([train, held]), 400, stop=76, mark_best=True, bounds=(0.0, 4.0))
    assert drawn.stop == (750, 76)
    assert drawn.best == [(500, 750, "heldout: lowest, 1.000 at step 51")]
    assert [dot[:2] for dot in drawn.curves[1].dots] == [(0, 250), (500, 750), (1000, 500)]
    assert drawn.curves[1].smooth == "M0 250L500 750L1000 500"
    assert (0, "4") in drawn.ticks and (1000, "0") in drawn.ticks and not drawn.is_log


def test_one_spike_does_not_flatten_the_chart_and_decades_are_logarithmic():
    values = np.linspace(2.0, 1.0, 100)
    values[50] = 500.0
    spiky = [Curve("train", "training", series(values[[*range(50), *range(51, 100)]]), noisy=True)]
    plain = chart("t", spiky, (1, 99), 400)
    assert max(float(label) for _, label in plain.ticks) <= 2
    wide = chart("t", [Curve("train", "training", series(10.0 ** np.linspace(1, -2, 60)))], (1, 60), 400, log=True)
    assert wide.is_log and {"0.1", "1"} <= {label for _, label in wide.ticks}
    below = chart("t", [Curve("train", "training", series(np.linspace(100, 0, 60)))], (1, 60), 400, log=True)
    assert not below.is_log


def test_shares_are_stacked_to_the_whole_and_small_tasks_drawn_as_one(tmp_path):
    tasks = [f"task_{number}" for number in range(12)]
    run(tmp_path, tasks=tasks)
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    bands = training_page._shown(log)["shares"]
    assert [band["name"] for band in bands][-1] == "4 smaller tasks" and len(bands) == 9
    assert sum(band["share"] for band in bands) == pytest.approx(1)
    assert bands[0]["path"].startswith("M0 917") and bands[-1]["path"].startswith("M0 0L")
    assert log.tasks[:3] == ["task_0", "task_1", "task_2"] and log.tasks[-1] == "task_11"


def test_a_long_run_of_many_tasks_makes_a_small_page(tmp_path):
    tasks = [f"critique/task_{number}" for number in range(60)]
    run(tmp_path, tasks=tasks, steps=5_000, **{f"weight/{task}": 1.0 for task in tasks})
    write_page(tmp_path, "run", 5_000, running=False)
    assert (tmp_path / "progress.html").stat().st_size < 700_000
    run(tmp_path, tasks=["one"], steps=50_000)
    write_page(tmp_path, "run", 50_000, running=False)
    longest = max(len(path.split("L")) for path in re.findall(r' d="(M[^"]+)"', text_of(tmp_path)))
    assert 200 <= longest <= 402 and (tmp_path / "progress.html").stat().st_size < 100_000


def test_time_is_counted_over_sessions_and_the_rest_from_the_present_one(tmp_path):
    first = [{"step": step, "seconds": step * 10.0, "loss": 1.0} for step in (1, 2, 3)]
    second = [{"step": step, "seconds": (step - 3) * 4.0, "loss": 1.0} for step in (4, 5, 6)]
    write(tmp_path, first + second)
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.read_new()
    assert log.seconds == 42 and log.seconds_per_step == 4
    write_page(tmp_path, "run", 21, running=True)
    assert "step 6 of 21, 42 s of training, about 1 min left" in text_of(tmp_path)
    assert [duration(seconds) for seconds in (3.4, 60, 12_010, 90_000)] == ["3 s", "1 min", "3 h 20 min", "1 d 1 h"]


def test_the_writer_writes_seldom_and_says_once_that_it_cannot(tmp_path, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(training_page.time, "monotonic", lambda: now[0])
    run(tmp_path)
    page, writer = tmp_path / "progress.html", PageWriter(tmp_path, "run", 1000)
    writer.update()
    assert '<meta http-equiv="refresh" content="10">' in text_of(tmp_path)
    page.unlink()
    now[0] += 4.9
    writer.update()
    assert not page.exists()
    now[0] += 0.2
    writer.update()
    assert page.exists()
    page.unlink()
    writer.update(force=True)
    assert page.exists()
    writer.close()
    assert "http-equiv" not in text_of(tmp_path) and ">stopped<" in text_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_page, "write_atomically", full)
    writer.update(force=True)
    writer.update(force=True)
    assert capsys.readouterr().out.count("No space left on device") == 1


@pytest.fixture
def open_page(open_file):
    """Open a folder's page."""
    return lambda folder, **media: open_file(folder / "progress.html", **media)


def test_hostile_names_do_nothing(tmp_path, open_page):
    write_page(run(tmp_path, **{f"weight/{HOSTILE}": 1.0}), HOSTILE, 200, running=True)
    page = open_page(tmp_path)
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1
    seen = page.locator("#tasks td:first-child").all_inner_texts()
    assert "finqa" in seen and any(name.startswith("</script><script>alert(1)") and "{{7*7}}" in name for name in seen)
    assert "\u202e" not in page.content() and page.locator("h1").inner_text().startswith("</script>")


def test_the_page_shows_stops_lowest_points_and_every_section(tmp_path, open_page):
    write_page(run(tmp_path, **{f"weight/{task}": 0.5 for task in TASKS}), "a run", 200, running=True)
    page = open_page(tmp_path)
    assert page.locator("h2").all_inner_texts() == [
        "Loss", "Tasks", "Loss by task", "Token accuracy by task", "Share of tokens seen by task",
        "Loss weight by task", "Benchmark scores of generated answers",
    ]  # fmt: skip
    loss = page.locator(".panels").first
    stopped = loss.locator("figure", has_text="critique/chain_sum")
    assert stopped.locator(".at").inner_text() == "stopped at 60"
    assert loss.locator(".at").count() == 1
    assert stopped.locator(".ring title").text_content() == "heldout: lowest, 1.000 at step 40"
    box, mark = stopped.locator("svg").bounding_box(), stopped.locator("path.stop").bounding_box()
    assert mark["x"] + mark["width"] / 2 - box["x"] == pytest.approx(box["width"] * 55 / 95, abs=2)
    assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "10"
    write_page(tmp_path, "a run", 100, running=False)
    finished = open_page(tmp_path)
    assert finished.locator("meta[http-equiv=refresh]").count() == finished.locator("script").count() == 0
    assert finished.locator(".state").inner_text() == "finished"


def test_a_page_that_no_longer_changes_says_so(tmp_path, open_page):
    write_page(run(tmp_path), "a run", 200, running=True)
    assert "killed" not in open_page(tmp_path).inner_text("body")
    path = tmp_path / "progress.html"
    path.write_text(re.sub(r'datetime="\d{4}', 'datetime="2020', path.read_text(encoding="utf-8")), encoding="utf-8")
    assert "or have been killed" in open_page(tmp_path).inner_text("body")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tasks", [1, 60])
def test_a_phone_shows_everything_without_scrolling_sideways(tmp_path, open_page, tasks, scheme):
    names = [f"critique/{'long' * 20}_{number}" for number in range(tasks)]
    write_page(run(tmp_path, tasks=names), "x" * 200, 200, running=True)
    page = open_page(tmp_path, color_scheme=scheme)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    narrow = page.evaluate("Math.min(...[...document.querySelectorAll('.plot')].map(plot => plot.clientWidth))")
    small = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.plot i')].map(i => parseFloat(getComputedStyle(i).fontSize)))"
    )
    assert narrow >= 120 and small >= 10
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")
