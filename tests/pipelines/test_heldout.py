"""The losses on held-out rows of a run: recomputed plainly, by set, the best step, tasks that are set aside."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from data_recipes.errors import UserError
from data_recipes.store import HELDOUT, Mixture
from pipelines.experiment import load_experiment
from pipelines.heldout import HeldoutSet, best_metric, check_set_name
from tests.conftest import write_experiment
from tests.pipelines.sft_runs import logged, train_here

STEPS = 6
SECTIONS = f"""
sft:
  dtype: float32
  bf16: false
  learning_rate: 1e-2
  lr_scheduler_type: constant
  warmup_steps: 0
  balance: famo
  logging_steps: 1
  batch_size: 4
  max_steps: {STEPS}
  save_steps: 100
  max_length: 128
  eval_strategy: steps
  eval_steps: 1
  per_device_eval_batch_size: 4
"""
TASKS = ("chain_sum", "word_sequence_reversal")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, tiny_model) -> tuple[Path, Path]:
    """An experiment file and its run, measured after every step on the mixture's rows and on two files."""
    from pipelines.mix import mix

    folder = tmp_path_factory.mktemp("measured")
    more = [a_row("chain_sum", "What is 2 + 2?", "4"), a_row("chain_sum", "What is 9 - 1?", "8")]
    more.append(a_row("capitals", "Say the capital of France.", "Paris, of course."))
    other = [{"messages": row["messages"]} for row in more[:2]]
    too_long = {"role": "user", "content": "word " * 200}
    other.append({"messages": [too_long, {"role": "assistant", "content": "No target within max_length."}]})
    for name, rows in (("more", more), ("other", other)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = f"  eval_sets: {{more: {folder / 'more.jsonl'}, other: {folder / 'other.jsonl'}}}\n"
    file = write_experiment(folder, SECTIONS + sets, model=tiny_model)
    mix(load_experiment(file, check_trl=False))
    train_here(file)
    return file, folder / "run"


def a_row(task: str, question: str, answer: str) -> dict:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": question, "task": task, "kind": "domain", "messages": turns}


def evaluations(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(key.startswith("eval_") for key in line)]


def another(measured: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """Return the experiment's file and a new run folder with the same mixture."""
    file, run = measured
    folder.mkdir()
    (folder / "mixture").symlink_to(run / "mixture")
    return file, folder


def recomputed(model_folder: Path | str, conversations: list[list[dict]]) -> tuple[float, int]:
    """Return the mean loss of the last turns' tokens and their number, row by row with transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    nll, tokens = 0.0, 0
    for turns in conversations:
        prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(turns, return_dict=False)
        ids = ids[: len(ids) - ids[::-1].index(tokenizer.eos_token_id)]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        nll += loss * (len(ids) - len(prompt))
        tokens += len(ids) - len(prompt)
    return nll / tokens, tokens


def test_held_out_losses_are_those_of_plain_transformers(measured):
    file, run = measured
    experiment = load_experiment(file, check_trl=False)
    by_set: dict[str, dict[str, list]] = {"heldout": {}, "more": {}, "other": {}}
    for row in Mixture(run / "mixture").rows(HELDOUT):
        by_set["heldout"].setdefault(row.task, []).append([turn.model_dump() for turn in row.messages])
    for line in Path(experiment.sft.eval_sets["more"]).read_text().splitlines():
        row = json.loads(line)
        by_set["more"].setdefault(row["task"], []).append(row["messages"])
    by_set["other"]["other"] = by_set["more"]["chain_sum"]  # the third of its rows has no target within max_length
    assert set(by_set["heldout"]) == set(TASKS) and set(by_set["more"]) == {"chain_sum", "capitals"}

    assert [line["step"] for line in evaluations(run)] == list(range(1, STEPS + 1))
    line, final = evaluations(run)[-1], run / "sft" / "model"
    expected = {
        f"eval_{name}/{key}/{task}": value
        for name, tasks in by_set.items()
        for task, conversations in tasks.items()
        for key, value in zip(("loss", "tokens"), recomputed(final, conversations), strict=True)
    }
    for name, tasks in by_set.items():
        expected[f"eval_{name}/loss"] = sum(expected[f"eval_{name}/loss/{task}"] for task in tasks) / len(tasks)
    measured_now = {key: value for key, value in line.items() if key.startswith("eval_") and "/accuracy/" not in key}
    assert measured_now.keys() == expected.keys(), "each set under its own name, and nothing else"
    assert measured_now == pytest.approx(expected, abs=1e-5)
    assert abs(line["eval_heldout/loss"] - evaluations(run)[0]["eval_heldout/loss"]) > 0.1, "the weights have moved"


@pytest.mark.parametrize("best", ["word_sequence_reversal", pytest.param("mean", marks=pytest.mark.slow)])
def test_the_final_weights_are_those_of_the_best_step(measured, tmp_path, best):
    file, run = another(measured, tmp_path / "run")
    train_here(file, f"output_dir={run}", f"sft.best={best}", "sft.learning_rate=1e-1", "sft.eval_sets={}")
    key = "eval_heldout/loss" + ("" if best == "mean" else f"/{best}")
    losses = {line["step"]: line[key] for line in evaluations(run)}
    lowest = min(losses, key=losses.get)
    assert 1 < lowest < STEPS, "neither the first nor the last step"
    rows = [row for row in Mixture(run / "mixture").rows(HELDOUT) if best in ("mean", row.task)]
    by_task: dict[str, list] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append([turn.model_dump() for turn in row.messages])
    found = [recomputed(run / "sft" / "model", conversations)[0] for conversations in by_task.values()]
    assert sum(found) / len(found) == pytest.approx(losses[lowest], abs=1e-3)
    assert min(abs(loss - losses[lowest]) for step, loss in losses.items() if step != lowest) > 1e-2, "no other step's"
    kept = {path.name for path in (run / "sft" / "checkpoints").iterdir()}
    assert kept == {f"checkpoint-{lowest}", f"checkpoint-{STEPS}"}


def test_a_task_that_gains_no_more_is_set_aside(measured, tmp_path):
    file, run = another(measured, tmp_path / "run")
    overrides = [f"output_dir={run}", "sft.patience=2", "sft.max_steps=40", "sft.save_steps=1", "sft.eval_sets={}"]
    train_here(file, *overrides)
    found = evaluations(run)
    stopped: dict[str, int] = {}
    for task in TASKS:
        losses = [line[f"eval_heldout/loss/{task}"] for line in found]
        best = 0
        for place, loss in enumerate(losses):
            best = place if loss < losses[best] else best
            if place - best >= 2:
                stopped[task] = found[place]["step"]
                break
    assert stopped.keys() == set(TASKS) and len(set(stopped.values())) == 2, "one after the other"
    for line in found:
        told = {key.removeprefix("stopped/"): value for key, value in line.items() if key.startswith("stopped/")}
        assert told == {task: step for task, step in stopped.items() if step <= line["step"]}
    assert found[-1]["step"] == max(stopped.values()) < 40, "training ends with the last task"
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for task in TASKS:
            if f"weight/{task}" in line:
                assert (line[f"weight/{task}"] == 0) == (line["step"] > stopped[task])
    page = (run / "sft" / "progress.html").read_text()
    assert all(f"stopped at {step}" in page for step in stopped.values()) and page.count("stopped at") >= 2

    before = logged(run)  # killed in the final save, say: what had ended trains no further
    shutil.rmtree(run / "sft" / "model")
    train_here(file, *overrides)
    assert logged(run) == before and (run / "sft" / "model").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["sft.best=word_sequence_reversed"],
            "nothing is held out of 'word_sequence_reversed'.*word_sequence_reversal",
        ),
        (["sft.eval_sets={heldout: x.jsonl}"], "'heldout' cannot be a set's name"),
        (["sft.eval_sets={generated: x.jsonl}"], "'generated' cannot be a set's name"),
        (["sft.eval_sets={a/b: x.jsonl}"], "'a/b' cannot be a set's name"),
        (["sft.eval_sets={mine: nowhere.jsonl}"], "eval_sets.mine: there is no file nowhere.jsonl; mend the path"),
        (["sft.eval_sets={mine: {empty}}"], "eval_sets.mine: no row of .* has a target"),
        (["sft.eval_sets={mine: {broken}}"], "line 2: .*mend"),
        (["sft.eval_strategy=epoch"], "sft.eval_strategy: .* use steps, and eval_steps"),
        (["sft.save_strategy=best"], "sft.save_strategy: .* best: mean"),
        (["sft.best=mean", "sft.eval_strategy='no'", "sft.eval_sets={}"], "sft.best needs held-out losses"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(measured, tmp_path, overrides, words):
    file, run = another(measured, tmp_path / "run")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text(json.dumps(a_row("t", "a?", "b")) + '\n{"no": "row"}\n')
    for name in ("empty", "broken"):
        overrides = [one.replace(f"{{{name}}}", str(tmp_path / f"{name}.jsonl")) for one in overrides]
    with pytest.raises(UserError, match=words) as caught:
        train_here(file, f"output_dir={run}", *overrides)
    assert "\n" not in str(caught.value) and not (run / "sft").exists()


def test_the_best_of_nothing_held_out_is_refused(measured):
    sets: dict[str, HeldoutSet] = {}
    with pytest.raises(UserError, match="nothing is held out of the mixture"):
        best_metric("mean", sets)
    with pytest.raises(UserError, match="is empty"):
        check_set_name("")
