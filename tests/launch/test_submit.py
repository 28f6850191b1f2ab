"""Batch scripts and what becomes of them, with stand-ins for Slurm's programs; tests/slurm has the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.experiment import load_experiment

ROOT = Path(__file__).parents[2]
SFT = "sft: {lora: {r: 4}, max_steps: 1}\n"
EVAL = "eval: {benchmarks: [{type: heldout}], baselines: {base: {}}}\n"


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder of stand-ins that comes first on the PATH: a counting sbatch, and nothing known of any job."""
    folder = tmp_path / "programs"
    folder.mkdir()
    stand_in(folder, "sbatch", 'echo "$@" >> "$LOG"; wc -l < "$LOG"')
    for name in ("scontrol", "sacct", "squeue"):
        stand_in(folder, name, "exit 1")
    stand_in(folder, "scancel", 'echo scancel "$@" >> "$LOG"')
    return folder


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\nLOG={folder}/log\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def whetstone(here, monkeypatch):
    """`here` with the system's programs alone, and those of a folder, on the PATH."""

    def run(*arguments: str, programs: Path | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess:
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin" if programs else "/usr/bin:/bin")
        monkeypatch.chdir(cwd)
        return here(*arguments)

    return run


def refused(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2, result.stderr
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith("whetstone: ")
    return sentence


def scripts(text: str) -> dict[str, str]:
    """What --dry-run prints, by job."""
    parts = text.split("# ---- ")[1:]
    return {Path(part.split(".sbatch")[0]).name: part.split("\n", 1)[1] for part in parts}


def test_a_dry_run_prints_a_script_a_stage_each_asking_for_what_it_needs(whetstone, small_experiment, tmp_path):
    file = small_experiment(SFT + EVAL)
    options = ["--nodes", "2", "--gpus-per-node", "8", "--partition", "gpu", "--time", "12:00:00"]
    result = whetstone("submit", str(file), *options, "--dry-run")
    assert result.returncode == 0, result.stderr
    made = scripts(result.stdout)
    assert list(made) == ["mix", "sft", "eval", "leaderboard"]
    for line in (
        "--nodes=2",
        "--gpus-per-node=8",
        "--partition=gpu",
        "--time=12:00:00",
        "--requeue",
        "--signal=TERM@120",
    ):
        assert f"#SBATCH {line}\n" in made["sft"]
    assert 'python -m launch.slurm.node sft "$FILE"' in made["sft"] and "MASTER_ADDR" in made["sft"]
    for name in ("mix", "eval", "leaderboard"):
        assert "#SBATCH --nodes=1\n" in made[name] and "--signal" not in made[name] and "MASTER" not in made[name]
        assert "#SBATCH --kill-on-invalid-dep=yes\n" in made[name] and "#SBATCH --partition=gpu\n" in made[name]
        assert ("--gpus-per-node=1" in made[name]) == (name == "eval")
    for script in made.values():
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert not (tmp_path / "run").exists(), "a dry run writes nothing"


def test_the_chain_is_submitted_and_written_down(whetstone, small_experiment, tmp_path, programs):
    file, run = small_experiment(SFT + EVAL), tmp_path / "run"
    result = whetstone("submit", str(file), "--set", "sft.learning_rate=5e-4", programs=programs)
    assert result.returncode == 0, result.stderr
    assert "sft: job 2, after mix" in result.stdout
    calls = (programs / "log").read_text().splitlines()
    scripts_at = run / "slurm" / "1"
    assert calls[0] == f"--parsable {scripts_at}/mix.sbatch"
    assert calls[3] == f"--parsable --dependency=afterok:3 {scripts_at}/leaderboard.sbatch"
    copy = load_experiment(scripts_at / "experiment.yaml")
    assert copy.sft.trl["learning_rate"] == 5e-4 and copy.run_dir == run
    given = load_experiment(file, ["sft.learning_rate=5e-4"])
    assert copy.fingerprint_of("sft") == given.fingerprint_of("sft"), "whetstone run goes on with the same folder"
    assert [job["job"] for job in json.loads((run / "jobs.json").read_text())[0]["jobs"]] == ["1", "2", "3", "4"]
    assert (run / "logs" / "slurm").is_dir()


def test_a_sweep_is_an_array_each_value_in_its_own_folder(whetstone, small_experiment, tmp_path, programs):
    file, run = small_experiment(SFT), tmp_path / "run"
    sweep = ["--sweep", "sft.learning_rate=1e-4,3e-4", "--sweep", "seed=1,2"]
    made = scripts(whetstone("submit", str(file), *sweep, "--dry-run").stdout)
    assert list(made) == ["mix", "sft"] and "#SBATCH --array=0-3\n" in made["sft"]
    folder = run / "sft.learning_rate=3e-4,seed=2"
    assert f"3) RUN={folder}; SETS=(--set sft.learning_rate=3e-4 --set seed=2 ) ;;" in made["sft"]
    assert whetstone("submit", str(file), *sweep, programs=programs).returncode == 0
    assert "--dependency=aftercorr:1" in (programs / "log").read_text()
    tasks = json.loads((run / "jobs.json").read_text())[0]["jobs"][1]["tasks"]
    assert tasks["0"] == "sft.learning_rate=1e-4, seed=1"
    for wrong, words in (
        ("sft.learning_rate", "write it as key=value,value"),
        ("sft.lerning_rate=1", "did you mean 'learning_rate'"),
        ("output_dir=a,b", "submit a file for each value"),
        ("seed=1,1", "two values would share the folder"),
    ):
        assert words in refused(whetstone("submit", str(file), "--sweep", wrong, "--dry-run"))


def test_evaluation_in_parts_is_an_array_and_a_job_that_merges(whetstone, small_experiment):
    file = small_experiment(SFT + EVAL)
    made = scripts(whetstone("submit", str(file), "--eval-shards", "3", "--dry-run").stdout)
    assert list(made) == ["mix", "sft", "eval-shards", "eval", "leaderboard"]
    assert "#SBATCH --array=1-3\n" in made["eval-shards"] and "--array" not in made["eval"]
    assert 'whetstone eval "$FILE" --shard "$SLURM_ARRAY_TASK_ID/3"' in made["eval-shards"]
    sentence = refused(whetstone("submit", str(file), "--eval-shards", "3", "--sweep", "seed=1,2", "--dry-run"))
    assert "leave one of them out" in sentence
    assert "1 or more" in refused(whetstone("submit", str(file), "--eval-shards", "0", "--dry-run"))


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ("environment: {HF_TOKEN: abc}", "export it in the shell that submits"),
        ("environment: {WANDB_API_KEY: abc}", "export it in the shell that submits"),
        ("environment: {A-B: 1}", "not a variable's name"),
        ("sbatch: {nodes: 3}", "keys of launch"),
        ("sbatch: {--account: mine}", "without its dashes"),
        ("nodes: 0", "nodes"),
        ("time: soon", "time"),
    ],
)
def test_what_does_not_fit_a_script_is_refused(whetstone, small_experiment, launch, words):
    sentence = refused(whetstone("submit", str(small_experiment(f"{SFT}launch: {{{launch}}}\n")), "--dry-run"))
    assert words in sentence and "abc" not in sentence


def test_more_options_and_variables_reach_the_script(whetstone, small_experiment):
    launch = "launch: {sbatch: {account: mine, cpus-per-task: 8, exclusive: true, signal: TERM@600},"
    launch += " environment: {TOKENIZERS_PARALLELISM: 'false', NOTE: it's}}\n"
    made = scripts(whetstone("submit", str(small_experiment(SFT + launch)), "--dry-run").stdout)
    for line in ("--account=mine", "--cpus-per-task=8", "--exclusive", "--signal=TERM@600"):
        assert f"#SBATCH {line}\n" in made["sft"]
    assert "SRUN_CPUS_PER_TASK" in made["sft"] and "--signal" not in made["mix"]
    assert """export NOTE='it'"'"'s'\n""" in made["sft"]


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_a_container_runs_the_stage_with_the_run_folder_in_sight(
    whetstone, small_experiment, tmp_path, programs, runtime
):
    launch = f"launch: {{gpus_per_node: 2, container: {{image: my.sif, runtime: {runtime}, mounts: [/data]}}}}\n"
    script = scripts(whetstone("submit", str(small_experiment(SFT + launch)), "--dry-run").stdout)["sft"]
    stand_in(programs, "srun", 'printf "%s\\n" "$@" > "$LOG"')
    variables = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
    assert subprocess.run(["bash"], input=script, text=True, env=variables).returncode == 0
    words = (programs / "log").read_text().splitlines()
    run = tmp_path / "run"
    assert words[-5:] == ["python", "-m", "launch.slurm.node", "sft", str(run / "slurm" / "1" / "experiment.yaml")]
    if runtime == "apptainer":
        at = words.index("apptainer")
        assert words[at : at + 3] == ["apptainer", "exec", "--nv"] and words.index("my.sif") < words.index("python")
        assert {str(run), "/data", str(ROOT)} <= {words[i + 1] for i, word in enumerate(words) if word == "--bind"}
    else:
        assert "--container-image=my.sif" in words
        mounts = next(word for word in words if word.startswith("--container-mounts="))
        assert f"{run}:{run}" in mounts and "/data:/data" in mounts
    assert "export PATH" not in script, "inside, the image's own programs"
    assert (run / "logs" / "slurm" / "sft-7" / "latest" / "exit_code").read_text() == "0\n"


def test_a_refused_job_takes_those_before_it_out_of_the_queue(whetstone, small_experiment, programs):
    stand_in(
        programs,
        "sbatch",
        'echo "$@" >> "$LOG"; [[ "$*" == *sft* ]] && { echo no such partition >&2; exit 1; }; echo 5',
    )
    sentence = refused(whetstone("submit", str(small_experiment(SFT + EVAL)), programs=programs))
    assert "sft.sbatch: Slurm refuses the job: no such partition" in sentence
    assert (programs / "log").read_text().splitlines()[-1] == "scancel 5"


def test_without_slurm_or_with_nothing_to_do_one_sentence_says_so(whetstone, small_experiment, tmp_path):
    file = small_experiment(SFT)
    if not Path("/usr/bin/sbatch").exists():
        assert "submit from a Slurm login node" in refused(whetstone("submit", str(file)))
    assert "nothing was submitted from here" in refused(whetstone("jobs", str(tmp_path)))
    assert "nothing was submitted from here" in refused(whetstone("jobs", cwd=tmp_path))


def test_jobs_are_told_from_accounting_and_then_from_what_they_left(whetstone, small_experiment, tmp_path, programs):
    file, run = small_experiment(SFT + EVAL), tmp_path / "run"
    assert whetstone("submit", str(file), "--eval-shards", "4", programs=programs).returncode == 0
    lines = [
        "1|small-mix|COMPLETED|0:0|None",
        "2|small-sft|OUT_OF_MEMORY|0:125|None",
        "3_[1-3%2]|small-eval-shards|PENDING|0:0|Dependency",
    ]
    lines += ["3_4|small-eval-shards|CANCELLED by 7|0:0|Dependency", "4|somebody-elses|RUNNING|0:0|None"]
    stand_in(programs, "sacct", "grep ^$5 <<'END'\n" + "\n".join(lines) + "\nEND")
    told = whetstone("jobs", str(run), programs=programs).stdout
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in told.splitlines()}
    assert rows["mix"].startswith("mix 1 COMPLETED 0")
    assert rows["sft"].startswith("sft 2 OUT_OF_MEMORY signal 125"), told
    assert rows["eval-shards, 3 tasks"] == "eval-shards, 3 tasks 3_[1,2,3] PENDING Dependency"
    assert "eval-shards, 4/4" in told and "CANCELLED" in told
    assert "sft failed (signal 125): out_of_memory" in told
    assert "forgotten" in rows["eval"], "a job of that number with another name is not ours"
    assert "still in the queue" in refused(whetstone("submit", str(file), programs=programs))

    stand_in(programs, "sacct", "echo accounting is disabled; exit 1")
    (run / "mix").mkdir()
    (run / "mix" / "stage.json").write_text('{"finished": true}')
    attempt = run / "logs" / "slurm" / "sft-2" / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt.parent / "latest").symlink_to("attempt-1")
    (attempt / "exit_code").write_text("2\n")
    (attempt / "node-0.log").write_text("loading\nwhetstone: the disk is full; free some\n===\n")
    told = whetstone("jobs", str(run), programs=programs).stdout
    assert "sft failed (exit code 2): the disk is full; free some" in told, told
    assert "eval-shards, eval, leaderboard: did not run, because sft failed" in told
    mix = next(line for line in told.splitlines() if line.startswith("mix"))
    assert "COMPLETED" in mix and "forgotten" in mix


def test_a_node_runs_what_whetstone_run_would_over_all_nodes(small_experiment, monkeypatch):
    from launch.slurm.node import node_command, node_environment

    file = small_experiment(SFT + "launch: {gpus_per_node: 4, strategy: zero2}\n")
    variables = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20042"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    experiment = load_experiment(file)
    command = node_command(experiment, "sft", file, ["seed=4"])
    values = dict(zip(command, command[1:], strict=False))  # of an option given twice the last
    wanted = {"--num_processes": "8", "--num_machines": "2", "--machine_rank": "1"}
    wanted |= {"--main_process_ip": "10.0.0.1", "--main_process_port": "20042"}
    wanted |= {"--deepspeed_multinode_launcher": "standard", "--set": "seed=4"}
    assert wanted.items() <= values.items() and command[-4:-2] == ["pipelines.sft", str(file)]
    environment = node_environment(experiment, "sft")
    assert environment["WHETSTONE_NUM_PROCESSES"] == "8" and "WHETSTONE_LOCK_HELD" not in environment
    assert environment["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 4))


@pytest.mark.parametrize(
    ("said", "code", "left"), [("whetstone: preempted: saved", 0, True), ("whetstone: no", 1, False)]
)
def test_a_node_tells_a_stage_that_saved_and_left_from_one_that_failed(tmp_path, said, code, left):
    source = "import os, sys; from pathlib import Path; from launch.slurm.node import run_node;"
    source += f"sys.exit(run_node(['sh', '-c', 'echo \"{said}\" >&2; exit 1'], os.environ, Path('{tmp_path}')))"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == code and said in result.stderr
    assert (tmp_path / "preempted").exists() == left
