"""What every section of the experiment file is, a model in one, and where stages run."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SBATCH_OURS = {
    *("array", "chdir", "dependency", "error", "export", "gpus-per-node", "job-name", "kill-on-invalid-dep", "nodes"),
    *("ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "requeue", "no-requeue", "time"),
}
SBATCH_MEND = "nodes, gpus_per_node, partition and time are keys of launch"
Strategy = Literal["ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2"]


class Section(BaseModel):
    """A part of the file: unknown keys are refused and every field's docstring is its documentation."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ModelSection(Section):
    """A checkpoint or adapter beside the others, asked by one engine where the architecture is the same."""

    model: str | None = None
    """A hub id or a folder; absent: the experiment's model."""
    adapter: str | None = None
    """Folder of a LoRA adapter (PEFT) on top of the model."""


class ContainerSection(Section):
    """An image in which the stages of a Slurm job run; Whetstone is installed in it."""

    image: str = Field(min_length=1)
    """What the runtime calls the image: a .sif file, or an address such as docker://owner/name:tag."""
    runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """apptainer exec, or srun --container-image where the cluster has Pyxis."""
    mounts: list[str] = []
    """More folders to see inside, as FOLDER or OUTSIDE:INSIDE; the run folder and the present one are always seen."""


class LaunchSection(Section):
    """Where the training stages run."""

    num_processes: int = Field(1, ge=1)
    """Processes of a training stage on this machine; more than one goes through accelerate launch."""
    strategy: Strategy = "ddp"
    """How several processes share the work: whole copies (ddp), DeepSpeed's ZeRO stages, in CPU memory where that is
    said, or PyTorch's FSDP2. The files are in launch/accelerate/."""
    partition: str | None = None
    """Slurm partition (for whetstone submit)."""
    nodes: int = Field(1, ge=1)
    """Slurm nodes of a training stage; the other stages take one."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs of a Slurm node to train on, a process each; 0: CPU only, num_processes on each node."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,3}(:\d{2}){0,2}$")] = "04:00:00"
    """Slurm time limit of a job, as [days-]hours:minutes:seconds; training that reaches it goes on in a new attempt."""
    sbatch: dict[str, str | int | bool] = {}
    """More options of sbatch, such as ``{account: mine, cpus-per-task: 16, mem: 64G}``; true: one without a value."""
    environment: dict[str, str | int | float] = {}
    """Variables to set in Slurm jobs, such as NCCL_SOCKET_IFNAME; secrets are exported in the shell that submits."""
    container: ContainerSection | None = None
    """Run the stages of Slurm jobs in a container; absent: in the environment that submits."""

    @model_validator(mode="after")
    def _fits_a_script(self) -> "LaunchSection":
        for name, value in self.sbatch.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise ValueError(f"sbatch.{name}: write the option's long name without its dashes, as cpus-per-task")
            if name in SBATCH_OURS:
                raise ValueError(f"sbatch.{name}: whetstone submit gives this option itself; remove it ({SBATCH_MEND})")
            if "\n" in str(value):
                raise ValueError(f"sbatch.{name}: the value has several lines; an option has one")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"environment.{name}: not a variable's name; use letters, digits and underscores")
            if re.search(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(KEY|AUTH)($|_)", name.upper().replace("TOKENIZERS", "")):
                raise ValueError(
                    f"environment.{name}: a secret is not written into scripts; export it in the shell that submits"
                    " and Slurm passes it on"
                )
        return self
