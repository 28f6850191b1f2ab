"""A build gives the same bytes whoever does it, goes on after a kill, and accounts for what it removed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_recipes.distributed import build_in_processes
from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture, prepare
from data_recipes.recipe import load_recipe
from data_recipes.row import Message, Row
from data_recipes.store import HELDOUT, Mixture
from tests.conftest import Words

ROOT = Path(__file__).parents[2]
WORDS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "elk",
    "fox",
    "gnu",
    "hen",
    "ibis",
    "jay",
    "kite",
    "lark",
    "mole",
    "newt",
    "owl",
    "pig",
    "quail",
    "rat",
    "seal",
    "toad",
    "urchin",
    "vole",
    "wasp",
    "yak",
    "zebra",
    "apple",
    "berry",
    "cherry",
    "damson",
    "elder",
    "fig",
    "grape",
    "hazel",
    "iris",
    "juniper",
    "kale",
    "lemon",
    "mango",
    "nut",
    "olive",
    "pear",
    "quince",
    "rose",
]


def sentence(seed: int, length: int = 20) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, length).tolist())


def write_recipe(folder: Path, rows: int = 12_000, extra: str = "") -> Path:
    with open(folder / "rows.jsonl", "w") as file:
        for number in range(rows):
            file.write(
                json.dumps({"prompt": f"{sentence(number)} {number}?", "completion": sentence(-number % 997)}) + "\n"
            )
    (folder / "more.csv").write_text(
        "question,answer\n" + "".join(f"how many {w} in {i},{i}\n" for i, w in enumerate(WORDS))
    )
    (folder / "recipe.yaml").write_text(f"""
tasks:
  large: {{kind: instruction, source: {{type: files, path: rows.jsonl}}, heldout_rows: 20}}
  small: {{kind: domain, source: {{type: files, path: more.csv}}, prompt: "{{{{ question }}}}?",
    verifiers: [number], heldout_rows: 5}}
cleaning: {{protect: heldout{extra}}}
""")  # noqa: E501
    return folder / "recipe.yaml"


def build(path: Path, folder: Path, **kwargs):
    return build_mixture(load_recipe(path.name, beside=path.parent)[0], folder, seed=1, tokenise=Words(), **kwargs)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def test_the_number_of_workers_and_datatrove_change_no_byte(tmp_path):
    path = write_recipe(tmp_path)
    build(path, tmp_path / "one")
    build(path, tmp_path / "two", workers=2)
    recipe, _ = load_recipe(path.name, beside=tmp_path)
    plan, heldout = prepare(recipe, tmp_path / "three", tokenise=Words())
    build_in_processes(plan, heldout, tmp_path / "three", 1, tasks=3, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) == 7


KILLED = """
import sys
from pathlib import Path
from tests.data_recipes.test_building import build
build(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_build_goes_on_with_the_parts_it_has(tmp_path):
    path = write_recipe(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(tmp_path / "killed")], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(made := list(tmp_path.glob(".killed.parts/*/*.arrow"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    times = {part: os.stat(part).st_mtime_ns for part in made}
    kept = []
    original = os.replace

    def watched(source, target):
        kept.extend(part for part in times if part.exists() and os.stat(part).st_mtime_ns == times[part])
        original(source, target)

    os.replace = watched
    try:
        build(path, tmp_path / "killed")
    finally:
        os.replace = original
    assert set(kept) == set(made), "finished parts are kept"
    build(path, tmp_path / "undisturbed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".killed.parts"))


def test_tokens_lengths_and_rows_belong_together(tmp_path):
    build(write_recipe(tmp_path, rows=3000), tmp_path / "m")
    mixture = Mixture(tmp_path / "m")
    assert mixture.tasks == ["large", "small"] and len(mixture) == sum(mixture.sizes)
    for index in (0, 1, 1023, 1024, 2500, len(mixture) - 1):
        row = mixture.row(index)
        ((ids, target),) = Words()([row])
        begin, end = mixture.offsets[index], mixture.offsets[index + 1]
        assert mixture.tokens[begin:end].tolist() == ids and mixture.targets[index] == target
        assert mixture.tasks[mixture.task_ids(index)] == row.task
    batch = mixture.batch([5, len(mixture) - 1, 7], padding=9)
    lengths = [len(Words()([mixture.row(i)])[0][0]) for i in (5, len(mixture) - 1, 7)]
    assert batch["input_ids"].shape == (3, max(lengths)) and batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["task_ids"].tolist() == [0, 1, 0] and (batch["input_ids"][1, lengths[1] :] == 9).all()
    assert batch["trained"].sum(1).tolist() == [
        n - mixture.targets[i] for n, i in zip(lengths, (5, len(mixture) - 1, 7), strict=False)
    ]


def test_batches_from_the_middle_equal_those_from_the_start(tmp_path):
    build(write_recipe(tmp_path, rows=1000), tmp_path / "m")
    mixture = Mixture(tmp_path / "m")
    order = draws_of(mixture.manifest).order(seed=4)
    whole = [batch["input_ids"] for batch in mixture.read(order, 0, 3 * len(order), 16)]
    later = [batch["input_ids"] for batch in mixture.read(order, 16 * 37, 3 * len(order), 16)]
    assert len(later) == len(whole) - 37
    assert all(np.array_equal(a, b) for a, b in zip(later, whole[37:], strict=True))


def test_what_is_removed_is_removed_once_and_for_a_reason(tmp_path):
    long = sentence(1, 40)
    records = [
        {"prompt": f"Explain {long}", "completion": "first answer"},
        {"prompt": f"explain  {long}", "completion": "another answer"},
        {"prompt": f"Please explain {long}", "completion": "first answer"},
        {"prompt": f"Please explain {long} 3", "completion": "first answer"},
        {"prompt": sentence(2), "completion": "a\na\na\na\nb"},
        {"prompt": sentence(3), "completion": "!!!! ???? ####"},
        {
            "prompt": "Wie geht es Ihnen heute, und was macht die Arbeit in der neuen Stadt?",
            "completion": "Danke, sehr gut.",
        },
        {"prompt": sentence(5, 300), "completion": "x"},
        {
            "prompt": "What is the tallest mountain of the whole continent of Africa called?",
            "completion": "Kilimanjaro it is.",
        },
        {"prompt": sentence(2), "completion": "It is a good answer to the same question."},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    other = {"prompt": "Where does the river go?", "completion": "Down to the sea."}
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(records[0])}\n{json.dumps(other)}\n")
    (tmp_path / "recipe.yaml").write_text("""
tasks:
  a: {kind: instruction, source: {type: files, path: a.jsonl}}
  b: {kind: instruction, source: {type: files, path: b.jsonl}}
cleaning:
  near_duplicates: {threshold: 0.7}
  quality: {max_repeated_lines: 0.4, max_symbols: 0.5}
  max_tokens: 200
  languages: [en]
""")
    item = Row(
        id="bench/1", task="bench", kind="domain",
        messages=[Message(role="user", content="What's the tallest mountain in the whole continent of Africa called")],
    )  # fmt: skip
    recipe, _ = load_recipe("recipe.yaml", beside=tmp_path)
    recipe.tasks["a"].decontaminate = "near"
    manifest = build_mixture(recipe, tmp_path / "m", seed=0, tokenise=Words(), protected=[item])
    removed = [json.loads(line) for line in (tmp_path / "m" / "removed.jsonl").read_text().splitlines()]
    reasons = {(line["task"], line["id"].rsplit(":", 1)[1]): (line["reason"], line["because"]) for line in removed}
    first = next(row.id for row in Mixture(tmp_path / "m").rows() if row.id.endswith("a.jsonl:1"))
    assert reasons[("a", "2")] == ("duplicate question", None)
    assert reasons[("a", "3")] == ("near duplicate", first)
    assert ("a", "4") not in reasons or reasons[("a", "4")][0].startswith("language"), (
        "another number, another question"
    )
    assert reasons[("a", "5")][0] == "repeated lines" and reasons[("a", "6")][0] == "mostly symbols"
    assert reasons[("a", "7")][0] == "language de" and reasons[("a", "8")][0] == "too long"
    assert reasons[("a", "9")] == ("protected (reworded)", "bench/1")
    assert ("a", "10") not in reasons, "a row that is removed does not take a good one with it"
    assert reasons[("b", "1")] == ("duplicate row", None)
    for task, account in manifest["cleaning"].items():
        assert sum(account["removed"].values()) == sum(line["task"] == task for line in removed)


def test_groups_never_straddle_and_hashes_spread_what_is_held_out(tmp_path):
    lines = [{"text": f"text {n // 4}", "question": f"{sentence(n)}?", "answer": "a"} for n in range(400)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = "kind: domain\n    source: {type: files, path: q.jsonl}\n    prompt: '{{ text }} {{ question }}'"
    for how, spread in (("order", 60), ("hash", 200)):
        (tmp_path / "recipe.yaml").write_text(
            f"tasks:\n  q:\n    {task}\n    group: '{{{{ text }}}}'\n    heldout_rows: 50\n    heldout_by: {how}\n"
            "cleaning: {protect: heldout, decontaminate: none}\n"
        )
        build(tmp_path / "recipe.yaml", tmp_path / how)
        mixture = Mixture(tmp_path / how)
        groups = [{row.meta["group"] for row in rows} for rows in (mixture.rows(), mixture.rows(HELDOUT))]
        assert groups[0] and groups[1] and not groups[0] & groups[1]
        last = max(int(row.id.rsplit(":", 1)[1]) for row in mixture.rows(HELDOUT))
        assert (last < 60) == (how == "order"), (last, spread)


def test_a_test_set_in_disguise_is_refused(tmp_path):
    path = write_recipe(tmp_path, rows=100)
    recipe, _ = load_recipe(path.name, beside=tmp_path)
    recipe.cleaning.protect = "all"
    from data_recipes.reading import task_rows

    train, _ = task_rows(recipe, "large")
    protected = [row.model_copy(update={"id": f"bench/{n}", "task": "bench"}) for n, row in enumerate(train[:60])]
    with pytest.raises(UserError, match="60 of 80 rows are items of a benchmark"):
        build_mixture(recipe, tmp_path / "m", seed=0, tokenise=Words(), protected=protected)
    assert not (tmp_path / "m").exists()
