"""GRPO-S in training: advantages times weights recomputed by hand, task by task."""

from math import nan

import pytest
import torch
from safetensors.torch import load_file
from torch import sigmoid, tensor

from data_recipes.errors import UserError
from data_recipes.store import TRAIN, read_mixture
from eval.verifiers import verify
from pipelines.rl.hardness import alpha, distance, sub_sentences
from tests.pipelines.grpo_runs import metrics, mixed_with, rollouts, train_here  # noqa: F401
from tests.pipelines.test_grpo import BY_HAND, advantages, by_hand, over_tokens


def test_weights_are_made_within_a_task_and_are_1_without_a_demonstration():
    """Task 1 is not in the batch; the worked numbers of the paper's formulas are those of test_rl_math."""
    task_ids = tensor([0, 0, 0, 0, 0, 2, 2])
    distances = tensor([0.6, 0.2, 0.6, 0.2, nan, 0.5, 0.5], dtype=torch.float64)
    gaps = tensor([0.2, 0.5, 3.0, 0.4, nan, 1.0, 0.0], dtype=torch.float64)
    found = alpha(distances, gaps, task_ids, tau=1.0)
    assert found[0].item() == found[2].item() == pytest.approx(0.865542, abs=1e-6)
    assert found[4].item() == 1.0
    assert found[5:].tolist() == pytest.approx([1.0, 1.0])
    scaled = torch.where(task_ids == 2, 100 * gaps, gaps)
    assert alpha(distances, scaled, task_ids, 1.0)[:5].equal(found[:5]), "no task's scale touches another's"


def test_distances_are_one_less_the_mean_of_the_best_matches():
    shown = tensor([[1.0, 0.0], [0.0, 1.0]])
    assert distance(shown, tensor([[0.6, 0.8], [1.0, 0.0]])) == pytest.approx(1 - (1.0 + 0.8) / 2)
    assert distance(shown, shown) == 0.0 and distance(shown, torch.empty(0)) == 1.0
    assert sub_sentences("The sum is 1,200.5, so it is wrong.\nJudgment: incorrect\n") == [
        "The sum is 1,200.5,",
        "so it is wrong.",
        "Judgment:",
        "incorrect",
    ]


@pytest.mark.parametrize("accumulation", [1, 4], ids=["one task in the batch", "both"])
def test_a_step_is_that_of_advantages_times_alpha(mixed_with, tiny_model, accumulation):  # noqa: F811
    from transformers import AutoModel, AutoTokenizer

    tau = 0.01
    keys = {"loss_type": "dapo", "grpo_s": {"tau": tau}, "gradient_accumulation_steps": accumulation}
    file, run = mixed_with("vowels", **BY_HAND, **keys)
    train_here(file)
    made = rollouts(run)
    assert len({one["task"] for one in made}) == (1 if accumulation == 1 else 2)
    model, tokenizer = (
        AutoModel.from_pretrained(tiny_model, dtype=torch.float32),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    rows = {row.id: row for row in read_mixture(run / "mixture", TRAIN)}

    @torch.no_grad()
    def embedded(text: str) -> list[torch.Tensor]:
        ids = [tokenizer(piece, return_tensors="pt").input_ids for piece in sub_sentences(text)]
        return [model(one, output_hidden_states=True).hidden_states[-1][0].mean(0) for one in ids]

    def delta(one: dict) -> float:
        ours, shown = embedded(one["completion"]), embedded(rows[one["id"]].target)
        best = [max(torch.cosine_similarity(a, b, dim=0).item() for b in ours) for a in shown]
        return 1 - sum(best) / len(best)

    weights = {}
    for task in {one["task"] for one in made}:
        of_task = [one for one in made if one["task"] == task]
        deltas = tensor([delta(one) for one in of_task])
        gaps = tensor([verify(rows[one["id"]], rows[one["id"]].target).score - one["reward"] for one in of_task])
        near = gaps[(gaps - gaps.mean()) ** 2 <= tau]
        assert 0 < len(near) <= len(gaps)
        of_model = sigmoid(near.mean()) / sigmoid(gaps.mean())
        found = sigmoid(deltas) / sigmoid(deltas.mean()) * of_model
        weights |= {(one["id"], one["sample"]): weight for one, weight in zip(of_task, found.tolist(), strict=True)}
        (line,) = metrics(run)
        assert line[f"alpha/{task}"] == pytest.approx(found.mean().item(), abs=1e-5)
    in_groups: dict[str, list[float]] = {}
    for one in made:
        in_groups.setdefault(one["id"], []).append(weights[one["id"], one["sample"]])

    def weighed(groups) -> torch.Tensor:
        parts = [
            (-a * weight * logp).sum()
            for group, of_group in zip(groups, in_groups.values(), strict=True)
            for (logp, _), a, weight in zip(group, advantages(group), of_group, strict=True)
        ]
        return sum(parts) / sum(len(logp) for group in groups for logp, _ in group)

    found, start = load_file(run / "grpo" / "model" / "model.safetensors"), load_file(f"{tiny_model}/model.safetensors")
    expected, unweighed = by_hand(run, tiny_model, weighed), by_hand(run, tiny_model, over_tokens)

    def furthest(other: dict[str, torch.Tensor]) -> float:
        return max((found[name] - other[name]).abs().max().item() for name in found.keys() & other.keys())

    print(f"moved {furthest(start):.1e}; off by {furthest(expected):.1e}, without alpha {furthest(unweighed):.1e}")
    assert furthest(expected) < 1e-6 < 1e-4 < furthest(unweighed)


def test_oapl_has_no_advantages_to_weigh(mixed_with):  # noqa: F811
    file, _ = mixed_with("vowels")
    with pytest.raises(UserError, match="grpo_s weighs advantages, and oapl has none"):
        train_here(file, "grpo.grpo_s={}", "grpo.oapl={}")
