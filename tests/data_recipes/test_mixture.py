"""A mixture is deterministic, accounts for its rows, and never trains on a held-out question."""

import json

import pytest

from data_recipes.decontamination import Protected
from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.mixture import build_mixture
from data_recipes.reading import task_rows
from data_recipes.recipe import load_recipe
from data_recipes.row import Message, Row
from data_recipes.store import HELDOUT, TRAIN, read_mixture
from tests.conftest import SMALL_RECIPE, Words


def a_row(number: int, question: str, answer: str = "1", task: str = "t") -> Row:
    turns = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return Row(id=f"r{number}", task=task, kind="domain", messages=turns, answer=answer, verifiers=["number"])


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(SMALL_RECIPE)
    return load_recipe("recipe.yaml", beside=tmp_path)[0]


def build(recipe, folder, **kwargs):
    return build_mixture(recipe, folder, seed=5, tokenise=Words(), **kwargs)


def test_the_same_recipe_gives_the_same_bytes(recipe, tmp_path):
    build(recipe, tmp_path / "one")
    build(recipe, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 7
    for name in names:
        assert sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name)


def test_the_manifest_accounts_for_every_row(recipe, tmp_path):
    manifest = build(recipe, tmp_path / "m")
    train, heldout = read_mixture(tmp_path / "m", TRAIN), read_mixture(tmp_path / "m", HELDOUT)
    for task, counts in manifest["tasks"].items():
        rows = [row for row in train if row.task == task]
        assert counts["train_rows"] == len(rows)
        assert counts["train_tokens"] == sum(len(ids) for ids, _ in Words()(rows))
        assert counts["heldout_rows"] == sum(row.task == task for row in heldout) == 6
    index = Protected(heldout)
    assert not any(index.find(row) for row in train)
    assert all("reasoning-gym" in revision for revision in manifest["sources"].values())
    assert all("working" in row.meta for row in train if row.task == "chain_sum")


def test_held_out_and_training_questions_are_distinct(recipe):
    for task in recipe.tasks:
        train, heldout = task_rows(recipe, task)
        questions = [row.question.casefold() for row in train + heldout]
        assert len(set(questions)) == len(questions)


def test_training_rows_that_hold_a_protected_question_are_left_out(recipe, tmp_path):
    train, _ = task_rows(recipe, "chain_sum")
    protected = train[0].model_copy(update={"id": "benchmark/7"})
    recipe.cleaning.protect = "all"
    manifest = build(recipe, tmp_path / "m", protected=[protected])
    assert manifest["cleaning"]["chain_sum"]["removed"]["protected (exact)"] == 2  # asked twice
    line, again = [
        json.loads(line) for line in (tmp_path / "m/removed.jsonl").read_text().splitlines() if "benchmark" in line
    ]
    assert (line["id"], line["because"], line["task"]) == (train[0].id, "benchmark/7", "chain_sum")
    assert again["because"] == "benchmark/7"
    assert train[0].id not in {row.id for row in read_mixture(tmp_path / "m", TRAIN)}


def test_a_truncated_mixture_is_refused_with_the_mend(recipe, tmp_path):
    build(recipe, tmp_path / "m")
    path = tmp_path / "m" / TRAIN
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated or changed since it was built; delete"):
        read_mixture(tmp_path / "m", TRAIN)
    with pytest.raises(UserError, match="no mixture here"):
        read_mixture(tmp_path / "elsewhere", TRAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reasoning_gym,", "reasoning_gim,"), "unknown source type 'reasoning_gim' .did you mean 'reasoning_gym'"),
        (("dataset: chain_sum", "dataset: chain_sun"), "no dataset 'chain_sun' .did you mean 'chain_sum'"),
        (("train_rows", "train_row"), "unknown key 'tasks.chain_sum.train_row' .did you mean 'train_rows'"),
        (("metadata.expression }}?", "metadata.expresion }}?"), "does not fit the source's columns"),
        (("train_rows: 40", "train_rows: 4000"), "lower them or widen the source"),
        (("kind: domain", "kind: domian"), "tasks.chain_sum.kind"),
        (("max_terms: 2", "max_terms: 1"), "refuses config"),
        (("seed: 1,", "sead: 1,"), "line 6: unknown key 'sead' .did you mean 'seed'"),
        (("  chain_sum:", "  chain_sum: ["), "line \\d+: not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_answered_in_one_sentence(tmp_path, change, message):
    (tmp_path / "recipe.yaml").write_text(SMALL_RECIPE.replace(*change, 1))
    with pytest.raises(UserError, match=message) as caught:
        recipe, _ = load_recipe("recipe.yaml", beside=tmp_path)
        build(recipe, tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_rows_of_a_file_have_to_be_whole_and_of_the_task(tmp_path):
    lines = [a_row(i, f"question {i}?", task="critique/x").model_dump() for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = "tasks:\n  critique:\n    kind: critique\n    source: {type: files, path: rows.jsonl}\n    heldout_rows: 1\n"
    (tmp_path / "recipe.yaml").write_text(text)
    train, heldout = task_rows(load_recipe("recipe.yaml", beside=tmp_path)[0], "critique")
    assert ([row.id for row in heldout], [row.id for row in train]) == (["r0"], ["r1", "r2", "r3"])
    (tmp_path / "recipe.yaml").write_text(text.replace("critique:", "other:"))
    with pytest.raises(UserError, match="is of task 'critique/x', not 'other'"):
        task_rows(load_recipe("recipe.yaml", beside=tmp_path)[0], "other")
