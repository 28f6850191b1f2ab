"""Training and evaluation on a real Slurm of two nodes, disturbed as jobs are."""

import json
import subprocess

import pytest

from tests.slurm.cluster import wait_for

pytestmark = pytest.mark.slurm

SFT = """
sft: {lora: {r: 4}, learning_rate: 1e-3, max_steps: 8, batch_size: 4, per_device_train_batch_size: 2, dtype: float32,
      logging_steps: 1, save_steps: 2}
"""
EVAL = "eval: {benchmarks: [{type: heldout, max_tokens: 6}], baselines: {base: {}}}\n"


@pytest.fixture
def undisturbed(make_run, model_folder):
    """A run of two nodes that nobody disturbed."""
    run = make_run("undisturbed", SFT)
    numbers = run.submit("--nodes", "2", "--gpus-per-node", "1", "--partition", "low", "--time", "00:30:00")
    run.wait()
    assert list(numbers) == ["mix", "sft"]
    return run, numbers


def test_two_nodes_train_and_a_disturbed_job_ends_like_an_undisturbed_one(undisturbed, make_run, cluster):
    run, numbers = undisturbed
    assert run.jobs().count("COMPLETED") == 2, run.jobs() + run.logs()
    asked = {name: cluster.job(number) for name, number in numbers.items()}
    assert [asked[name]["NumNodes"] for name in ("mix", "sft")] == ["1", "2"], "each asks for what it needs"
    assert "gpu:1" in asked["sft"]["TresPerNode"] and "TresPerNode" not in asked["mix"]
    assert json.loads((run.folder / "sft" / "strategy.json").read_text())["world_size"] == 2
    attempt = run.folder / "logs" / "slurm" / f"sft-{numbers['sft']}" / "latest"
    assert attempt.readlink().name == "attempt-0"
    assert {path.name for path in attempt.iterdir()} == {"exit_code", "job.log", "node-0.log", "node-1.log"}
    losses = [line["loss"] for line in run.metrics()]
    assert len(losses) == 8
    weights = (run.folder / "sft" / "adapter" / "adapter_model.safetensors").read_bytes()

    def ends_like_it(other, number):
        assert "COMPLETED" in other.jobs(), other.jobs() + other.logs()
        assert cluster.job(number)["Restarts"] == "1"
        assert [line["loss"] for line in other.metrics()] == losses, "each step once, across the attempts"
        assert (other.folder / "sft" / "adapter" / "adapter_model.safetensors").read_bytes() == weights
        attempts = other.folder / "logs" / "slurm" / f"sft-{number}"
        assert (attempts / "latest").readlink().name == "attempt-1" and (attempts / "attempt-0" / "job.log").exists()
        return (attempts / "attempt-0" / "job.log").read_text()

    requeued = make_run("requeued", SFT, mixture_of=run)
    number = requeued.submit("--nodes", "2")["sft"]
    wait_for(lambda: len(requeued.metrics()) >= 4, 120, "four steps")
    subprocess.run(["scontrol", "requeue", number], env=cluster.environment, check=True)
    requeued.wait()
    ends_like_it(requeued, number)

    preempted = make_run("preempted", SFT.replace("save_steps: 2", "save_steps: 100"), mixture_of=run)
    number = preempted.submit("--nodes", "2")["sft"]
    wait_for(lambda: len(preempted.metrics()) >= 3, 120, "three steps")
    urgent = ["sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, env=cluster.environment, check=True, capture_output=True)
    preempted.wait()
    log = ends_like_it(preempted, number)
    assert "saved; going on in another attempt" in log and "checkpoint-" in log


def test_a_failing_stage_stops_its_dependants_and_says_why(make_run, cluster, model_folder):
    run = make_run("failing", SFT + EVAL)
    numbers = run.submit("--set", "sft.max_length=4")
    assert list(numbers) == ["mix", "sft", "eval", "leaderboard"]
    refused = run.whetstone("submit", str(run.file), "--set", f"output_dir={run.folder}")
    assert refused.returncode == 2 and "still in the queue" in refused.stderr, refused.stderr
    run.wait(120)
    told = run.jobs()
    assert "has a target within sft.max_length 4; raise it" in told, told + run.logs()
    assert "sft failed (exit code 2): " in told and f"sft-{numbers['sft']}/latest" in told
    assert "eval, leaderboard: did not run, because sft failed" in told
    assert [cluster.job(numbers[name])["JobState"] for name in ("eval", "leaderboard")] == ["CANCELLED"] * 2

    cluster.forget_jobs()
    told = run.jobs()
    assert "forgotten by Slurm" in told and "sft failed (exit code 2): " in told, told
    assert "eval, leaderboard: did not run, because sft failed" in told and "COMPLETED" in told


def test_an_eval_array_merges_to_the_table_of_a_single_run(make_run, model_folder):
    single = make_run("single", "sft: {max_steps: 1}\n" + EVAL)
    for command in ("mix", "eval"):
        options = ["--set", f"output_dir={single.folder}", "--set", "sft=null"]
        result = single.whetstone(command, str(single.file), *options)
        assert result.returncode == 0, result.stderr
    built = single.whetstone("leaderboard", str(single.folder))
    assert built.returncode == 0, built.stderr
    sharded = make_run("sharded", EVAL, mixture_of=single)
    numbers = sharded.submit("--eval-shards", "2")
    assert list(numbers) == ["eval-shards", "eval", "leaderboard"]
    sharded.wait()
    assert sharded.jobs().count("COMPLETED") == 3, sharded.jobs() + sharded.logs()
    assert len(list((sharded.folder / "eval" / "base").glob("samples-*-of-2.jsonl"))) == 2

    def scores(run):
        results = [json.loads(path.read_text()) for path in sorted(run.folder.glob("eval/*/results.json"))]
        return [{name: one["scores"] for name, one in result["benchmarks"].items()} for result in results]

    def table(run):
        lines = (run.folder / "leaderboard" / "leaderboard.md").read_text().splitlines()
        return [line for line in lines if line.startswith("|") and "seconds" not in line]

    assert scores(sharded) == scores(single) and table(sharded) == table(single) != []


def test_a_sweep_runs_each_value_and_one_that_fails_stops_only_its_own(make_run, model_folder):
    run = make_run("sweep", SFT.replace("max_steps: 8", "max_steps: 1") + EVAL)
    run.submit("--sweep", "sft.max_length=4,256")
    run.wait(420)
    told = run.jobs()
    assert "sft, sft.max_length=4 failed (exit code 2)" in told, told + run.logs()
    short, long = run.folder / "sft.max_length=4", run.folder / "sft.max_length=256"
    assert (long / "leaderboard" / "index.html").exists(), told + run.logs()
    assert (short / "mixture").exists() and not (short / "eval").exists() and not (short / "sft" / "model").exists()


def test_attempts_that_get_nowhere_come_to_an_end(make_run, cluster, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").write_text('#!/bin/sh\ntouch "$WHETSTONE_ATTEMPT/preempted"\n')  # told to stop before a step
    (programs / "python").chmod(0o755)
    launch = f'launch: {{environment: {{PATH: "{programs}:/usr/bin:/bin"}}}}\n'
    run = make_run("nowhere", SFT + launch)
    assert run.whetstone("mix", str(run.file), "--set", f"output_dir={run.folder}").returncode == 0
    number = run.submit("--nodes", "2")["sft"]
    run.wait()
    assert cluster.job(number)["Restarts"] == "2" and cluster.job(number)["ExitCode"] == "75:0"
    assert "sft failed (exit code 75): 3 attempts were stopped before a new checkpoint" in run.jobs()
