"""The recipes that ship, on the real data: the same bytes every time, nothing of a test set, answers that verify."""

import os
from pathlib import Path

import pytest

from data_recipes.decontamination import Protected
from data_recipes.files import read_json, sha256
from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture
from data_recipes.packing import pack_batch, packs
from data_recipes.reading import question_of, sources_of, task_rows
from data_recipes.recipe import RECIPES, load_recipe
from data_recipes.row import Message, Row
from data_recipes.store import Mixture

SHIPPED = ["general", "finance", "biomedical", "math", "code", "critique", "cocktail"]


def test_every_shipped_recipe_holds_together_and_says_where_it_comes_from():
    assert sorted(path.stem for path in RECIPES.glob("*.yaml")) == sorted([*SHIPPED, "multicritique", "quickstart"])
    for name in SHIPPED:
        recipe, _ = load_recipe(name)
        assert recipe.description
        for task, settings in recipe.tasks.items():
            assert settings.licence != "unknown" and settings.flaws and settings.heldout_rows, task
            assert settings.source["type"] == "reasoning_gym" or "offline" in settings.source, task


@pytest.fixture(scope="module")
def tokeniser(model_folder):
    from pipelines.tokens import ChatTokeniser

    return ChatTokeniser(model_folder)


@pytest.fixture(scope="module")
def protected() -> list[Row]:
    from eval.protected import protected_rows

    rows, missing = protected_rows()
    assert not missing and len(rows) > 40_000
    return rows


@pytest.mark.data
@pytest.mark.parametrize("name", SHIPPED)
def test_built_twice_and_by_other_workers_it_is_the_same(name, tokeniser, tmp_path, monkeypatch):
    """Decontamination against the held-out rows alone here; against every benchmark below."""
    from data_recipes import chunks

    monkeypatch.setattr(chunks, "SERIAL", 1)  # so that small tasks reach the other processes too
    digests = []
    for workers in (1, 1, 2):
        recipe, _ = load_recipe(name)
        recipe.cleaning.protect = "heldout"
        folder = tmp_path / f"m{len(digests)}"
        build_mixture(recipe, folder, seed=0, tokenise=tokeniser, workers=workers)
        digests.append({path.name: sha256(path) for path in folder.iterdir()})
    assert digests[0] == digests[1] == digests[2] and len(digests[0]) == 7


@pytest.mark.data
def test_the_cocktail_holds_no_item_of_a_benchmark_and_packs_tightly(tokeniser, protected, tmp_path):
    from data_recipes.evaluation_sets import SHARED
    from data_recipes.halves import half_of

    recipe, _ = load_recipe("cocktail")
    workers = os.cpu_count() or 1
    manifest = build_mixture(recipe, tmp_path / "m", seed=0, tokenise=tokeniser, protected=protected, workers=workers)
    mixture = Mixture(tmp_path / "m")
    assert len(mixture) > 30_000 and manifest["protected_rows"] > 40_000
    allowed = {row.id for row in protected if row.task.split("/")[0] in SHARED and half_of(question_of(row)) == "train"}
    index = Protected(protected, near=False)
    for row in mixture.rows()[::7]:
        source = recipe.tasks[row.task].source
        trains_on_half = "half" in source or "half" in source.get("offline", {})
        assert index.find(row, exempt=(lambda item: item in allowed) if trains_on_half else lambda _: False) is None
    order = draws_of(manifest).order(seed=0)
    sequences = packs(mixture, order, 0, len(order), 2048)
    padding = sum(int((pack_batch(mixture, [one], 2048)["segment_ids"] < 0).sum()) for one in sequences)
    assert padding < 0.05 * len(sequences) * 2048


@pytest.mark.data
def test_the_math_instructions_are_told_to_be_test_questions(protected):
    """A real case: 1,055 of the 3,260 rows are GSM8K test questions, and hardly one is none of any test set."""
    records = read_json(Path(os.environ["WHETSTONE_DATA"]) / "instructions" / "math_data.json")
    index, tasks = Protected(protected), {row.id: row.task for row in protected}
    found: dict[str, int] = {}
    gsm8k = {" ".join(row.question.split()) for row in protected if row.task == "gsm8k"}
    copies = 0
    for number, record in enumerate(records):
        turns = [
            Message(role="user", content=record["instruction"]),
            Message(role="assistant", content=record["output"]),
        ]
        match = index.find(Row(id=str(number), task="m", kind="domain", messages=turns))
        copies += " ".join(record["instruction"].split()) in gsm8k
        if match:
            found[tasks[match.item]] = found.get(tasks[match.item], 0) + 1
    assert copies >= 1050 and found["gsm8k"] >= 1055
    assert sum(found.values()) >= 0.99 * len(records)


@pytest.mark.data
def test_planted_test_questions_are_found_and_clean_rows_are_left(protected):
    from tests.benchmarks.contamination import chosen_items, shares_found
    from tests.benchmarks.planting import clean_rows

    everything, chosen = chosen_items()
    index = Protected(everything)
    shares = shares_found(index, chosen)
    assert shares["verbatim"] == 1.0
    assert shares["reworded, all kinds"] >= 0.95
    rows = clean_rows(100_000)
    assert len(rows) == 100_000
    flagged = [row for row in rows if index.find(row)]
    assert len(flagged) <= 100


@pytest.mark.data
@pytest.mark.parametrize("name", SHIPPED[:-1])
def test_targets_verify_and_the_held_out_half_is_not_read(name):
    from data_recipes.halves import half_of
    from eval.verifiers import verify

    recipe, _ = load_recipe(name)
    for task, settings in recipe.tasks.items():
        train, heldout = task_rows(recipe, task)
        rows = train[:300] + heldout
        if settings.verifiers:
            assert sum(verify(row, row.target).score == 1.0 for row in rows) >= 0.99 * len(rows), task
        if sources_of(recipe, task)[0].settings.half:
            assert all(half_of(question_of(row)) == "train" for row in train + heldout), task
