"""What a training stage will take, before anything starts: parameters, memory by part and phase, tokens and steps.

Shapes and allocations come from a step on fake tensors (`memory_trace`); what a strategy makes of them is in
`memory_phases`. Memory is that of the process that needs most.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data_recipes.errors import UserError
from data_recipes.files import read_json
from data_recipes.store import MANIFEST, Mixture
from eval.hardware import concrete_dtype
from eval.models import resolve_model
from pipelines.experiment import Experiment, SFTSection
from pipelines.memory_phases import Phase, Setup, phases, total
from pipelines.memory_trace import HEAP_BLOCK, ModelShape, Tensors, shape_of, shaped_model, trace_step


@dataclass(frozen=True)
class RunLength:
    """What a run reads."""

    steps: int
    rows: int
    tokens: int
    trained_tokens: int
    micro_batch: tuple[int, int]
    """Rows and padded length of the largest micro-batch."""


@dataclass(frozen=True)
class MemoryPlan:
    """What `whetstone plan` prints."""

    shape: ModelShape
    setup: Setup
    dtype: str
    micro_batch: tuple[int, int]
    accumulation: int
    phases: dict[str, Phase]
    run: RunLength | None
    """None where the mixture is not built yet."""

    @property
    def peak(self) -> tuple[str, int]:
        """The phase that takes most, and its bytes."""
        return max(((name, total(phase, self.setup)) for name, phase in self.phases.items()), key=lambda one: one[1])


def run_length(mixture: Mixture, order: Any, arguments: Any) -> RunLength:
    """Count what a run of `order` reads.

    Args:
        order: of `pipelines.sft.plan`.
        arguments: its batch sizes and max_length.
    """
    size = arguments.per_device_train_batch_size
    batch = size * arguments.gradient_accumulation_steps * arguments.world_size
    lengths = np.minimum(mixture.lengths, arguments.max_length or mixture.lengths.max())
    trained = np.maximum(lengths - np.minimum(mixture.targets, lengths), 0)
    sequences = getattr(order, "sequences", None)
    if sequences is not None:
        rows = np.concatenate(sequences)
        of_item = np.array([min(int(mixture.lengths[members].sum()), arguments.max_length) for members in sequences])
    else:
        rows = np.fromiter(order, np.int64, len(order))
        of_item = lengths[rows]
    longest = of_item[: len(of_item) // size * size].reshape(-1, size).max(axis=1)
    return RunLength(
        steps=len(of_item) // batch,
        rows=len(rows),
        tokens=int(of_item.sum()),
        trained_tokens=int(trained[rows].sum()),
        micro_batch=(size, int(longest.max())),
    )


def plan_sft(experiment: Experiment, process_bytes: int | None = None) -> MemoryPlan:
    """Return the plan of the experiment's SFT stage. Nothing is written or started.

    Args:
        process_bytes: memory of a process before it has a model; absent: that of this one, once it has the libraries.

    Raises:
        UserError: there is no sft section, the mixture is damaged, or the model's config cannot be read.
    """
    import torch

    section = experiment.sft
    if section is None:
        raise UserError(f"{experiment.name}: the file has no sft section to plan; add one")
    launch = experiment.launch
    world_size = launch.nodes * (launch.gpus_per_node or launch.num_processes)
    device = "cuda" if torch.cuda.is_available() or launch.gpus_per_node else "cpu"
    strategy = launch.strategy if world_size > 1 else "single"
    zero = zero_settings(strategy) if strategy.startswith("zero") else {}
    arguments = _arguments(experiment, section, world_size)
    model = resolve_model(experiment.model)
    run = _run_of(experiment, section, arguments)
    if process_bytes is None:
        process_bytes = measured_process(model) if device == "cpu" else 0
    dtype = concrete_dtype(section.dtype)
    cast = bool(zero) and dtype != "float32"  # DeepSpeed casts adapters, too
    with shaped_model(model, section, dtype, whole_in_dtype=cast) as shaped:
        shape = shape_of(shaped)
        config = shaped.config.get_text_config()
        longest = arguments.max_length or config.max_position_embeddings
        micro_batch = run.micro_batch if run else (arguments.per_device_train_batch_size, longest)
        reenters = zero.get("stage") == 3 and section.lora is not None
        trace = trace_step(shaped, *micro_batch, arguments, device, reenters)
        small = [p for p in shaped.parameters() if p.numel() * p.element_size() < HEAP_BLOCK]
        heap = Tensors.of(small).bytes, Tensors.of(p for p in small if p.requires_grad).bytes
    setup = Setup(
        strategy=strategy,
        world_size=world_size,
        device=device,
        narrow=dtype != "float32",
        accumulates=arguments.gradient_accumulation_steps > 1,
        optim=str(getattr(arguments.optim, "value", arguments.optim)),
        zero=zero,
        hidden_size=config.hidden_size,
        process_bytes=process_bytes,
        file_bytes=_checkpoint_bytes(model),
        heap_weights=heap[0],
        heap_trainable=heap[1],
        quantized=section.quantization == "4bit",
    )
    found = phases(shape, trace, setup)
    return MemoryPlan(shape, setup, dtype, micro_batch, arguments.gradient_accumulation_steps, found, run)


def zero_settings(strategy: str) -> dict[str, Any]:
    """Return ``zero_optimization`` of launch/deepspeed/STRATEGY.json.

    Raises:
        UserError: there is no such file.
    """
    path = Path(__file__).parent.parent / "launch" / "deepspeed" / f"{strategy}.json"
    if not path.exists():
        raise UserError(f"launch.strategy: {strategy} has no settings ({path.name} is missing); choose another")
    return read_json(path)["zero_optimization"]


def _arguments(experiment: Experiment, section: SFTSection, world_size: int) -> Any:
    from trl import SFTConfig

    from pipelines.training import batch_arguments, trl_arguments

    batch = batch_arguments(section, world_size)
    config = SFTConfig(**trl_arguments(section, experiment.run_dir / "sft", experiment.seed, **batch))
    names = (
        "per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps max_length logging_steps"
        " save_steps gradient_checkpointing gradient_checkpointing_kwargs bf16 fp16 optim"
    )
    return SimpleNamespace(**{name: getattr(config, name) for name in names.split()}, world_size=world_size)


def _run_of(experiment: Experiment, section: SFTSection, arguments: Any) -> RunLength | None:
    from pipelines.record import read_record
    from pipelines.sft import plan

    if read_record(experiment, "mix") is None and not (experiment.run_dir / "mixture" / MANIFEST).exists():
        return None
    mixture = Mixture(experiment.run_dir / "mixture")
    _, order = plan(mixture, arguments, experiment.seed, section.packing)
    return run_length(mixture, order, arguments)


def _checkpoint_bytes(model: str) -> int:
    return sum(path.stat().st_size for path in Path(model).glob("*.safetensors")) if Path(model).is_dir() else 0


def measured_process(model: str) -> int:
    """Return the resident bytes of this process once it has done what any training process does first: loaded the
    libraries and the tokenizer, and made a step with a tiny model, so that the kernels' code is in memory."""
    import datasets  # noqa: F401
    import torch
    from transformers import AutoTokenizer

    import pipelines.sft  # noqa: F401

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer("a text")
    layer = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(2, 64)).square().sum().backward()
    optimizer.step()
    return int(_status("VmRSS"))


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def memory_there_is(device: str, processes: int) -> int | None:
    """Return the bytes that each of `processes` on this machine may take, or None where that is not known.

    A GPU's free memory is read from a process that already holds a context on it, which training will need as well.
    """
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return (free + _status("VmRSS")) // processes  # this process will be gone
