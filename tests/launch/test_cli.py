"""The command line, as a person meets it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHETSTONE = str(Path(sys.executable).parent / "whetstone")
SFT = "sft: {lora: {r: 4}, max_steps: 1}\n"


def whetstone(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    return subprocess.run([WHETSTONE, *arguments], capture_output=True, text=True, cwd=ROOT, env=env)


def assert_one_sentence(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("whetstone: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    for word in words:
        assert word in lines[0]


def test_help_answers_in_under_half_a_second():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert "quickstart" in whetstone("--help").stdout
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_a_dry_run_prints_the_resolved_file_and_the_plan(small_experiment, tmp_path):
    result = whetstone("run", str(small_experiment(SFT)), "--set", "sft.learning_rate=1e-4", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "learning_rate: 0.0001" in result.stdout and "# sft: would run" in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_mistake_ends_in_one_sentence_and_exit_code_2(small_experiment):
    result = whetstone("run", str(small_experiment(SFT)), "--set", "sft.lerning_rate=1")
    assert_one_sentence(result, "did you mean 'learning_rate'")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["run", "{tmp}/nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "{file}", "--set", "model=./missing"], "./missing.*no such folder"),
        (["sft", "{file}"], "no mixture here.*whetstone mix FILE"),
        (["grpo", "{file}"], "has no grpo section"),
        (["reward_model", "{file}"], "has no reward_model section"),
        (["leaderboard", "{file}"], "has no eval section"),
        (["mix", "{file}", "--set", "output_dir={tmp}/file/run"], "/file"),
    ],
)
def test_other_mistakes_do_so_too(small_experiment, tmp_path, here, words, sentence):
    file = small_experiment(SFT)
    (tmp_path / "file").write_text("")
    result = here(*(word.format(tmp=tmp_path, file=file) for word in words))
    assert_one_sentence(result, "")
    assert re.search(sentence, result.stderr)


def test_changed_settings_never_overwrite_a_finished_stage(small_experiment, tmp_path, here):
    file = str(small_experiment(SFT))
    assert here("mix", file).returncode == 0
    before = (tmp_path / "run" / "mixture" / "manifest.json").read_bytes()
    again = here("mix", file)
    assert again.returncode == 0 and "done before" in again.stdout
    assert_one_sentence(here("mix", file, "--set", "seed=99"), "made with other settings", "output_dir")
    assert (tmp_path / "run" / "mixture" / "manifest.json").read_bytes() == before


def test_a_folder_in_use_is_not_shared(small_experiment, tmp_path, here):
    import fcntl

    file = str(small_experiment(SFT))
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_one_sentence(here("mix", file), "another run is using this folder")


def test_the_schema_is_json_and_unknown_commands_are_refused():
    assert json.loads(whetstone("schema").stdout)["title"] == "Experiment"
    assert whetstone("rnu").returncode == 2


def test_doctor_finds_everything_that_set_up_installed():
    result = whetstone("doctor")
    assert result.returncode == 0, result.stderr
    assert "ok       model smollm2-135m-instruct" in result.stdout and "dtype auto is" in result.stdout


def test_imports_go_one_way():
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("command", [["check", "."], ["format", "--check", "."]])
def test_the_style_is_ruffs(command):
    result = subprocess.run(
        [str(Path(sys.executable).parent / "ruff"), *command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
