"""One Slurm for all tests, and a run folder's way through it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import PACKAGES, Cluster, missing_programs, wait_for

WHETSTONE = str(Path(sys.executable).parent / "whetstone")


@pytest.fixture(scope="session")
def cluster():
    """Two virtual nodes of one core each."""
    missing = missing_programs()
    if missing:
        pytest.fail(f"{', '.join(missing)} not on the PATH: have root run apt-get install {PACKAGES}")
    slurm = Cluster()
    yield slurm
    slurm.close()


class Run:
    """An experiment's run folder on the cluster."""

    def __init__(self, cluster: Cluster, file: Path, folder: Path) -> None:
        self._cluster, self.file, self.folder = cluster, file, folder

    def whetstone(self, *words: str) -> subprocess.CompletedProcess:
        """Run a command of Whetstone where Slurm is."""
        environment = {**self._cluster.environment, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(
            [WHETSTONE, *words], cwd=self.file.parent, env=environment, capture_output=True, text=True
        )

    def submit(self, *options: str) -> dict[str, str]:
        """Submit; return the job numbers by name."""
        result = self.whetstone("submit", str(self.file), "--set", f"output_dir={self.folder}", *options)
        assert result.returncode == 0, result.stderr
        return {job["name"]: job["job"] for job in json.loads((self.folder / "jobs.json").read_text())[-1]["jobs"]}

    def jobs(self) -> str:
        """Return what `whetstone jobs` says."""
        result = self.whetstone("jobs", str(self.folder))
        assert result.returncode == 0, result.stderr
        return result.stdout

    def wait(self, seconds: float = 300) -> None:
        """Wait until the queue is empty; nothing may stay in it for ever."""
        try:
            wait_for(lambda: not self._cluster.slurm("squeue", "-h").strip(), seconds, "the queue to be empty")
        except TimeoutError as error:
            pytest.fail(f"{error}:\n{self._cluster.slurm('squeue')}\n{self.jobs()}\n{self.logs()}")

    def logs(self) -> str:
        """Return the ends of all logs, for a failed test's report."""
        paths = sorted(self.folder.glob("logs/slurm/*/attempt-*/*.log")) + sorted(self.folder.glob("logs/slurm/*.out"))
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)

    def metrics(self) -> list[dict]:
        """Return the training lines so far."""
        path = self.folder / "sft" / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if "loss" in line]


@pytest.fixture
def make_run(cluster, small_experiment, tmp_path):
    """Return a function (name, sections, with the mixture of another run) -> `Run`."""

    def make(name: str, sections: str, mixture_of: Run | None = None) -> Run:
        file = small_experiment(f"engine: {{type: transformers}}\n{sections}")
        if mixture_of:
            for part in ("mix", "mixture"):
                shutil.copytree(mixture_of.folder / part, tmp_path / name / part)
        return Run(cluster, file, tmp_path / name)

    return make
