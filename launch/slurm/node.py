"""`python -m launch.slurm.node STAGE FILE`: a node's share of a training stage, as srun starts it on every node.

The batch script gives the rendezvous (MASTER_ADDR, MASTER_PORT) and a folder for this attempt (WHETSTONE_ATTEMPT),
Slurm the number of nodes and this one's. The rest, the command and its environment, is what `whetstone run` would use.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_recipes.progress import say
from eval.processes import die_with_parent
from launch.run import stage_command, stage_environment
from pipelines.alone import guarded
from pipelines.experiment import Experiment, load_experiment
from pipelines.record import LOCK_HELD

SAVED_AND_LEFT = "whetstone: preempted: "
"""How the line begins in which a training stage says that SIGTERM made it save a checkpoint and leave."""


def node_command(experiment: Experiment, stage: str, file: Path, overrides: Sequence[str]) -> list[str]:
    """Return the command of this node: that of `whetstone run`, over all of the job's nodes."""
    launch = experiment.launch
    nodes = int(os.environ["SLURM_NNODES"])
    launch.num_processes = nodes * (launch.gpus_per_node or launch.num_processes)
    command = stage_command(experiment, stage, file)
    if nodes > 1:
        options = ["--num_machines", str(nodes), "--machine_rank", os.environ["SLURM_NODEID"]]
        options += ["--main_process_ip", os.environ["MASTER_ADDR"], "--main_process_port", os.environ["MASTER_PORT"]]
        if "--deepspeed_config_file" in command:
            options += ["--deepspeed_multinode_launcher", "standard"]  # else it would log in to the nodes by ssh
        at = command.index(f"pipelines.{stage}") - 1
        command[at:at] = options  # of an option given twice the last counts
    return [*command, *(word for override in overrides for word in ("--set", override))]


def node_environment(experiment: Experiment, stage: str) -> dict[str, str]:
    """Return the environment of `node_command`'s command."""
    per_node = experiment.launch.num_processes // int(os.environ["SLURM_NNODES"])
    threads = max(1, len(os.sched_getaffinity(0)) // per_node)
    environment = stage_environment(experiment, stage)
    # of the cores that Slurm gave, not of those the machine has
    environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    environment.pop(LOCK_HELD, None)  # the stage's first process holds the run folder itself
    return environment


def run_node(command: Sequence[str], environment: Mapping[str, str], attempt: Path) -> int:
    """Run a node's command and return its exit code; where it saved and left, 0, and the file ``preempted``.

    The launcher of several processes has an exit code of its own, so what the stage says decides. With another code
    than 0 srun would end the processes of the other nodes, which may still be saving.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited, until a trainer takes it
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    assert process.stderr is not None
    preempted = False
    for line in process.stderr:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        preempted = preempted or line.startswith(SAVED_AND_LEFT.encode())
    code = process.wait()
    if code and preempted:
        (attempt / "preempted").touch()
        return 0
    return code if code >= 0 else 128 - code


def main() -> None:
    """Run this node's share of the stage."""
    parser = argparse.ArgumentParser(prog="python -m launch.slurm.node", description="A node's share of a stage.")
    parser.add_argument("stage")
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    def run() -> None:
        experiment = load_experiment(arguments.file, arguments.overrides)
        command = node_command(experiment, arguments.stage, arguments.file, arguments.overrides)
        say(shlex.join(command))
        environment = node_environment(experiment, arguments.stage)
        raise SystemExit(run_node(command, environment, Path(os.environ["WHETSTONE_ATTEMPT"])))

    guarded(run)


if __name__ == "__main__":
    main()
