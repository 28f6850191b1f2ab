"""The losses that a run reports for its tasks, against plain forward passes with the weights of the step."""

import pytest
import torch
from safetensors.torch import load_file

from data_recipes.store import Mixture
from pipelines.experiment import load_experiment
from tests.pipelines.sft_runs import launch, metrics

STEPS = 3
SECTIONS = f"""
sft:
  dtype: float32
  bf16: false
  learning_rate: 1e-2
  warmup_steps: 0
  logging_steps: 1
  batch_size: 8
  max_steps: {STEPS}
  save_steps: 1
  save_total_limit: {STEPS}
  max_length: 128
"""


def recomputed(run, file, overrides) -> list[dict[str, tuple[float, int]]]:
    """Return for each step the loss and the number of target tokens of every task: row by row, unpadded, unpacked."""
    from transformers import AutoModelForCausalLM

    from pipelines.multitask.batches import PackedOrder
    from pipelines.sft import _arguments, plan

    experiment = load_experiment(file, overrides)
    mixture = Mixture(run / "mixture")
    section = experiment.sft
    _, order = plan(mixture, _arguments(experiment, section), experiment.seed, section.packing)
    drawn = list(order)
    found = []
    for step in range(STEPS):
        rows = drawn[step * 8 : (step + 1) * 8]
        if isinstance(order, PackedOrder):
            rows = [row for sequence in rows for row in order.sequences[sequence].tolist()]
        model = AutoModelForCausalLM.from_pretrained(experiment.model, dtype=torch.float32).eval()
        if step:
            weights = load_file(run / "sft" / "checkpoints" / f"checkpoint-{step}" / "weights.safetensors")
            model.load_state_dict(weights, strict=False)
        sums: dict[str, list[float]] = {}
        for row in rows:
            start, end = mixture.offsets[row : row + 2].tolist()
            ids = torch.tensor(mixture.tokens[start:end][:128].astype("int64"))
            cut = int(mixture.targets[row])
            with torch.no_grad():
                logits = model(ids[None]).logits[0, cut - 1 : -1]
            losses = torch.nn.functional.cross_entropy(logits.double(), ids[cut:], reduction="none")
            of_task = sums.setdefault(mixture.row(row).task, [0.0, 0])
            of_task[0] += losses.sum().item()
            of_task[1] += len(losses)
        found.append({task: (nll / tokens, tokens) for task, (nll, tokens) in sums.items()})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("packing", ["false", "true"])
def test_losses_by_task_are_those_of_plain_forward_passes(tiny_mixed, packing, processes):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder(f"run-{packing}-{processes}")
    overrides = [f"output_dir={run}", f"sft.packing={packing}"]
    launch(file, *[word for one in overrides for word in ("--set", one)], processes=processes)
    seen, expected = metrics(run), recomputed(run, file, overrides)
    assert len(seen) == STEPS and {task for step in expected for task in step} == {
        "chain_sum",
        "word_sequence_reversal",
    }
    for line, tasks in zip(seen, expected, strict=True):
        assert {key.removeprefix("loss/") for key in line if key.startswith("loss/")} == tasks.keys()
        for task, (loss, tokens) in tasks.items():
            assert line[f"tokens/{task}"] == tokens
            assert line[f"loss/{task}"] == pytest.approx(loss, abs=1e-5)
        whole = sum(tokens for _, tokens in tasks.values())
        assert line["loss"] == pytest.approx(sum(loss * n for loss, n in tasks.values()) / whole, abs=1e-5)
    assert abs(seen[0]["loss"] - seen[-1]["loss"]) > 0.05, "the weights have moved between the steps"
