"""`whetstone route choose`, `import`, `simulate`: from pairs to people and back into a recipe, and what is refused."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from data_recipes.recipe import TaskRecipe
from data_recipes.rendering import row_of
from data_recipes.sources import Place, open_source
from pipelines.routing.label_studio import b_stands_left
from tests.pipelines.routing_pairs import made_pairs


@pytest.fixture
def pairs():
    """Ninety pairs, two thirds of them labelled by people."""
    return [p if n < 60 else p.model_copy(update={"human": None}) for n, p in enumerate(made_pairs(90))]


def written(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row if isinstance(row, dict) else row.model_dump()) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def annotated(task: dict, *choices: str | None) -> dict:
    """Return a task as Label Studio exports it; None: that annotator skipped it."""
    annotations = []
    for number, choice in enumerate(choices, start=1):
        value = {"value": {"choices": [choice]}, "id": "ab12", "from_name": "preference", "to_name": "prompt"}
        result = [value | {"type": "choices", "origin": "manual"}] if choice else []
        annotations.append({"id": number, "completed_by": number, "result": result, "was_cancelled": choice is None})
    return {"id": 7, **task, "annotations": annotations, "predictions": [], "project": 1}


def side(pair_id: str, answer: str) -> str:
    """Return where an answer of a pair was shown."""
    return "left" if b_stands_left(pair_id) == (answer == "b") else "right"


def test_pairs_go_to_people_and_come_back_as_preferences(here, tmp_path, pairs):
    file = written(tmp_path / "pairs.jsonl", pairs)
    result = here("route", "choose", str(file), "--budget", "8", "--output", str(tmp_path / "ask"))
    assert result.returncode == 0, result.stderr
    assert "length_difference high" in result.stdout and "8 of 30 pairs chosen" in result.stdout
    chosen, tasks = lines(tmp_path / "ask" / "chosen.jsonl"), json.loads((tmp_path / "ask" / "tasks.json").read_text())
    truth = {pair.id: pair for pair in made_pairs(90)}
    names = [task["data"]["pair"] for task in tasks]
    assert {row["id"] for row in chosen} == set(names) and len(names) == 8
    assert all(truth[name].ai != truth[name].human for name in names), "those on which the model errs"
    assert all("length_difference high" in row["tags"] for row in chosen)
    assert [row["gain"] for row in chosen] == sorted((row["gain"] for row in chosen), reverse=True)
    assert json.loads((tmp_path / "ask" / "gain.json").read_text())["r2"] > 0.5

    for task in tasks:
        data, pair = task["data"], truth[task["data"]["pair"]]
        assert set(task) == {"data"} and set(data) == {"pair", "prompt", "left", "right"}, "no label is shown"
        assert data[side(pair.id, "a")] == pair.a and data[side(pair.id, "b")] == pair.b
    fields = ElementTree.parse(tmp_path / "ask" / "config.xml")
    shown = {text.get("name"): text.get("value") for text in fields.iter("Text")}
    assert shown == {name: f"${name}" for name in ("prompt", "left", "right")}

    right = [side(name, truth[name].human) for name in names]
    wrong = [side(name, truth[name].ai) for name in names]
    export = [
        annotated(tasks[0], right[0]),
        annotated(tasks[1], right[1], wrong[1], right[1]),
        annotated(tasks[2], right[2], None),
        annotated(tasks[3], "tie"),
        annotated(tasks[4], right[4], wrong[4]),
        annotated(tasks[5]),
        annotated(tasks[6], None),
        annotated(tasks[7], wrong[7]),
    ]
    (tmp_path / "export.json").write_text(json.dumps(export))
    told = here("route", "import", str(file), str(tmp_path / "export.json"), "--output", str(tmp_path / "labelled"))
    assert told.returncode == 0, told.stderr
    assert "8 tasks: 6 labelled, 3 against the model's label; 2 ties dropped" in told.stdout
    assert "annotators differed on 2 (1 without a majority); 2 unlabelled" in told.stdout
    after = {row["id"]: row for row in lines(tmp_path / "labelled" / "pairs.jsonl")}
    given = [truth[names[n]].human for n in (0, 1, 2)] + ["tie", "tie", None, None, truth[names[7]].ai]
    assert [after[name]["human"] for name in names] == given
    assert all(row == after[row["id"]] for row in (p.model_dump() for p in pairs) if row["id"] not in names)

    rows = {row["id"]: row for row in lines(tmp_path / "labelled" / "preferences.jsonl")}
    assert set(after) - set(rows) == {names[3], names[4]}, "ties are dropped"
    first = truth[names[0]]
    better, worse = (first.a, first.b) if first.human == "a" else (first.b, first.a)
    assert rows[names[0]] == {
        "id": names[0], "prompt": first.prompt, "chosen": better, "rejected": worse, "label": "human",
    }  # fmt: skip
    assert rows[names[5]]["label"] == "ai" and rows[names[7]]["label"] == "human"

    source = open_source({"type": "files", "path": "labelled/preferences.jsonl"}, Place(tmp_path), "recipe")
    task = TaskRecipe(kind="instruction", source={"type": "files"}, licence="MIT")
    made = [row_of("prefer", task, "files@1", record, "recipe") for record in source.records()]
    assert len(made) == 88 and all(row.chosen and row.rejected and row.question for row in made)

    # asked again, from what was imported: the ties are not asked a second time; imported again, nothing changes
    file = tmp_path / "labelled" / "pairs.jsonl"
    again = here("route", "choose", str(file), "--budget", "24", "--output", str(tmp_path / "ask2"))
    assert again.returncode == 0, again.stderr
    asked = {row["id"] for row in lines(tmp_path / "ask2" / "chosen.jsonl")}
    assert len(asked) == 24 and asked & set(names) == {names[5], names[6]}
    same = here("route", "import", str(file), str(tmp_path / "export.json"), "--output", str(tmp_path / "same"))
    assert same.returncode == 0, same.stderr
    assert (tmp_path / "same" / "pairs.jsonl").read_bytes() == file.read_bytes()


def test_the_first_labels_are_drawn(here, tmp_path):
    file = written(tmp_path / "pairs.jsonl", [p.model_copy(update={"human": None}) for p in made_pairs(50)])
    refused = here("route", "choose", str(file), "--budget", "9", "--output", str(tmp_path / "x"))
    assert refused.returncode == 2 and "0 pairs have a human label" in refused.stderr and "--random" in refused.stderr
    assert not (tmp_path / "x").exists()
    drawn = []
    for folder, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        how = ["--budget", "9", "--random", "--seed", seed, "--output", str(tmp_path / folder)]
        assert here("route", "choose", str(file), *how).returncode == 0
        drawn.append((tmp_path / folder / "tasks.json").read_text())
    assert drawn[0] == drawn[1] != drawn[2] and len(json.loads(drawn[0])) == 9


def test_either_answer_stands_left_for_half_of_the_ids():
    assert 400 < sum(b_stands_left(f"p{n}") for n in range(1000)) < 600


GOOD = {"id": "x", "prompt": "Which?", "a": "this", "b": "that", "ai": "a", "human": None}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({**GOOD, "id": "y", "ai": "A"}, "line 2: ai"),
        ({key: value for key, value in GOOD.items() if key != "b"}, "line 2: the key 'b' is missing"),
        ({**GOOD, "id": "y", "humann": "a"}, "did you mean 'human'?"),
        (GOOD, "line 2: the id 'x' is that of line 1, too"),
        ({**GOOD, "id": "y", "prompt": ["a", "turn"]}, "line 2: prompt"),
    ],
)
def test_lines_that_are_no_pairs(here, tmp_path, line, told):
    file = written(tmp_path / "pairs.jsonl", [GOOD, line])
    result = here("route", "choose", str(file), "--budget", "1", "--random", "--output", str(tmp_path / "out"))
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert str(file) in result.stderr and told in result.stderr
    assert not (tmp_path / "out").exists()


def test_files_and_options_that_cannot_be(here, tmp_path):
    file, out = written(tmp_path / "pairs.jsonl", [GOOD]), str(tmp_path / "out")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "torn.jsonl").write_text(json.dumps(GOOD) + '\n{"id": "y", "pro')
    (tmp_path / "there").mkdir()
    for words, told in (
        (["choose", str(tmp_path / "none.jsonl"), "--budget", "1", "--output", out], "no such file"),
        (["choose", str(tmp_path / "empty.jsonl"), "--budget", "1", "--output", out], "holds no pair"),
        (["choose", str(tmp_path / "torn.jsonl"), "--budget", "1", "--output", out], "line 2: not a JSON object"),
        (
            ["choose", str(file), "--budget", "2", "--output", out],
            "--budget 2 cannot be: pairs without a human label: 1",
        ),
        (["choose", str(file), "--budget", "1", "--output", str(tmp_path / "there")], "is there already"),
        (["chose", str(file)], "route choose, route import, route simulate"),
    ):
        result = here("route", *words)
        assert result.returncode == 2 and told in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert list((tmp_path / "there").iterdir()) == []


def changed(task: dict, **data: str) -> dict:
    return {**task, "data": {**task["data"], **data}}


TASK = {"data": {"pair": "x", "prompt": "Which?", side("x", "a"): "this", side("x", "b"): "that"}}
DONE = annotated(TASK, "left")
MIN = {"id": 1, "pair": "x", "preference": "left", "annotator": 1}


@pytest.mark.parametrize(
    ("export", "told"),
    [
        ({"tasks": []}, "not a list of tasks"),
        ([MIN], "task 1: no data and annotations (exported as JSON-MIN?); export the project again, as JSON"),
        ([DONE, annotated(changed(TASK, pair="xx"), "left")], "task 2: no pair 'xx' in the file of pairs (did you"),
        ([annotated(changed(TASK, left="else"), "left")], "task 1: its text 'left' is not that of the pair 'x'"),
        ([DONE, DONE], "task 2: the pair 'x' is that of "),
        ([annotated(TASK, "middle")], "task 1: the choice ['middle'] is not one of left, right, tie; use config.xml"),
        ([{**TASK, "annotations": [{"id": 1}]}], "task 1: an annotation without a result"),
        ("{", "not valid JSON"),
    ],
)  # fmt: skip
def test_exports_that_cannot_be_read(here, tmp_path, export, told):
    file = written(tmp_path / "pairs.jsonl", [GOOD])
    path = tmp_path / "export.json"
    path.write_text(export if isinstance(export, str) else json.dumps(export))
    result = here("route", "import", str(file), str(path), "--output", str(tmp_path / "out"))
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert str(path) in result.stderr and told in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_label_that_contradicts_the_file_is_refused(here, tmp_path):
    label = {"left": "b", "right": "a"}["left" if b_stands_left("x") else "right"]
    other = {"a": "b", "b": "a"}[label]
    file = written(tmp_path / "pairs.jsonl", [{**GOOD, "human": other}])
    (tmp_path / "export.json").write_text(json.dumps([annotated(TASK, side("x", label))]))
    result = here("route", "import", str(file), str(tmp_path / "export.json"), "--output", str(tmp_path / "out"))
    assert result.returncode == 2 and f"is labelled {other!r} and the export says {label!r}" in result.stderr


def test_a_simulation_is_printed_and_written(here, tmp_path):
    file = written(tmp_path / "pairs.jsonl", made_pairs(150))
    how = ["--seeds", "2", "--budgets", "0.3", "--output", str(tmp_path / "sim")]
    result = here("route", "simulate", str(file), *how)
    assert result.returncode == 0, result.stderr
    assert "quadratic" in result.stdout and "seeds better" in result.stdout
    assert [cell["budget"] for cell in json.loads((tmp_path / "sim" / "results.json").read_text())["budgets"]] == [0.3]
