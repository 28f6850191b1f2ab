"""Checkpoints that any strategy and any number of processes can go on from.

A checkpoint holds whole tensors by the names of the bare model, however the processes that wrote it had shared them:

=======================  ===========================================================================================
``weights.safetensors``  the trained parameters (under DeepSpeed their float32 masters)
``optimizer.safetensors`` what the optimiser keeps of each of them, as ``parameter|key``
``trainer_state.json``   step, epoch, log (transformers' own)
``training.json``        scheduler, data position, the tasks' statistics and balance, losses not logged yet
``random-RANK.json``     random states of a process
``complete.json``        step, run, strategy, and every file's size and CRC (its own too); written last
=======================  ===========================================================================================

All of it is data: nothing is unpickled. It is written under a temporary name and renamed once it is on disk.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from data_recipes.progress import say
from pipelines import strategies
from pipelines.random_states import random_states, set_random_states

COMPLETE = "complete.json"
WEIGHTS, OPTIMIZER, TRAINING = "weights.safetensors", "optimizer.safetensors", "training.json"
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64"}


def newest_checkpoint(folder: Path, run: str) -> Path | None:
    """Return the newest whole checkpoint under `folder`/checkpoints, naming the damaged ones that are passed over.

    Args:
        run: what identifies the run that may go on from it.

    Raises:
        UserError: it was written by another run.
    """
    found = None
    for path in reversed(_checkpoints(folder / "checkpoints")):
        fault = fault_of(path)
        if fault is None:
            found = path
            break
        say(f"  {path.name} {fault}; going back to the one before")
    for path in (folder / "checkpoints").glob(".checkpoint-*"):
        say(f"  {path.name[1:]} was cut off while it was written; it is removed")
        shutil.rmtree(path)
    if found and (written_by := read_json(found / COMPLETE)["run"]) != run:
        raise UserError(
            f"{found}: written by another run ({written_by}, not {run}); give another output_dir or move it away"
        )
    return found


def agreed_checkpoint(folder: Path, run: str, arguments: Any) -> Path | None:
    """Return `newest_checkpoint`, which one process looks for and all go on from.

    Raises:
        UserError: as there, on every process.
    """
    found: list[Any] = [None, None]
    if arguments.process_index == 0:
        try:
            found[0] = newest_checkpoint(folder, run)
        except UserError as error:
            found[1] = str(error)
    if arguments.world_size > 1:
        dist.broadcast_object_list(found)
    if found[1]:
        raise UserError(found[1])
    return found[0]


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def step_of(checkpoint: Path | None) -> int:
    """Return the optimiser step a checkpoint was written at; 0 for none."""
    return read_json(checkpoint / COMPLETE)["step"] if checkpoint else 0


def fault_of(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None."""
    if not (checkpoint / COMPLETE).exists():
        return "was cut off while it was written"
    try:
        complete = read_json(checkpoint / COMPLETE)
    except UserError:
        complete = None
    if not isinstance(complete, dict) or complete.pop("crc32", None) != _seal(complete):
        return f"has a damaged {COMPLETE}"
    for name, expected in complete["files"].items():
        path = checkpoint / name
        if not path.exists():
            return f"lacks {name}"
        if path.stat().st_size != expected["bytes"]:
            return f"has a truncated {name} ({path.stat().st_size} of {expected['bytes']} bytes)"
        if _crc(path) != expected["crc32"]:
            return f"has a damaged {name}"
    return None


def _crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            value = zlib.crc32(block, value)
    return value


def _seal(about: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Saving:
    """A checkpoint on its way: files go to a temporary folder, `finish` renames it. One process writes."""

    def __init__(self, folder: Path, step: int) -> None:
        self._step, self.final = step, folder / f"checkpoint-{step}"
        self.folder = folder / f".checkpoint-{step}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def finish(self, **about: Any) -> None:
        """Flush every file to disk, write down sizes and checksums, and give the folder its name."""
        files = {}
        for path in sorted(self.folder.iterdir()):
            _flush(path)
            files[path.name] = {"bytes": path.stat().st_size, "crc32": _crc(path)}
        complete = {"step": self._step, **about, "files": files}
        write_json(self.folder / COMPLETE, {**complete, "crc32": _seal(complete)})
        _flush(self.folder)
        if self.final.exists():  # saved at this step before, perhaps under another strategy
            shutil.rmtree(self.final)
        os.rename(self.folder, self.final)
        _flush(self.final.parent)


def write_tensors(path: Path | None, specs: dict[str, tuple[torch.dtype, tuple[int, ...]]], tensors: Iterable) -> None:
    """Write tensors as safetensors one after another, so that only one of them is in memory.

    Args:
        path: None on processes that take part in gathering but do not write.
        specs: name -> (dtype, shape), in the order of `tensors`.
        tensors: (name, tensor) pairs.
    """
    if path is None:
        for _ in tensors:
            pass
        return
    header, place = {}, 0
    for name, (dtype, shape) in specs.items():
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, tensor), expected in zip(tensors, specs, strict=True):
            assert name == expected
            value = tensor.detach().to("cpu", specs[name][0]).contiguous()
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def save_state(trainer: Any, folder: Path | None) -> None:
    """Write weights and optimiser; every process takes part, the one with a `folder` writes."""
    parameters = strategies.trained_parameters(trainer)
    masters = strategies.is_deepspeed(trainer)
    shapes = {name: tuple(getattr(parameter, "ds_shape", parameter.shape)) for name, parameter in parameters}
    specs = {n: (torch.float32 if masters else p.dtype, shapes[n]) for n, p in parameters}
    write_tensors(folder and folder / WEIGHTS, specs, strategies.whole_weights(trainer))
    moments, steps = _moments(trainer, parameters)
    specs = {
        f"{name}|{key}": (dtype, shapes[name]) for name, _ in parameters for key, dtype in moments.get(name, {}).items()
    }
    write_tensors(folder and folder / OPTIMIZER, specs, _whole_moments(trainer, parameters, moments))
    if folder:
        write_json(folder / "optimizer.json", {"steps": steps, "optimizer": type(_bare(trainer.optimizer)).__name__})


def _bare(optimizer: Any) -> Any:
    while hasattr(optimizer, "optimizer"):  # accelerate's wrapper, then DeepSpeed's
        optimizer = optimizer.optimizer
    return optimizer


def _moments(trainer: Any, parameters: list) -> tuple[dict[str, dict[str, torch.dtype]], dict[str, float]]:
    """Return which tensors the optimiser keeps of each parameter, and its step counts."""
    state = _bare(trainer.optimizer).state
    if strategies.is_deepspeed(trainer):
        kept = next((s for s in state.values() if s), {})
        keys = {k: torch.float32 for k, v in kept.items() if torch.is_tensor(v) and v.dim()}
        steps = float(kept["step"]) if "step" in kept else 0.0
        return {name: keys for name, _ in parameters}, {name: steps for name, _ in parameters}
    moments = {
        name: {k: v.dtype for k, v in state[p].items() if torch.is_tensor(v) and v.dim()}
        for name, p in parameters
        if p in state
    }
    return moments, {name: float(state[p]["step"]) for name, p in parameters if "step" in state.get(p, {})}


def _whole_moments(trainer: Any, parameters: list, moments: dict) -> Iterator[tuple[str, torch.Tensor]]:
    if strategies.is_deepspeed(trainer):
        from deepspeed.utils import safe_get_full_optimizer_state

        for name, parameter in parameters:
            for key in moments[name]:
                yield f"{name}|{key}", safe_get_full_optimizer_state(parameter, key)
        return
    state = _bare(trainer.optimizer).state
    for name, parameter in parameters:
        for key in moments.get(name, {}):
            yield f"{name}|{key}", strategies.whole(state[parameter][key])


def load_state(trainer: Any, checkpoint: Path) -> None:
    """Set the weights and the optimiser of a wrapped trainer from a checkpoint of any strategy.

    Raises:
        UserError: the checkpoint holds other parameters, or another optimiser's state.
    """
    from safetensors import safe_open

    parameters = strategies.trained_parameters(trainer)
    with safe_open(checkpoint / WEIGHTS, "pt") as file:
        names = set(file.keys())
        wanted = {name for name, _ in parameters}
        if names != wanted:
            odd = min(names ^ wanted)
            raise UserError(f"{checkpoint}: it holds other parameters than are trained now ({odd}); mend lora or model")
        for name, parameter in parameters:
            _set_weight(trainer, parameter, file.get_tensor(name))
    kept = read_json(checkpoint / "optimizer.json")
    name_now = type(_bare(trainer.optimizer)).__name__
    if kept["optimizer"].removeprefix("DeepSpeedCPU") != name_now.removeprefix("DeepSpeedCPU"):
        raise UserError(f"{checkpoint}: written with {kept['optimizer']}, but sft.optim is {name_now} now; set it back")
    with safe_open(checkpoint / OPTIMIZER, "pt") as file:
        _set_moments(trainer, parameters, file, kept["steps"])


def _set_weight(trainer: Any, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    if strategies.is_deepspeed(trainer):
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, value.float())  # and below the copy that is computed with
        if hasattr(parameter, "ds_tensor"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                strategies.fill(parameter, value)
        else:
            strategies.fill(parameter, value)
        return
    strategies.fill(parameter, value)


def _set_moments(trainer: Any, parameters: list, file: Any, steps: dict[str, float]) -> None:
    optimizer = _bare(trainer.optimizer)
    keys: dict[str, list[str]] = {}
    for entry in file.keys():  # noqa: SIM118 - not a dict
        name, key = entry.rsplit("|", 1)
        keys.setdefault(name, []).append(key)
    if strategies.is_deepspeed(trainer):
        from deepspeed.utils import safe_set_full_optimizer_state

        _begin_deepspeed_state(trainer, optimizer, keys)
        for name, parameter in parameters:
            for key in keys.get(name, []):
                safe_set_full_optimizer_state(parameter, file.get_tensor(f"{name}|{key}").float(), key)
        for state in optimizer.state.values():
            if "step" in state and steps:
                step = next(iter(steps.values()))
                state["step"] = torch.tensor(step) if torch.is_tensor(state["step"]) else int(step)
        return
    for name, parameter in parameters:
        if name not in steps and name not in keys:
            continue
        state: dict[str, Any] = {"step": torch.tensor(steps[name])} if name in steps else {}
        for key in keys.get(name, []):
            value = file.get_tensor(f"{name}|{key}")
            state[key] = torch.zeros_like(parameter, dtype=value.dtype)
            strategies.fill(state[key], value)
        optimizer.state[parameter] = state


def _begin_deepspeed_state(trainer: Any, optimizer: Any, keys: dict[str, list[str]]) -> None:
    """Make the optimiser's state of each flat group, which DeepSpeed fills only in its first step."""
    wanted = set().union(*keys.values()) if keys else set()
    zero = trainer.optimizer.optimizer
    # ZeRO-3 hands its groups to the optimiser one at a time, and in its step alone
    flats = getattr(zero, "fp32_partitioned_groups_flat", None)
    for flat in flats or [flat for group in optimizer.param_groups for flat in group["params"]]:
        if not optimizer.state.get(flat):
            zeros = {key: torch.zeros_like(flat.data) for key in sorted(wanted)}
            optimizer.state[flat] = {"step": torch.tensor(0.0), **zeros}
    link = getattr(zero, "_lazy_init_hp_params_optimizer_state", None)
    if link:  # ZeRO-1 and -2 find a parameter's state through these
        link()


class PortableCheckpoints:
    """Makes a transformers Trainer write and read the checkpoints of this module; comes before it among the bases.

    The class that mixes it in sets `run_id` before training, and may override `own_state` and `set_own_state`.
    """

    run_id: str

    def own_state(self) -> dict[str, Any]:
        """Return what else a checkpoint holds, as JSON; the same on every process."""
        return {}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Go on from `own_state`."""

    def sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Return a CPU tensor summed over processes, on each of them."""
        if self.accelerator.num_processes == 1:
            return values.clone()
        device = self.accelerator.device
        summed = values.to(device, torch.float32 if device.type == "mps" else values.dtype)
        dist.all_reduce(summed)
        return summed.to("cpu", values.dtype)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint of this step: every process gathers, the first one writes."""
        self.store_flos()
        saving = None
        if self.is_world_process_zero():
            saving = Saving(Path(self.args.output_dir), self.state.global_step)
        try:
            self._write_checkpoint(saving)
        except BaseException:
            if saving:  # the disk is full, say: what was begun takes no more of it
                shutil.rmtree(saving.folder, ignore_errors=True)
            raise

    def _write_checkpoint(self, saving: Saving | None) -> None:
        self.accelerator.wait_for_everyone()
        save_state(self, saving.folder if saving else None)
        folder = Path(self.args.output_dir) / f".checkpoint-{self.state.global_step}"
        write_json(folder / f"random-{self.args.process_index}.json", random_states())
        training = {
            "scheduler": _plain(self.lr_scheduler.state_dict()),
            "learning_rates": [group["lr"] for group in _bare(self.optimizer).param_groups],
            "loss_not_logged": self.sum_over_processes(self._tr_loss.detach().cpu()).item(),
            "loss_logged": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "own": self.own_state(),
        }
        self.accelerator.wait_for_everyone()
        if not saving:
            self.accelerator.wait_for_everyone()
            return
        write_json(folder / TRAINING, training)
        self.state.save_to_json(str(folder / "trainer_state.json"))
        saving.finish(
            run=self.run_id, strategy=strategies.running_strategy(self), world_size=self.accelerator.num_processes
        )
        self._rotate(saving.final)
        self.accelerator.wait_for_everyone()

    def _rotate(self, newest: Path) -> None:
        """Remove old checkpoints, only now that a newer one is on disk; never the best."""
        limit = self.args.save_total_limit
        if not limit:
            return
        keep = {newest.name, f"checkpoint-{self.state.best_global_step}"}
        # one of a later step is damaged: it was passed over
        earlier = [path for path in _checkpoints(newest.parent) if _step(path) <= _step(newest)]
        others = [path for path in earlier if path.name not in keep]
        for path in others[: max(0, len(others) - max(0, limit - (len(earlier) - len(others))))]:
            (path / COMPLETE).unlink(missing_ok=True)  # so that a kill on the way leaves no half that looks whole
            shutil.rmtree(path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: everything is loaded once the model is wrapped."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint:
            self.args.eval_on_start = False  # the run was measured before its first step
            checkpoint = Path(resume_from_checkpoint)
            load_state(self, checkpoint)
            training = read_json(checkpoint / TRAINING)
            # rates by parameter group stay this strategy's own: another one may have grouped them otherwise
            by_group = ("base_lrs", "_last_lr")
            kept = {key: value for key, value in training["scheduler"].items() if key not in by_group}
            self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **kept})
            rates = training["learning_rates"]
            groups = _bare(self.optimizer).param_groups
            for number, group in enumerate(groups):
                group["lr"] = rates[number] if len(rates) == len(groups) else rates[0]
            self.lr_scheduler._last_lr = [group["lr"] for group in groups]
            self.set_own_state(training["own"])
        return prepared

    def restore_unlogged(self, checkpoint: Path) -> None:
        """Go on with the losses that were summed but not logged when the checkpoint was written."""
        training = read_json(checkpoint / TRAINING)
        self._tr_loss += training["loss_not_logged"] / self.accelerator.num_processes
        self._total_loss_scalar, self._globalstep_last_logged = training["loss_logged"], training["last_logged"]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint) / f"random-{self.args.process_index}.json"
        if path.exists():  # more processes than wrote it: the others keep their seed's
            set_random_states(read_json(path))


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a scheduler's state that are data."""
    kept = {}
    for key, value in state.items():
        try:
            json.dumps(value)
        except TypeError:
            continue
        if key != "lr_lambdas":
            kept[key] = value
    return kept
