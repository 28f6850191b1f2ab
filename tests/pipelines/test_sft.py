"""Two processes against one, kill -9 and resume, the tasks' losses; the real model is in test_strategies.py."""

import signal
import time

import pytest
from safetensors.torch import load_file

from tests.pipelines.sft_runs import launch, metrics

SECTIONS = """
sft:
  lora: {r: 8}
  dtype: float32
  bf16: false
  learning_rate: 2e-2
  warmup_steps: 2
  logging_steps: 1
  per_device_train_batch_size: 4
  max_length: 256
"""


@pytest.mark.slow  # test_strategies does so with every strategy
def test_two_processes_follow_the_losses_of_one(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    one, two = run_folder("one"), run_folder("two")
    options = ["--set", "sft.max_steps=20", "--set", "sft.lora=null", "--set", "sft.learning_rate=5e-3"]
    launch(file, *options, "--set", f"output_dir={one}")
    options += ["--set", f"output_dir={two}", "--set", "sft.per_device_train_batch_size=2"]
    launch(file, *options, processes=2)
    alone, together = metrics(one), metrics(two)
    assert len(alone) == len(together) == 20
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(alone, together, strict=True)) < 1e-3
    assert sum(a["loss"] for a in alone[:3]) / 3 - sum(a["loss"] for a in alone[-3:]) / 3 >= 0.3
    for a, b in zip(alone, together, strict=True):
        tasks = {key for key in a if key.startswith("loss/")}
        assert tasks == {key for key in b if key.startswith("loss/")}
        assert all(abs(a[key] - b[key]) < 2e-3 for key in tasks)
        whole = sum(a[key] * a[key.replace("loss/", "tokens/")] for key in tasks)
        tokens = sum(a[key.replace("loss/", "tokens/")] for key in tasks)
        assert whole / tokens == pytest.approx(a["loss"], abs=2e-4), "the tasks' losses add up to the loss that trains"


def test_kill_9_and_the_same_command_end_in_bit_equal_weights(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed, killed = run_folder("undisturbed"), run_folder("killed")
    options = ["--set", "sft.max_steps=8", "--set", "sft.save_steps=2"]
    launch(file, *options, "--set", f"output_dir={undisturbed}")

    options += ["--set", f"output_dir={killed}"]
    process = launch(file, *options, background=True)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        done = killed / "sft" / "metrics.jsonl"
        if done.exists() and done.read_text().count("\n") >= 5:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still training"
    # a checkpoint whose writing the kill cut off is recognised
    torn = killed / "sft" / "checkpoints" / "checkpoint-7"
    torn.mkdir()
    result = launch(file, *options)
    assert "checkpoint-7 was cut off" in result.stdout and "resuming from step" in result.stdout

    assert [m["step"] for m in metrics(killed)] == list(range(1, 9))
    assert [m["loss"] for m in metrics(killed)] == [m["loss"] for m in metrics(undisturbed)]
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        ours, theirs = load_file(killed / "sft" / name), load_file(undisturbed / "sft" / name)
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)
    before = (killed / "sft" / "model" / "model.safetensors").stat().st_mtime
    launch(file, *options)
    assert (killed / "sft" / "model" / "model.safetensors").stat().st_mtime == before, "a finished stage is left alone"


def test_the_loss_is_on_the_target_alone(model_folder):
    from data_recipes.row import Message, Row
    from pipelines.tokens import ChatTokeniser

    tokeniser = ChatTokeniser(model_folder)
    turns = [Message(role="user", content="What is 3 + 5?"), Message(role="assistant", content="8")]
    row = Row(id="1", task="t", kind="domain", messages=turns)
    prompt_alone = row.model_copy(update={"messages": turns[:1]})
    (ids, start), (prompt, end) = tokeniser([row, prompt_alone])
    assert tokeniser.tokenizer.decode(ids[start:]) == "8<|im_end|>"
    assert ids[:start] == prompt and end == len(prompt)
    whole = tokeniser.tokenizer.apply_chat_template([turn.model_dump() for turn in turns], return_dict=False)
    assert whole[: len(ids)] == ids


@pytest.mark.slow
def test_two_processes_resume_after_a_kill_with_the_same_losses(tiny_mixed):
    file, run_folder = tiny_mixed(SECTIONS)
    undisturbed, killed = run_folder("undisturbed"), run_folder("killed")
    options = ["--set", "sft.max_steps=6", "--set", "sft.save_steps=2", "--set", "sft.per_device_train_batch_size=2"]
    launch(file, *options, "--set", f"output_dir={undisturbed}", processes=2)
    options += ["--set", f"output_dir={killed}"]
    process = launch(file, *options, processes=2, background=True)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not list(killed.glob("sft/checkpoints/*/complete.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the workers die with their launcher
    assert "resuming from step" in launch(file, *options, processes=2).stdout
    ours, theirs = metrics(killed), metrics(undisturbed)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, 7))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True)) < 1e-3
