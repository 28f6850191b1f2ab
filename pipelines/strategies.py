"""How several processes share a training stage: what was asked for, what really runs, and whole tensors from either.

A launcher may quietly start something else than it was asked for (Accelerate 1.15 runs DDP for FSDP2 on CPUs), so the
strategy is read off the objects that train, compared with the one asked for, and written into the run folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json

RECORD = "strategy.json"


def asked_strategy() -> str:
    """Return the strategy that the launcher's environment asks for: that of launch/accelerate/*.yaml, or ``single``."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not _says("ACCELERATE_USE_DEEPSPEED"):
        return "single"
    if _says("ACCELERATE_USE_DEEPSPEED"):
        return _deepspeed_strategy(read_json(Path(os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"])))
    if _says("ACCELERATE_USE_FSDP") or os.environ.get("WHETSTONE_STRATEGY") == "fsdp2":
        return "fsdp2"
    return "ddp"


def _says(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def _deepspeed_strategy(config: dict[str, Any]) -> str:
    zero = config.get("zero_optimization", {})
    devices = [zero.get(f"offload_{part}", {}).get("device", "none") for part in ("optimizer", "param")]
    return f"zero{zero.get('stage', 0)}" + ("_offload" if any(device != "none" for device in devices) else "")


def running_strategy(trainer: Any) -> str:
    """Return the strategy of a trainer whose model is wrapped, read off the wrapper."""
    model = trainer.model_wrapped
    if hasattr(model, "zero_optimization_stage"):
        return _deepspeed_strategy(model.config)
    if any(is_sharded(parameter) for parameter in model.parameters()):
        return "fsdp2"
    return "ddp" if isinstance(model, nn.parallel.DistributedDataParallel) else "single"


def check_strategy(trainer: Any, folder: Path) -> str:
    """Compare what runs with what was asked for, write it to `folder`, and return it.

    Raises:
        UserError: the launcher runs something else.
    """
    asked, runs = asked_strategy(), running_strategy(trainer)
    world_size = trainer.accelerator.num_processes
    if trainer.is_world_process_zero():
        backend = dist.get_backend() if dist.is_initialized() else None
        record = {"asked": asked, "runs": runs, "world_size": world_size, "backend": backend}
        write_json(folder / RECORD, {**record, "device": trainer.args.device.type})
    if asked != runs:
        raise UserError(
            f"launch.strategy: {asked} was asked for but {runs} would run on {world_size} processes; choose a strategy"
            " that this machine can run"
        )
    return runs


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one of FSDP2's, of which each process holds a part."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor on every process."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Set a tensor, or this process's part of it, to a whole value."""
    if is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(tensor.device, tensor.dtype), tensor.device_mesh, tensor.placements)
    with torch.no_grad():
        tensor.copy_(value.to(tensor.dtype))


def is_deepspeed(trainer: Any) -> bool:
    """Return whether DeepSpeed wraps the trainer's model."""
    return hasattr(trainer.model_wrapped, "zero_optimization_stage")


def trained_parameters(trainer: Any) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are trained, by the names of the bare model, in one order everywhere."""
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def whole_weights(trainer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every trained parameter whole, one after another; every process has to take part.

    Under DeepSpeed these are the float32 masters.
    """
    if is_deepspeed(trainer):
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in trained_parameters(trainer):
            yield name, safe_get_full_fp32_param(parameter).detach()
        return
    for name, parameter in trained_parameters(trainer):
        yield name, whole(parameter.detach())


def shard_on_cpu(model: nn.Module) -> None:
    """Shard a model by FSDP2 over the CPU's processes, a group a layer: Accelerate does it on GPUs alone."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, default=[])
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
