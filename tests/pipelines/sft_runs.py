"""The SFT stage as its documentation starts it, and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(file: Path, *options: str, processes: int = 1, background: bool = False, strategy: str = "cpu"):
    """Start the SFT stage the way its documentation says, on one process or under accelerate."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if processes > 1 else "2"}
    command = [sys.executable, "-m", "pipelines.sft", str(file), *options]
    if processes > 1:
        config = ["--config_file", f"launch/accelerate/{strategy}.yaml", "--num_processes", str(processes)]
        command = [sys.executable, "-m", "accelerate.commands.launch", *config, *command[1:]]
    if background:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "sft" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]
