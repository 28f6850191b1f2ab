"""Multi-task GRPO on the tiny model: what is learnt from which samples, recomputed by hand; kills; the alarm."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from data_recipes.store import TRAIN, read_mixture
from pipelines.grpo import STALENESS, StaleRollouts
from tests.pipelines.grpo_runs import metrics, mixed_with, rollouts, train_here  # noqa: F401

TASKS = ("chain_sum", "word_sequence_reversal")
BY_HAND = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "max_steps": 1, "save_strategy": "no"}


@pytest.fixture(scope="module")
def finished(mixed_with):  # noqa: F811
    """(file, run folder) of four steps with a checkpoint at every second one."""
    file, run = mixed_with("vowels", learning_rate=1e-2, max_steps=4, save_steps=2, beta=0.1)
    train_here(file)
    return file, run


def log_probs(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Return the log-probability of each token of a completion, from a forward pass of its own."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def by_hand(run, folder: str, loss_of) -> dict[str, torch.Tensor]:
    """Return the weights after one step of plain gradient descent on the samples that have a reward.

    Args:
        loss_of: from the groups, each a list of (log-probabilities, reward), to the loss.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = {row.id: row.prompt for row in read_mixture(run / "mixture", TRAIN)}
    groups: dict[str, list] = {}
    for one in rollouts(run):
        if one["reward"] is not None:
            ids = tokenizer.apply_chat_template(prompts[one["id"]], add_generation_prompt=True, return_dict=False)
            groups.setdefault(one["id"], []).append((log_probs(model, ids, one["tokens"]), one["reward"]))
    loss_of(list(groups.values())).backward()
    return {name: p.detach() - 0.5 * p.grad for name, p in model.named_parameters() if p.grad is not None}


def advantages(group) -> list[float]:
    rewards = torch.tensor([reward for _, reward in group])
    return ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist() if len(group) > 1 else [0.0]


def over_tokens(groups) -> torch.Tensor:
    parts = [(-a * logp).sum() for group in groups for (logp, _), a in zip(group, advantages(group), strict=True)]
    return sum(parts) / sum(len(logp) for group in groups for logp, _ in group)


def over_sequences(groups) -> torch.Tensor:
    parts = [(-a * logp).mean() for group in groups for (logp, _), a in zip(group, advantages(group), strict=True)]
    return sum(parts) / len(parts)


def regression(groups, beta1: float = 0.2, beta2: float = 0.3) -> torch.Tensor:
    parts = []
    for group in groups:
        rewards = torch.tensor([reward for _, reward in group], dtype=torch.float64)
        value = beta1 * torch.log(torch.exp(rewards / beta1).mean())
        if rewards.min() < rewards.max():
            for logp, reward in group:  # the policy is the reference still
                parts.append((beta2 * (logp.sum() - logp.sum().detach()) - (reward - value.item())) ** 2)
    return sum(parts) / len(parts)


@pytest.mark.parametrize(
    ("keys", "loss_of"),
    [
        ({"loss_type": "dapo"}, over_tokens),
        pytest.param({"loss_type": "grpo"}, over_sequences, marks=pytest.mark.slow),
        ({"oapl": {"beta1": 0.2, "beta2": 0.3}}, regression),
    ],
    ids=["dapo", "grpo", "oapl"],
)
def test_a_step_is_that_of_a_batch_without_the_samples_nobody_could_judge(mixed_with, tiny_model, keys, loss_of):  # noqa: F811
    file, run = mixed_with("moody", **BY_HAND, **keys, verifier_timeout=1.5, gradient_accumulation_steps=8)
    train_here(file)
    made = rollouts(run)
    kinds = {one["problem"] for one in made if one["reward"] is None}
    assert len(made) == 32 and {str(kind).split()[0] for kind in kinds} == {"None", "no", "RuntimeError:", "returned"}
    expected = by_hand(run, tiny_model, loss_of)
    found = load_file(run / "grpo" / "model" / "model.safetensors")
    start = load_file(f"{tiny_model}/model.safetensors")
    moved = 0.0
    for name, tensor in expected.items():
        if name in found:
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-6)
            moved = max(moved, (tensor - start[name]).abs().max().item())
    assert moved > 1e-4
    (line,) = metrics(run)
    for task in TASKS:
        of_task = [one for one in made if one["task"] == task]
        if of_task:
            judged = [one["reward"] for one in of_task if one["reward"] is not None]
            failed = sum(one["problem"] is not None for one in of_task)
            assert line[f"reward/{task}"] == pytest.approx(sum(judged) / len(judged), abs=1e-6)
            assert line[f"failed/{task}"] == failed / len(of_task)
            assert line[f"unparsed/{task}"] == (len(of_task) - len(judged) - failed) / len(of_task)
            assert line[f"length/{task}"] == sum(len(one["tokens"]) for one in of_task) / len(of_task)
            assert line[f"entropy/{task}"] > 0 and line[f"advantage/{task}"] > 0


@pytest.mark.parametrize("lines_left", [None, 2 * 8 + 5], ids=["kept", "torn"])
def test_a_killed_run_goes_on_with_the_rollouts_it_had_made(finished, tmp_path, capsys, lines_left):
    """At step 2 of 4, with the rollouts of the last two steps or with a torn file of them."""
    file, run = finished
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "grpo" / "checkpoints" / "checkpoint-4")
    if lines_left:
        lines = (copy / "grpo" / "rollouts.jsonl").read_text().splitlines(keepends=True)
        (copy / "grpo" / "rollouts.jsonl").write_text("".join(lines[:lines_left]) + lines[lines_left][:40])
    train_here(file, f"output_dir={copy}")
    assert "resuming from step 2" in capsys.readouterr().out
    assert rollouts(copy) == rollouts(run), "each step's once"
    assert [line["step"] for line in metrics(copy)] == [1, 2, 3, 4]
    assert same(copy, run)
    assert all(f"kl/{task}" in line for line in metrics(run)[1:] for task in TASKS if f"reward/{task}" in line)


def same(one, two) -> bool:
    ours, theirs = (load_file(run / "grpo" / "model" / "model.safetensors") for run in (one, two))
    return all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_generation_that_feeds_several_steps_is_taken_up_in_its_middle(mixed_with, tmp_path):  # noqa: F811
    """OAPL with a batch for four steps, gone through twice; the checkpoint is in the middle of the second one."""
    batches = {"steps_per_generation": 4, "num_iterations": 2, "gradient_accumulation_steps": 1}
    steps = {"learning_rate": 1e-3, "max_steps": 16, "save_steps": 5, "save_total_limit": 9}
    file, run = mixed_with("vowels", oapl={}, **batches, **steps)
    train_here(file)
    assert sorted({one["step"] for one in rollouts(run)}) == [1, 9]
    assert all(one["policy_logprobs"] for one in rollouts(run))
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for step in (15, 16):
        shutil.rmtree(copy / "grpo" / "checkpoints" / f"checkpoint-{step}", ignore_errors=True)
    train_here(file, f"output_dir={copy}")
    assert same(copy, run)
    assert rollouts(copy) == rollouts(run)


def test_another_runs_rollouts_are_learnt_from_as_they_are(finished, tmp_path):
    file, run = finished
    copy = tmp_path / "copy"
    shutil.copytree(run / "mixture", copy / "mixture")
    train_here(file, f"output_dir={copy}", f"grpo.rollouts={run / 'grpo' / 'rollouts.jsonl'}")
    assert same(copy, run) and rollouts(copy) == rollouts(run)


def test_stale_rollouts_raise_the_alarm(capsys):
    alarm, state = StaleRollouts(limit=0.15), SimpleNamespace(is_world_process_zero=True, global_step=3)
    fresh, stale = {STALENESS: 0.04}, {STALENESS: 0.46}
    alarm.on_log(None, state, None, logs=fresh)
    assert "stale_rollouts" not in fresh and capsys.readouterr().out == ""
    alarm.on_log(None, state, None, logs=stale)
    assert stale["stale_rollouts"] == 0.46 and "ALARM step 3" in capsys.readouterr().out
