"""What the training stages share: arguments, metrics, progress, the run itself and the final model."""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, folder_written_atomically, keep_lines
from data_recipes.progress import Bar, say
from eval.hardware import concrete_dtype
from pipelines.alone import Preempted
from pipelines.checkpoints import WEIGHTS, fault_of, step_of
from pipelines.experiment import LoraSection, SFTSection, TrainingSection
from pipelines.preemption import SaveOnSigterm
from pipelines.strategies import check_strategy, whole_weights
from pipelines.trackers import check_trackers, keep_tensorboard_in
from pipelines.training_page import PageWriter

Load = Callable[..., PreTrainedModel]
"""From a folder or hub id, a dtype and more arguments of from_pretrained to a model with the head that is trained."""
GENERATED = "generated"
"""Folder of the answers that weights in training gave, a folder ``step-N`` each; see `pipelines.generation`."""
GENERATED_SCORES = f"eval_{GENERATED}/"
"""What the names of their scores begin with in the metrics."""


def trl_arguments(section: TrainingSection, folder: Path, seed: int, **ours: Any) -> dict[str, Any]:
    """Return the arguments of a TRL config: our defaults, the file's own keys over them, what only we decide on top.

    Args:
        folder: of the stage, ``RUN/sft`` say.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    defaults = {
        "report_to": "none",
        "run_name": f"{folder.parent.name}-{folder.name}",
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


def batch_arguments(section: SFTSection, processes: int) -> dict[str, int]:
    """Return per_device_train_batch_size and gradient_accumulation_steps that make up the section's batch_size.

    Raises:
        UserError: the batch cannot be shared evenly, or the file says both.
    """
    total = section.batch_size
    if total is None:
        return {}
    if "gradient_accumulation_steps" in section.trl:
        raise UserError("sft.gradient_accumulation_steps follows from batch_size; leave one of them out")
    if total % processes:
        raise UserError(f"sft.batch_size: {total} cannot be shared by {processes} processes; choose a multiple of them")
    share = total // processes
    per_device = math.gcd(share, share if (most := section.trl.get("per_device_train_batch_size")) is None else most)
    return {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": share // per_device}


def settle_launch(arguments: TrainingArguments) -> None:
    """Notice where a launcher quietly started another number of processes than was asked for, and trackers that
    cannot be used; name the CPU plainly.

    Raises:
        UserError: it did, or there is one.
    """
    import torch

    check_trackers(arguments.report_to, Path(arguments.output_dir).parent)

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


def peft_config(lora: LoraSection | None, task_type: str = "CAUSAL_LM") -> Any:
    """Return PEFT's config for the section, or None for full fine-tuning.

    Args:
        task_type: PEFT's; under SEQ_CLS the head is trained whole beside the adapters.
    """
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": task_type, **lora.model_dump()})


def causal_model(model: str, dtype: str, **more: Any) -> PreTrainedModel:
    """Load a language model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **more)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer and see to it that it has a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_for_training(model: str, section: TrainingSection, load: Load = causal_model) -> PreTrainedModel:
    """Load weights in the section's dtype."""
    dtype = concrete_dtype(section.dtype)
    return load(model, dtype, **_quantized(section, dtype))


def _quantized(section: TrainingSection, dtype: str) -> dict[str, Any]:
    """Return what loads the frozen weights in 4 bits (QLoRA, 2305.14314: NF4, double quantisation)."""
    if section.quantization is None:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if section.lora is None:
        raise UserError("quantization: weights in 4 bits are not trained themselves; add lora")
    if not torch.cuda.is_available():
        raise UserError("quantization: 4 bits need an NVIDIA GPU, and there is none here; leave it out")
    given = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=getattr(torch, dtype), **given)
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def forget_after(folder: Path, step: int) -> None:
    """Drop the log lines and the generated answers of steps after `step`: they will be made again.

    Without a checkpoint even the losses before the first step are, but not what was generated then.
    """
    keep_lines(
        folder / "metrics.jsonl",
        lambda row: row["step"] <= step and (step > 0 or any(key.startswith(GENERATED_SCORES) for key in row)),
    )
    shutil.rmtree(folder / GENERATED / ".job", ignore_errors=True)  # weights that a kill left there
    for answers in (folder / GENERATED).glob("step-*"):
        if int(answers.name.removeprefix("step-")) > step:
            shutil.rmtree(answers)


class RunFolder(TrainerCallback):
    """Writes metrics.jsonl and the page that draws it, and shows progress."""

    def __init__(self, folder: Path, stage: str, name: str, checkpoint: Path | None) -> None:
        self._folder, self._stage, self._name, self._checkpoint = folder, stage, name, checkpoint

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        """Open the metrics log and the progress bar."""
        if state.is_world_process_zero:
            self._log = JsonlLog(self._folder / "metrics.jsonl")
            self._bar = Bar(self._stage, state.max_steps, step_of(self._checkpoint)).__enter__()
            self._note = ""
            self._start = time.monotonic()
            self._page = PageWriter(self._folder, f"{self._name}: {self._stage}", state.max_steps)

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append one line of metrics."""
        if state.is_world_process_zero and logs:
            seconds = round(time.monotonic() - self._start, 1)
            self._log.append({"step": state.global_step, "seconds": seconds, **logs})
            self._page.update()
            shown = {"loss": "loss", "reward": "reward"}
            self._note = ", ".join(
                f"{name} {logs[key]:.3f}" for key, name in shown.items() if logs.get(key) is not None
            )

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        """Advance the bar."""
        if state.is_world_process_zero:
            self._bar.advance(self._note)

    def on_train_end(self, args, state, control, **kwargs: Any) -> None:
        """Close all three."""
        if state.is_world_process_zero:
            self._bar.__exit__()
            self._log.close()
            self._page.close()


def run_training(
    trainer: Any,
    folder: Path,
    checkpoint: Path | None,
    preemption: SaveOnSigterm,
    base: str,
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    load: Load = causal_model,
) -> None:
    """Train from the start or from a checkpoint, and write the final model.

    Args:
        load: loads the base model with the head that is trained.

    Raises:
        UserError: the launcher runs another strategy than was asked for, or the checkpoint does not fit.
        Preempted: SIGTERM; a checkpoint was saved.
    """
    if checkpoint and trainer.is_world_process_zero():
        say(f"  resuming from step {step_of(checkpoint)}")
    keep_tensorboard_in(trainer, folder / "tensorboard")
    trainer.add_callback(_Started(trainer, folder, checkpoint))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if preemption.preempted:
        raise Preempted(f"preempted: saved at step {trainer.state.global_step}; run the same command again to go on")
    save_final(trainer, tokenizer, folder, base, dtype, load)


class _Started(TrainerCallback):
    """What can be looked at only once the model is wrapped."""

    def __init__(self, trainer: Any, folder: Path, checkpoint: Path | None) -> None:
        self._trainer, self._folder, self._checkpoint = trainer, folder, checkpoint

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        check_strategy(self._trainer, self._folder)
        if self._checkpoint:
            self._trainer.restore_unlogged(self._checkpoint)


def save_final(
    trainer: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, base: str, dtype: str, load: Load
) -> None:
    """Write `folder`/adapter (where there is one) and `folder`/model: the merged weights that any engine loads.

    They are those of the best checkpoint where one was chosen, else the last ones. Every process has to call this: the
    weights are gathered from all, and the first process merges them into a copy of the base model of its own.
    """
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    first = trainer.accelerator.is_main_process
    best = trainer.state.best_global_step
    if best and trainer.args.metric_for_best_model:
        if first:
            say(f"  the best held-out loss was that of step {best}: its weights are the final ones")
            kept = Path(trainer.args.output_dir) / f"checkpoint-{best}"
            if fault := fault_of(kept):
                raise UserError(f"{kept}: the best checkpoint {fault}; train again in another output_dir")
            weights = load_file(kept / WEIGHTS)
    else:
        weights = gathered_weights(trainer)
    if first:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        unset_hf_deepspeed_config()  # else the copy would be spread over processes that do not load it
        if isinstance(trained, PeftModel):
            with folder_written_atomically(folder / "adapter") as temporary:
                save_adapter(trained, weights, temporary, base)
            model = merged_model(base, dtype, folder / "adapter", load)
        else:
            model = merged_model(base, dtype, weights, load)
        with folder_written_atomically(folder / "model") as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
    trainer.accelerator.wait_for_everyone()


def gathered_weights(trainer: Any) -> dict[str, Any]:
    """Return the trained parameters, whole, by the names of the bare model: in the CPU memory of the first process.

    The others get nothing, but have to take part.
    """
    weights = {}
    for name, tensor in whole_weights(trainer):
        if trainer.accelerator.is_main_process:
            weights[name] = tensor.cpu().clone()
    return weights


def save_adapter(trained: Any, weights: dict[str, Any], folder: Path, base: str) -> None:
    """Write the adapter of a PEFT model, with `weights` as `gathered_weights` gives them."""
    for config in trained.peft_config.values():
        config.base_model_name_or_path = base
    trained.save_pretrained(folder, state_dict=weights)


def merged_model(base: str, dtype: str, trained: Path | dict[str, Any], load: Load = causal_model) -> PreTrainedModel:
    """Return a copy of the base model with the adapter in a folder merged into it, or with trained weights set."""
    from peft import PeftModel

    model = load(base, concrete_dtype(dtype))
    if isinstance(trained, Path):
        # a head that was trained beside the adapter is float32 as that is
        return PeftModel.from_pretrained(model, str(trained)).merge_and_unload().to(model.dtype)
    model.load_state_dict({name: tensor.to(model.dtype) for name, tensor in trained.items()}, strict=False)
    return model
