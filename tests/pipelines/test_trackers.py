"""report_to: what is told before training, and a real tracker beside metrics.jsonl."""

import importlib.util
from pathlib import Path

import pytest

from data_recipes.errors import UserError
from data_recipes.files import read_jsonl
from pipelines.experiment import load_experiment
from tests.pipelines.sft_runs import launch, logged, train_here

SECTIONS = """
sft:
  lora: {r: 4}
  dtype: float32
  bf16: false
  learning_rate: 2e-2
  max_steps: 2
  logging_steps: 1
  per_device_train_batch_size: 2
  max_length: 256
"""
SEVERAL = "[tensorboard, trackoi]"


@pytest.mark.parametrize(
    ("given", "name", "meant"), [("tensorbord", "tensorbord", "tensorboard"), (SEVERAL, "trackoi", "trackio")]
)
def test_an_unknown_tracker_is_told_with_the_nearest_name(small_experiment, given, name, meant):
    file = small_experiment(SECTIONS)
    with pytest.raises(UserError, match=rf"sft.report_to: unknown tracker '{name}' \(did you mean '{meant}'\?\)"):
        load_experiment(file, [f"sft.report_to={given}"])


def test_a_tracker_that_is_not_installed_is_told_before_training(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    name = next(one for one in ("swanlab", "dvclive", "codecarbon") if importlib.util.find_spec(one) is None)
    with pytest.raises(UserError, match=f"^sft.report_to: {name} is not installed; pip install {name}$"):
        train_here(file, f"output_dir={run}", f"sft.report_to={name}")
    assert not (run / "sft").exists()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def check_scalars(run: Path) -> None:
    """Every figure of metrics.jsonl is in TensorBoard's one file, under the names that transformers gives."""
    assert len(list(run.glob("sft/tensorboard/events*"))) == 1, "the first process alone reports"
    shown, lines = scalars(run / "sft" / "tensorboard"), logged(run)
    assert lines
    for line in lines:
        step = line.pop("step")
        for key, value in line.items():
            tag = f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"
            assert dict(shown[tag])[step] == pytest.approx(value, rel=1e-5), tag
    assert {"train/loss/chain_sum", "eval/heldout/loss/chain_sum", "eval/heldout/loss"} <= shown.keys()


def test_tensorboard_gets_every_tasks_figures_and_no_secret_is_written(tiny_mixed, monkeypatch):
    pytest.importorskip("tensorboard")
    secret = "hf_" + "s3cret" * 6
    for name in ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, secret)
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    train_here(file, f"output_dir={run}", "sft.report_to=tensorboard", "sft.eval_strategy=steps", "sft.eval_steps=1")
    assert [line["step"] for line in read_jsonl(run / "sft" / "metrics.jsonl") if "loss" in line] == [1, 2]
    check_scalars(run)
    assert (run / "sft" / "progress.html").exists()
    written = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_first_of_two_processes_reports(tiny_mixed):
    pytest.importorskip("tensorboard")
    file, run_folder = tiny_mixed(SECTIONS)
    run = run_folder("run")
    options = ["sft.report_to=tensorboard", "sft.eval_strategy=steps", "sft.eval_steps=1", f"output_dir={run}"]
    launch(file, *[word for option in options for word in ("--set", option)], processes=2)
    check_scalars(run)
