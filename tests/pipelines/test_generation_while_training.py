"""Weights in training answer questions at chosen steps: which weights, what is kept, kills, several processes."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl
from eval.engines import EngineSettings, Request, open_engine
from eval.run_folder import open_run, read_samples
from pipelines.experiment import load_experiment
from pipelines.generation import metrics_of
from pipelines.training import forget_after
from tests.pipelines.sft_runs import launch, logged, same_weights, train_here

ENGINE = {"type": "transformers", "dtype": "float32", "max_model_len": 256}
SECTIONS = f"""
engine: {json.dumps(ENGINE)}
sft:
  lora: {{r: 8}}
  dtype: float32
  bf16: false
  learning_rate: 2e-2
  warmup_steps: 0
  max_steps: 4
  save_steps: 2
  save_total_limit: 9
  logging_steps: 1
  per_device_train_batch_size: 4
  max_length: 256
  generate_at: [0, 4]
  generate_benchmarks: [{{type: heldout, max_tokens: 8}}]
"""
TASKS = ("chain_sum", "word_sequence_reversal")


def generated(run: Path) -> dict[int, dict]:
    """Return the scores by step; no step is logged twice."""
    lines = [line for line in logged(run) if any(key.startswith("eval_generated/") for key in line)]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: {k[15:]: v for k, v in line.items() if k.startswith("eval_generated/")} for line in lines}


def completions(run: Path, step: int) -> dict[str, str]:
    return {one["id"]: one["completion"] for one in read_samples(run / "sft" / "generated" / f"step-{step}")}


def answered_by(model: Path | str, run: Path, step: int) -> dict[str, str]:
    """Return what a model answers to the prompts of a step."""
    samples = read_samples(run / "sft" / "generated" / f"step-{step}")
    engine = open_engine(EngineSettings(**ENGINE), str(model))
    requests = [Request(one["id"], one["prompt"], one["max_tokens"], seed=one["seed"]) for one in samples]
    return {request.key: completion.text for request, completion in engine.generate(requests)}


def test_the_weights_of_the_step_answer_and_training_is_not_disturbed(tiny_mixed, tiny_model):
    file, run_folder = tiny_mixed(SECTIONS)
    asked, silent = run_folder("asked"), run_folder("silent")
    train_here(file, f"output_dir={asked}", "sft.generate_at=[4]")
    train_here(file, f"output_dir={silent}", "sft.generate_at=[]")
    assert same_weights(asked, silent)
    losses = [line for line in logged(asked) if "loss" in line]
    assert losses == [line for line in logged(silent) if "loss" in line] and not (silent / "sft/generated").exists()

    scores = generated(asked)
    assert scores.keys() == {4} and scores[4].keys() == {"mean", *TASKS}
    assert completions(asked, 4) == answered_by(asked / "sft" / "model", asked, 4) != answered_by(tiny_model, asked, 4)
    run = open_run(asked / "sft" / "generated")
    assert [path.name for path in run.contestants()] == ["step-4"], "whetstone inspect and score read it"
    results = read_json(run.contestant("step-4") / "results.json")
    assert metrics_of(results) == {f"eval_generated/{name}": value for name, value in scores[4].items()}
    assert not (asked / "sft/generated/.job").exists()
    assert "scores of generated answers" in (asked / "sft" / "progress.html").read_text()


def test_scores_are_in_percent_by_task_with_their_mean():
    scores = {"a": {"1": 1.0, "2": 0.0}, "b": {"3": 1.0}}
    found = metrics_of({"benchmarks": {"heldout": {"scores": scores}}})
    assert found == {"eval_generated/mean": 75.0, "eval_generated/a": 50.0, "eval_generated/b": 100.0}
    twice = {"short": {"scores": scores}, "long": {"scores": {"a": {"1": 1.0}, "mean": {"5": 0.0}}}}
    found = metrics_of({"benchmarks": twice})
    names = ("mean", "short/a", "b", "long/a", "long/mean")
    assert found == dict(zip((f"eval_generated/{one}" for one in names), (62.5, 50.0, 100.0, 100.0, 0.0), strict=True))
    assert metrics_of({"benchmarks": {}}) == {}


def test_answers_after_the_checkpoint_are_made_again(tmp_path):
    for step in (0, 5, 12):
        (tmp_path / "generated" / f"step-{step}").mkdir(parents=True)
    lines = [{"step": step, "eval_generated/mean": 1.0} for step in (0, 5, 12)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_after(tmp_path, 5)
    assert sorted(path.name for path in (tmp_path / "generated").iterdir()) == ["step-0", "step-5"]
    assert read_jsonl(tmp_path / "metrics.jsonl") == lines[:2]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["engine={type: openai, base_url: http://localhost:1}"], "generate_at: a server cannot be handed the weights"),
        (["sft.generate_at=[-1]"], "sft.generate_at.0"),
        (["sft.generate_benchmarks=[{type: heldut}]"], r"generate_benchmarks.0: unknown benchmark 'heldut'.*'heldout'"),
        (["sft.generate_benchmarks=[{type: heldout, max_token: 3}]"], "generate_benchmarks.0.*max_token"),
        (["sft.generate_benchmarks=[{type: heldout}, {type: heldout}]"], "generate_benchmarks: two are called"),
    ],
)
def test_what_cannot_be_asked_is_told_when_the_file_is_read(small_experiment, overrides, told):
    with pytest.raises(UserError, match=told):
        load_experiment(small_experiment(SECTIONS), overrides, check_trl=False)


def test_a_prompt_too_long_for_the_engine_is_told_before_training(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    with pytest.raises(UserError, match="engine.max_model_len 24; raise it"):
        train_here(file, f"output_dir={run}", "engine.max_model_len=24")
    with pytest.raises(UserError, match="sft.generate_benchmarks: critique: no items"):
        train_here(file, f"output_dir={run}", "sft.generate_benchmarks=[{type: critique}]")
    assert not (run / "sft").exists()


def wait_for(found, process, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def options(run: Path, *overrides: str) -> list[str]:
    return [word for one in (f"output_dir={run}", *overrides) for word in ("--set", one)]


@pytest.mark.slow
def test_kill_9_while_answers_are_generated_neither_repeats_nor_loses_a_step(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed, killed = run_folder("undisturbed"), run_folder("killed")
    steps = "sft.generate_at=[0, 2, 3]"
    launch(file, *options(undisturbed, steps))
    process = launch(file, *options(killed, steps), background=True)
    wait_for(lambda: (killed / "sft/generated/.job/model/model.safetensors").exists() and 3 in started(killed), process)
    worker = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(worker, timeout=5)
    assert gone and not alive, "the worker dies with the training"
    kept = {step: (killed / f"sft/generated/step-{step}/samples.jsonl").stat().st_mtime for step in (0, 2)}
    launch(file, *options(killed, steps))
    assert generated(killed) == generated(undisturbed) and generated(killed).keys() == {0, 2, 3}
    assert same_weights(killed, undisturbed)
    for step in (0, 2, 3):
        assert completions(killed, step) == completions(undisturbed, step)
    assert kept == {s: (killed / f"sft/generated/step-{s}/samples.jsonl").stat().st_mtime for s in kept}


def started(run: Path) -> list[int]:
    return [int(path.name[5:]) for path in (run / "sft" / "generated").glob("step-*")]


@pytest.mark.slow
def test_sigterm_while_answers_are_generated_saves_and_the_next_session_asks(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    steps = "sft.generate_at=[3]"
    process = launch(file, *options(run, steps), background=True)
    wait_for(lambda: 3 in started(run), process)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert (run / "sft/checkpoints/checkpoint-3/complete.json").exists() and not generated(run)
    launch(file, *options(run, steps))
    assert generated(run).keys() == {3} and len(completions(run, 3)) == 12


@pytest.mark.slow
def test_an_engine_that_is_killed_is_told_and_training_goes_on(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    process = launch(file, *options(run, "sft.generate_at=[1, 3]"), background=True)
    wait_for(lambda: 1 in started(run), process)
    time.sleep(0.5)
    for worker in psutil.Process(process.pid).children(recursive=True):
        worker.kill()
    assert process.wait(120) == 0
    assert generated(run).keys() == {3} and (run / "sft" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cpu", "zero3"])
@pytest.mark.parametrize("lora", ["{r: 8}", "null"])
def test_two_processes_ask_the_whole_weights(tiny_mixed, strategy, lora, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    overrides = ["sft.per_device_train_batch_size=2", f"sft.lora={lora}", "sft.learning_rate=5e-3"]
    launch(file, *options(run, *overrides), processes=2, strategy=strategy)
    assert generated(run).keys() == {0, 4}
    assert completions(run, 4) == answered_by(run / "sft" / "model", run, 4) != completions(run, 0)


@pytest.mark.slow
def test_vllm_answers_with_the_merged_weights(tiny_mixed, tiny_model):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    launch(file, *options(run, "engine.type=vllm", "sft.generate_at=[4]"))
    assert generated(run).keys() == {4}
    ours, final = completions(run, 4), answered_by(run / "sft" / "model", run, 4)
    assert sum(ours[key] == final[key] for key in ours) >= len(ours) - 1, "but for a near tie"
    before = answered_by(tiny_model, run, 4)
    assert sum(ours[key] == before[key] for key in ours) <= 2
