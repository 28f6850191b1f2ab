"""A Slurm of two virtual nodes on this machine, from nothing and to nothing: munge, slurmctld and two slurmd."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.processes import die_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
PACKAGES = "slurm-wlm munge"
NODES = ("n1", "n2")
CONFIG = """
ClusterName=whetstone
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName={nodes} NodeAddr=127.0.0.1 NodeHostname={host} Port=[{ports[1]}-{ports[2]}] CPUs=1 RealMemory=1000 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=90 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm and munge that are not on the PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class Cluster:
    """Starts the daemons in a folder of their own; `close` stops them and removes it.

    Jobs are submitted as whoever runs this, with `environment`. The partition `low` is preempted by `high` with 90 s of
    grace, and a requeued job may start again after some seconds (on most clusters: two minutes).
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="whetstone-slurm-"))
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        self.environment = {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self._processes: list[subprocess.Popen] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.folder.chmod(0o755)  # munge wants its socket where everybody can reach it
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self._run("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge)
        wait_for(lambda: (self.folder / "munge.socket").exists(), 20, "munged to start")
        first = _free_ports(len(NODES))
        config = CONFIG.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            nodes=f"n[1-{len(NODES)}]",
            ports=[_free_ports(1), first, first + len(NODES) - 1],
        )
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")  # no GPU, but two
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self._start_slurm()

    def _start_slurm(self) -> None:
        self._run("slurmctld", "-D", "-c")
        for node in NODES:
            (self.folder / node).mkdir(exist_ok=True)
            self._run("slurmd", "-D", "-N", node)
        wait_for(lambda: self.slurm("sinfo", "-h", "-t", "idle", "-o", "%D").split()[:1] == ["2"], 60, "idle nodes")

    def _run(self, *command: str) -> subprocess.Popen:
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._processes.append(process)
        return process

    def slurm(self, *command: str) -> str:
        """Run one of Slurm's programs and return what it prints ('' where it refuses)."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return result.stdout if result.returncode == 0 else ""

    def job(self, job: str) -> dict[str, str]:
        """Return Slurm's fields of a job, such as JobState; empty where Slurm does not know it."""
        line = (self.slurm("scontrol", "--oneliner", "show", "job", job).splitlines() or [""])[0]
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def forget_jobs(self) -> None:
        """Start Slurm anew without its memory; it counts its jobs from 1 again."""
        while len(self._processes) > 1:  # munged stays
            _stop(self._processes.pop())
        self._start_slurm()

    def close(self) -> None:
        """Cancel what runs, stop the daemons, remove the folder."""
        if (self.folder / "slurm.conf").exists() and self._processes:
            self.slurm("scancel", "--full", "-u", getpass.getuser())
            deadline = time.monotonic() + 20
            while self.slurm("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.5)
        for process in reversed(self._processes):  # munged last
            _stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> int:
    """Return the first of `count` neighbouring ports that nothing listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true value of `condition`.

    Raises:
        TimeoutError: there was none within `seconds`; `what` says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.5)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")
