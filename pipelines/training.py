"""What SFT and GRPO share: arguments, checkpoints that are known to be whole, metrics, progress, the final model."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, folder_written_atomically, keep_lines, read_json, write_json
from data_recipes.progress import Bar, say
from eval.hardware import concrete_dtype
from pipelines.experiment import LoraSection, TrainingSection

COMPLETE = "complete.json"


def trl_arguments(section: TrainingSection, folder: Path, seed: int, **ours: Any) -> dict[str, Any]:
    """Return the arguments of a TRL config: our defaults, the file's own keys over them, what only we decide on top."""
    import torch

    on_gpu = torch.cuda.is_available()
    defaults = {
        "report_to": "none",
        "logging_steps": 5,
        "save_strategy": "steps",
        "save_steps": 25,
        "save_total_limit": 2,
        "bf16": concrete_dtype(section.dtype) == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5,
        "weight_decay": 0.0,
    }
    return {**defaults, **section.trl, "output_dir": str(folder / "checkpoints"), "seed": seed, **ours}


def settle_launch(arguments: TrainingArguments) -> None:
    """Notice where a launcher quietly started another number of processes than was asked for; name the CPU plainly.

    Raises:
        UserError: it did.
    """
    import torch

    if arguments.device.type == "cpu":
        # a rank's CPU is called cpu:0, and transformers hands that to torch.load, which knows only cpu, on resuming
        arguments.__dict__["_setup_devices"] = torch.device("cpu")
    world_size = arguments.world_size
    asked = int(os.environ.get("WHETSTONE_NUM_PROCESSES", world_size))
    if world_size != asked:
        raise UserError(
            f"launch.num_processes: {asked} were asked for but the launcher started {world_size}; look at the files in"
            " launch/accelerate/ or start the stage with accelerate launch yourself"
        )


def peft_config(lora: LoraSection | None) -> Any:
    """Return PEFT's config for the section, or None for full fine-tuning."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **lora.model_dump())


def load_for_training(model: str, section: TrainingSection) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load weights in the section's dtype, and the tokenizer with a padding token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(model, dtype=concrete_dtype(section.dtype)), tokenizer


def newest_checkpoint(folder: Path, tidy: bool) -> Path | None:
    """Return the newest whole checkpoint under `folder`/checkpoints.

    Args:
        tidy: name and remove half-written ones; one process does.
    """
    checkpoints = sorted((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while checkpoints:
        newest = checkpoints.pop()
        if (newest / COMPLETE).exists():
            return newest
        if tidy:
            say(f"  {newest.name} was cut off while it was written; going back to the one before")
            shutil.rmtree(newest)
    return None


def forget_after(folder: Path, step: int) -> None:
    """Drop the log lines of steps after `step`: they will be made again."""
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        keep_lines(folder / name, lambda row: row["step"] <= step)


def step_of(checkpoint: Path | None) -> int:
    """Return the optimiser step a checkpoint was written at; 0 for none."""
    return read_json(checkpoint / COMPLETE)["step"] if checkpoint else 0


class RunFolder(TrainerCallback):
    """Writes metrics.jsonl, shows progress, and marks a checkpoint whole once everything in it is on disk."""

    def __init__(self, folder: Path, stage: str, resumed_step: int) -> None:
        self._folder, self._stage, self._resumed = folder, stage, resumed_step

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        """Open the metrics log and the progress bar."""
        if state.is_world_process_zero:
            self._log = JsonlLog(self._folder / "metrics.jsonl")
            self._bar = Bar(self._stage, state.max_steps, self._resumed).__enter__()
            self._note = ""
            self._start = time.monotonic()

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append one line of metrics."""
        if state.is_world_process_zero and logs:
            seconds = round(time.monotonic() - self._start, 1)
            self._log.append({"step": state.global_step, "seconds": seconds, **logs})
            shown = {"loss": "loss", "reward": "reward"}
            self._note = ", ".join(
                f"{name} {logs[key]:.3f}" for key, name in shown.items() if logs.get(key) is not None
            )

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        """Advance the bar."""
        if state.is_world_process_zero:
            self._bar.advance(self._note)

    def on_save(self, args, state, control, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / COMPLETE, {"step": state.global_step})

    def on_train_end(self, args, state, control, **kwargs: Any) -> None:
        """Close both."""
        if state.is_world_process_zero:
            self._bar.__exit__()
            self._log.close()


def save_final(trainer: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, base: str) -> None:
    """Write `folder`/adapter (where there is one) and `folder`/model: the merged weights that any engine loads."""
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = base
        with folder_written_atomically(folder / "adapter") as temporary:
            model.save_pretrained(temporary)
        model = model.merge_and_unload()
    with folder_written_atomically(folder / "model") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
