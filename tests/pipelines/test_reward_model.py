"""The reward model on the tiny model: it learns, resumes bit-equal, refuses what it cannot do, and rewards GRPO."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl
from data_recipes.store import HELDOUT, TRAIN, read_mixture
from eval.reward_models import RewardModel
from tests.pipelines.reward_runs import TINY, logged, pairs_mixed, train_here  # noqa: F401
from tests.pipelines.sft_runs import launch, run_here

LEARN = {"max_steps": 60, "save_steps": 20, "save_total_limit": 9, "eval_strategy": "steps", "eval_steps": 20}
LORA = {"lora": {"r": 16, "lora_alpha": 32}, "learning_rate": 1e-2, "loss": "focal"}


@pytest.fixture(scope="module")
def finished(pairs_mixed):  # noqa: F811
    """(file, run folder) of a model that learnt, all weights trained."""
    file, run = pairs_mixed(LEARN)
    train_here(file)
    return file, run


@pytest.fixture(scope="module")
def finished_lora(pairs_mixed):  # noqa: F811
    """(file, run folder) of a model with adapters and the focal loss."""
    file, run = pairs_mixed({**LEARN, **LORA})
    train_here(file)
    return file, run


@pytest.mark.parametrize("which", ["finished", "finished_lora"])
def test_it_learns_and_what_is_kept_is_what_was_measured(which, request):
    _, run = request.getfixturevalue(which)
    folder = run / "reward_model"
    results = read_json(folder / "results.json")
    assert list(results["tasks"]) == ["longer", "colours"]
    for found in results["tasks"].values():
        accuracy = found["accuracy"]
        assert found["train_pairs"] == 100 and found["heldout_pairs"] == accuracy["n"] == 40
        assert accuracy["low"] > 0.6 and accuracy["low"] < accuracy["value"] <= accuracy["high"] and found["margin"] > 0
    ranked = read_jsonl(folder / "heldout.jsonl")
    by_task = {
        task: [one["chosen"] > one["rejected"] for one in ranked if one["task"] == task] for task in results["tasks"]
    }
    for task, right in by_task.items():
        assert results["tasks"][task]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    rows = {row.id: row for row in read_mixture(run / "mixture", HELDOUT)}
    model = RewardModel(folder / "model", dtype="float32")
    for side in ("chosen", "rejected"):
        texts = [getattr(rows[one["id"]], side)[-1].content for one in ranked]
        scores = model.score([(rows[one["id"]].prompt, text) for one, text in zip(ranked, texts, strict=True)])
        assert scores == pytest.approx([one[side] for one in ranked], abs=1e-3)
    losses = [line["loss"] for line in logged(run) if "loss" in line]
    assert losses[0] > 2 * losses[-1]
    measured = [line for line in logged(run) if "eval_heldout/accuracy/longer" in line]
    assert [line["step"] for line in measured] == [20, 40, 60]
    assert measured[-1]["eval_heldout/accuracy/longer"] == pytest.approx(
        results["tasks"]["longer"]["accuracy"]["value"]
    )


def test_the_calibration_is_that_of_the_pairs_as_they_are_presented(finished):
    from pipelines.ranking.report import chosen_is_first

    _, run = finished
    results, ranked = (read_json(run / "reward_model" / "results.json"), read_jsonl(run / "reward_model/heldout.jsonl"))
    first = [chosen_is_first(one["id"]) for one in ranked]
    assert 0.3 < sum(first) / len(first) < 0.7
    chances = [
        1 / (1 + math.exp((one["rejected"] - one["chosen"]) * (1 if is_first else -1)))
        for one, is_first in zip(ranked, first, strict=True)
    ]
    assert sum(one["n"] for one in results["calibration"]) == 80
    for one in results["calibration"]:
        inside = [
            n for n, chance in enumerate(chances) if one["low"] <= chance < one["high"] or chance == one["high"] == 1
        ]
        assert len(inside) == one["n"]
        assert sum(first[n] for n in inside) / len(inside) == pytest.approx(one["actual"])
    page = (run / "reward_model" / "progress.html").read_text()
    assert "Calibration" in page and "finished" in page and 'id="ranked"' in page


@pytest.mark.parametrize("which", ["finished", "finished_lora"])
def test_a_killed_run_ends_bit_equal(which, request, tmp_path, capsys):
    """With a loss that was summed but not logged when the checkpoint was written."""
    file, run = request.getfixturevalue(which)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for step in (40, 60):
        shutil.rmtree(copy / "reward_model" / "checkpoints" / f"checkpoint-{step}")
    for name in ("results.json", "heldout.jsonl", "progress.html"):
        (copy / "reward_model" / name).unlink()
    shutil.rmtree(copy / "reward_model" / "model")
    train_here(file, f"output_dir={copy}")
    assert "resuming from step 20" in capsys.readouterr().out
    assert logged(copy) == logged(run)
    ours, theirs = (load_file(one / "reward_model" / "model" / "model.safetensors") for one in (copy, run))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)
    assert any(name.startswith("score") for name in theirs)
    for name in ("results.json", "heldout.jsonl"):
        assert (copy / "reward_model" / name).read_text() == (run / "reward_model" / name).read_text()


@pytest.mark.parametrize("keys", [{}, {"loss": "focal", "gamma": 1.0, "center_rewards_coefficient": 0.1}])
def test_a_step_is_that_of_the_pairs_mean_loss_worked_out_by_hand(finished, tmp_path, tiny_model, keys):
    from transformers import AutoTokenizer, set_seed

    from data_recipes.store import Mixture
    from pipelines.ranking.pairs import order_of, read_pairs
    from pipelines.reward_model import scoring_model

    file, undisturbed = finished
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "mixture", run / "mixture")
    step = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "max_steps": 1, "logging_steps": 1}
    step |= {"lr_scheduler_type": "constant", "warmup_steps": 0, "save_strategy": "no", "eval_strategy": "no", **keys}
    train_here(file, f"output_dir={run}", *(f"reward_model.{key}={json.dumps(value)}" for key, value in step.items()))

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    pairs, _ = read_pairs(Mixture(run / "mixture"), [], tokenizer, 128)
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "world_size": 1}
    order = order_of(Mixture(run / "mixture"), pairs, SimpleNamespace(**sizes, max_steps=1, num_train_epochs=1), 3)
    set_seed(3)
    model = scoring_model(tiny_model, "float32", tokenizer.pad_token_id)
    losses = []
    for number in order:
        both = [model(torch.tensor(ids)[None]).logits[0, 0] for ids in (pairs[number].chosen, pairs[number].rejected)]
        chance = torch.sigmoid(both[0] - both[1])
        loss = -torch.log(chance)
        if keys:
            loss = loss * (1 - 2 * max(0.0, chance - 0.5)) + 0.1 * (both[0] + both[1]) ** 2
        losses.append(loss)
    loss = torch.stack(losses).mean()
    loss.backward()
    (line,) = [line for line in logged(run) if "loss" in line]
    assert len(losses) == 8 and line["loss"] == pytest.approx(loss.item(), abs=1e-4)
    found, moved = load_file(run / "reward_model" / "model" / "model.safetensors"), 0.0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach() - 0.5 * parameter.grad, rtol=0, atol=2e-6)
        moved = max(moved, parameter.grad.abs().max().item())
    assert moved > 1e-3


@pytest.mark.slow
def test_two_processes_learn_as_one_does(finished, tmp_path):
    file, run = finished
    copy = tmp_path / "copy"
    shutil.copytree(run / "mixture", copy / "mixture")
    options = ["--set", f"output_dir={copy}", "--set", "reward_model.gradient_accumulation_steps=1"]
    launch(file, *options, processes=2, stage="reward_model")
    for ours, theirs in zip(logged(copy), logged(run), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("loss", 0) == pytest.approx(theirs.get("loss", 0), abs=2e-3)
    ours, theirs = (read_json(one / "reward_model" / "results.json") for one in (copy, run))
    assert ours["all"]["accuracy"]["value"] == pytest.approx(theirs["all"]["accuracy"]["value"], abs=0.03)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": ["chain_sum"]}, "no preference rows of 'chain_sum'"),
        ({"tasks": ["longr"]}, "unknown task 'longr' .did you mean 'longer'"),
        ({"loss": "focl"}, "reward_model.loss: Input should be 'ranking' or 'focal'"),
        ({"loss": "focal", "gamma": -1}, "reward_model.gamma: Input should be greater than or equal to 0"),
        ({"gamma": 1}, "gamma belongs to loss: focal"),
        ({"learning_rat": 1}, "unknown key 'reward_model.learning_rat' .did you mean 'learning_rate'"),
        ({"max_length": 12}, "no pair of 'longer' is within 12 tokens; raise it"),
        ({"eval_strategy": "epoch"}, "reward_model.eval_strategy: .*use steps, and eval_steps"),
        ({"eos_token": "x"}, "reward_model.eos_token: .*remove it"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(finished, tmp_path, keys, message):
    file, run = finished
    shutil.copytree(run / "mixture", tmp_path / "run" / "mixture")
    overrides = [f"reward_model.{key}={json.dumps(value)}" for key, value in keys.items()]
    with pytest.raises(UserError, match=message) as caught:
        train_here(file, f"output_dir={tmp_path / 'run'}", *overrides)
    assert "\n" not in str(caught.value)


def test_a_mixture_without_preferences_is_refused(tiny_mixed):
    file, run_folder = tiny_mixed("reward_model: {max_steps: 1}\n")
    run_folder("run")
    with pytest.raises(UserError, match="no row has chosen and rejected answers.*give the recipe a task"):
        train_here(file)


GRPO = {
    **{"dtype": "float32", "bf16": False, "use_vllm": False, "num_generations": 4, "max_completion_length": 12},
    **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 1, "max_steps": 4},
    **{"lr_scheduler_type": "constant", "warmup_steps": 0, "learning_rate": 1e-3, "save_steps": 2},
}


@pytest.fixture(scope="module")
def rewarded(finished, tmp_path_factory):
    """(file, run folder) of GRPO on all tasks, two of which are judged by the reward model."""
    from pipelines.grpo import train

    file, run = finished
    own = file.with_name("with_grpo.yaml")
    folder = tmp_path_factory.mktemp("rewarded") / "run"
    section = {**GRPO, "reward_model": str(run / "reward_model" / "model")}
    head = [line for line in file.read_text().splitlines() if not line.startswith(("reward_model", "output_dir"))]
    own.write_text("\n".join([*head, f"output_dir: {folder}", f"grpo: {json.dumps(section)}\n"]))
    shutil.copytree(run / "mixture", folder / "mixture")
    run_here(train, own)
    return own, folder


def test_rows_without_verifiers_are_rewarded_by_the_model_and_others_by_theirs(finished, rewarded):
    _, run = finished
    _, folder = rewarded
    made = read_jsonl(folder / "grpo" / "rollouts.jsonl")
    rows = {row.id: row for row in read_mixture(folder / "mixture", TRAIN)}
    by_model = [one for one in made if one["task"] in ("longer", "colours")]
    assert {one["task"] for one in made} >= {"longer", "colours"} and all(one["reward"] is not None for one in by_model)
    model = RewardModel(run / "reward_model" / "model")
    scores = model.score([(rows[one["id"]].prompt, one["completion"]) for one in by_model])
    assert [one["reward"] for one in by_model] == pytest.approx(scores, abs=1e-4)
    assert all(one["reward"] in (0.0, 1.0, None) for one in made if one["task"] == "chain_sum")
    lines = [json.loads(line) for line in (folder / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert any(f"advantage/{task}" in line for line in lines for task in ("longer", "colours"))


def test_a_killed_run_with_a_reward_model_goes_on(rewarded, tmp_path):
    from pipelines.grpo import train

    file, folder = rewarded
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "grpo" / "checkpoints" / "checkpoint-4")
    lines = (copy / "grpo" / "rollouts.jsonl").read_text().splitlines(keepends=True)
    (copy / "grpo" / "rollouts.jsonl").write_text("".join(lines[: 2 * 8 + 5]) + lines[21][:40])
    run_here(train, file, f"output_dir={copy}")
    assert read_jsonl(copy / "grpo" / "rollouts.jsonl") == read_jsonl(folder / "grpo" / "rollouts.jsonl")
    ours, theirs = (load_file(one / "grpo" / "model" / "model.safetensors") for one in (copy, folder))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_broken_rewards_take_no_part_and_are_counted(finished, rewarded, tmp_path):
    from safetensors.torch import save_file

    from pipelines.grpo import train

    _, run = finished
    file, folder = rewarded
    broken = tmp_path / "broken"
    shutil.copytree(run / "reward_model" / "model", broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {**weights, "score.weight": torch.full_like(weights["score.weight"], torch.nan)}, broken / "model.safetensors"
    )
    shutil.copytree(folder / "mixture", tmp_path / "run" / "mixture")
    keys = [f"grpo.reward_model={broken}", "grpo.tasks=[longer]", "grpo.max_steps=1"]
    run_here(train, file, f"output_dir={tmp_path / 'run'}", *keys)
    made = read_jsonl(tmp_path / "run" / "grpo" / "rollouts.jsonl")
    assert {one["reward"] for one in made} == {None}
    assert all("the reward model gave nan" in one["problem"] for one in made)
    line = json.loads((tmp_path / "run" / "grpo" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["failed/longer"] == 1 and "reward/longer" not in line


def test_grpo_without_a_reward_model_says_what_is_missing(rewarded, tmp_path):
    from pipelines.grpo import train

    file, folder = rewarded
    shutil.copytree(folder / "mixture", tmp_path / "mixture")
    head = [f"output_dir={tmp_path}", "grpo.tasks=[longer]"]
    with pytest.raises(UserError, match="no judgeable rows of longer; .* give grpo a reward_model"):
        run_here(train, file, *head, "grpo.reward_model=null")
    with pytest.raises(UserError, match="grpo.reward_model: model './nowhere': no such folder"):
        run_here(train, file, *head, "grpo.reward_model=./nowhere")
    with pytest.raises(UserError, match="grpo.reward_model: every row .* names a verifier"):
        run_here(train, file, f"output_dir={tmp_path}", "grpo.tasks=[chain_sum]")
    with pytest.raises(UserError, match="reward_model stage has not finished; run .*whetstone reward_model FILE"):
        run_here(train, file, *head, "grpo.reward_model=null", "reward_model={max_steps: 1}")
