"""`python -m tests.benchmarks.memory [CASE ...]`: the plan's memory against the peaks of real training.

SmolLM2-135M on the tests' small recipe, float32 on CPU processes, three steps: each process's peak resident memory
(VmHWM, sampled until it ends) beside what `whetstone plan` says before. A case is a strategy, with ``-lora`` at its end
for adapters and ``-checkpointing`` for gradient checkpointing.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launch.run import stage_command, stage_environment
from pipelines.experiment import Experiment, load_experiment
from pipelines.mix import mix
from tests.conftest import MODEL, SMALL_RECIPE

ROOT = Path(__file__).parents[2]
CASES = (
    *("single", "single-lora", "single-checkpointing", "ddp", "ddp-lora"),
    *("zero1", "zero2", "zero2-lora", "zero3", "zero3-lora", "fsdp2"),
)
SFT = "dtype: float32, max_steps: 3, logging_steps: 1, save_strategy: 'no', max_length: 256"
PLAN = """
import sys
from pathlib import Path
from pipelines.experiment import load_experiment
from pipelines.memory_plan import plan_sft
phase, size = plan_sft(load_experiment(Path(sys.argv[1]))).peak
print("plan", size, phase)
"""


def experiment_of(case: str, folder: Path) -> Path:
    """Write the experiment of a case and build its mixture; return its file."""
    strategy, *options = case.split("-")
    processes = 1 if strategy == "single" else 2
    lora = "lora: {r: 8}, " if "lora" in options else ""
    more = f"gradient_checkpointing: {'checkpointing' in options}, per_device_train_batch_size: {8 // processes}"
    (folder / "recipe.yaml").write_text(SMALL_RECIPE)
    file = folder / f"{case}.yaml"
    file.write_text(
        f"name: memory\nmodel: {MODEL}\nrecipe: recipe.yaml\noutput_dir: {folder / case}\n"
        f"sft: {{{lora}{SFT}, {more}}}\n"
        f"launch: {{num_processes: {processes}, strategy: {'ddp' if processes == 1 else strategy}}}\n"
    )
    mix(load_experiment(file, check_trl=False))
    return file


def planned(file: Path) -> tuple[int, str]:
    """Return the plan's peak in bytes and its phase, from a process of its own."""
    output = subprocess.run([sys.executable, "-c", PLAN, str(file)], capture_output=True, text=True, cwd=ROOT)
    lines = [line.split(" ", 2) for line in output.stdout.splitlines() if line.startswith("plan ")]
    if not lines:
        raise SystemExit(output.stderr[-2000:])
    return int(lines[0][1]), lines[0][2]


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(word) for thread in threads for word in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *[found for child in children for found in descendants(child)]]


def high_water(pid: int) -> int:
    """Return VmHWM of a training process in bytes; 0 for the launcher and what else there is."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if "accelerate.commands" in command or not ("pipelines.sft" in command or "launch.stage" in command):
            return 0
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measured(experiment: Experiment, file: Path) -> dict[int, int]:
    """Run the stage and return the peak of each of its training processes, by process id."""
    environment = {**os.environ, **stage_environment(experiment, "sft"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            stage_command(experiment, "sft", file), cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for pid in descendants(process.pid):
                if size := high_water(pid):
                    peaks[pid] = max(size, peaks.get(pid, 0))
            time.sleep(0.05)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"the stage failed:\n{log.read().decode(errors='replace')[-3000:]}")
    return peaks


def main() -> None:
    """Print plan, peak and their ratio for every case."""
    print(f"{'case':24} {'planned GB':>10} {'measured GB':>11} {'ratio':>6}  at", flush=True)
    for case in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            file = experiment_of(case, Path(folder))
            size, phase = planned(file)
            peak = max(measured(load_experiment(file), file).values())
        print(f"{case:24} {size / 1e9:10.2f} {peak / 1e9:11.2f} {size / peak:6.2f}  {phase}", flush=True)


if __name__ == "__main__":
    main()
