"""Packed sequences hold every row once, know its task, waste little, and no row sees another."""

import json

import numpy as np
import pytest

from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture
from data_recipes.packing import best_fit, pack_batch, packs
from data_recipes.recipe import load_recipe
from data_recipes.store import Mixture


def test_best_fit_by_hand():
    assert best_fit([5, 4, 3, 3, 2], 8) == [[0, 2], [1, 3]] + [[4]]
    assert best_fit([8, 8], 8) == [[0], [1]]
    assert best_fit([20, 3], 8) == [[0], [1]]  # cut to the capacity
    assert best_fit([], 8) == []


def test_no_bin_overflows_and_few_are_needed():
    lengths = np.random.default_rng(0).integers(10, 500, 2000)
    bins = best_fit(lengths, 1024)
    assert sorted(item for items in bins for item in items) == list(range(2000))
    assert all(lengths[items].sum() <= 1024 for items in bins)
    assert len(bins) <= 1.02 * lengths.sum() / 1024 + 1


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, model_folder):
    from pipelines.tokens import ChatTokeniser

    folder = tmp_path_factory.mktemp("packed")
    rng = np.random.default_rng(1)
    for name, longest in (("short", 8), ("long", 60)):
        with open(folder / f"{name}.jsonl", "w") as file:
            for number in range(40):
                words = " ".join(
                    rng.choice(["red", "green", "blue", "seven", "house", "tree"], rng.integers(2, longest))
                )
                file.write(json.dumps({"prompt": f"{number} {words}", "completion": words[::-1]}) + "\n")
    tasks = "".join(f"  {n}: {{kind: domain, source: {{type: files, path: {n}.jsonl}}}}\n" for n in ("short", "long"))
    (folder / "recipe.yaml").write_text(f"tasks:\n{tasks}cleaning: {{decontaminate: none}}\n")
    recipe, _ = load_recipe("recipe.yaml", beside=folder)
    build_mixture(recipe, folder / "m", seed=0, tokenise=ChatTokeniser(model_folder))
    return Mixture(folder / "m")


def test_sequences_know_their_rows_and_tasks(mixture):
    order = draws_of(mixture.manifest).order(seed=2)
    sequences = packs(mixture, order, 0, len(order), 512)
    assert sorted(np.concatenate(sequences).tolist()) == list(range(80))
    batch = pack_batch(mixture, sequences, 512)
    for line, rows in enumerate(sequences):
        for segment, row in enumerate(rows.tolist()):
            mine = batch["segment_ids"][line] == segment
            ids = mixture.tokens[mixture.offsets[row] : mixture.offsets[row + 1]]
            assert np.array_equal(batch["input_ids"][line][mine], ids)
            assert batch["position_ids"][line][mine].tolist() == list(range(len(ids)))
            assert set(batch["task_ids"][line][mine].tolist()) == {int(mixture.task_ids(row))}
            assert batch["trained"][line][mine].sum() == len(ids) - mixture.targets[row]
    padding = batch["segment_ids"] == -1
    assert not batch["trained"][padding].any() and (batch["task_ids"][padding] == -1).all()
    assert np.array_equal(sequences[3], packs(mixture, order, 0, len(order), 512)[3])


@pytest.mark.slow
def test_no_row_sees_another_equal_logits_packed_and_unpacked(mixture, model_folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    order = draws_of(mixture.manifest).order(seed=2)
    sequences = packs(mixture, order, 0, len(order), 768)[:2]
    assert all(len(rows) >= 3 for rows in sequences)
    batch = pack_batch(mixture, sequences, 768)
    with torch.no_grad():
        ids, positions = (torch.from_numpy(batch[name]) for name in ("input_ids", "position_ids"))
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        for line, rows in enumerate(sequences):
            for segment, row in enumerate(rows.tolist()):
                alone = mixture.tokens[mixture.offsets[row] : mixture.offsets[row + 1]].astype(np.int64)
                expected = model(input_ids=torch.from_numpy(alone)[None], use_cache=False).logits[0]
                mine = torch.from_numpy(batch["segment_ids"][line] == segment)
                assert torch.allclose(packed[line][mine], expected, atol=1e-3, rtol=1e-4)
        # the check can fail: without the positions rows do see one another
        leaking = model(input_ids=ids, use_cache=False).logits
        last = torch.from_numpy(batch["segment_ids"][0] == len(sequences[0]) - 1)
        assert (leaking[0][last] - packed[0][last]).abs().max() > 1
