"""Multi-task GRPO with the tasks' verifiers as rewards, rollouts by vLLM, weights synced before every generation.

Runs as a stage of ``whetstone run FILE``, alone with ``whetstone grpo FILE``, or under accelerate launch with
``-m pipelines.grpo FILE``. Starts from the SFT stage's model where there is one, else from the experiment's model. Rows
that name no verifier are judged by a reward model.

TRL's GRPOTrainer optimises. Ours (`rl.trainer`): verifiers as rewards, advantages and metrics by task, OAPL,
rollouts that are kept; here the weight sync that vLLM's CPU backend needs, and an alarm for stale rollouts.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOConfig

from data_recipes.errors import UserError
from data_recipes.mixing import draws_of
from data_recipes.progress import say
from data_recipes.row import Row
from data_recipes.store import TRAIN, Mixture
from eval.engines.vllm import platform_arguments, prepare_environment
from eval.hardware import concrete_dtype
from eval.judges import Judges
from eval.models import resolve_model
from eval.reward_models import RewardModel, judge_rows
from pipelines.checkpoints import agreed_checkpoint, step_of
from pipelines.experiment import Experiment, GRPOSection
from pipelines.preemption import SaveOnSigterm
from pipelines.rl.critique_reward import further_verifiers, open_critique_reward
from pipelines.rl.hardness import open_hardness
from pipelines.rl.prompts import PromptOrder, lag
from pipelines.rl.rollouts import FILE, Rollouts
from pipelines.rl.trainer import MultiTaskGRPOTrainer
from pipelines.training import (
    RunFolder,
    forget_after,
    load_for_training,
    load_tokenizer,
    peft_config,
    run_training,
    settle_launch,
    trl_arguments,
)

STALENESS = "sampling/sampling_logp_difference/mean"


class StaleRollouts(TrainerCallback):
    """Raises the alarm when the rollout engine's log-probabilities drift from the trainer's."""

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Compare the logged gap with the limit."""
        gap = (logs or {}).get(STALENESS)
        if gap is not None and gap > self._limit and state.is_world_process_zero:
            logs["stale_rollouts"] = gap
            say(f"  ALARM step {state.global_step}: {STALENESS} {gap:.3f} > {self._limit}: rollouts use old weights")


@contextmanager
def _engine_as_configured(dtype: str) -> Iterator[None]:
    """Let TRL start its colocated vLLM engine with our dtype and CPU arguments: it offers no setting for them."""
    from trl.generation import vllm_generation

    original = vllm_generation.LLM
    vllm_generation.LLM = lambda **theirs: original(
        **{**theirs, **platform_arguments(theirs["max_model_len"]), "dtype": dtype}
    )
    try:
        yield
    finally:
        vllm_generation.LLM = original


def sync_weights_on_cpu(generation: Any) -> None:
    """Hand the trainer's weights to vLLM's CPU backend.

    That backend repacks its linear layers, so TRL's load_weights finds no loader; reloading through the model runner
    repacks again. The clones are needed because adapters are un-merged once the iteration ends.
    """
    weights = [(name, parameter.clone()) for name, parameter in generation._iter_named_params()]
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=iter(weights))
    generation.llm.reset_prefix_cache()


def train(experiment: Experiment) -> None:
    """Run or resume the GRPO stage in the experiment's run folder.

    Raises:
        UserError: the mixture, the SFT model or the reward model is missing, or no row of the tasks can be judged.
    """
    from datasets import Dataset

    section = experiment.grpo
    if section is None:
        raise UserError(f"{experiment.name}: the file has no grpo section")
    folder = experiment.run_dir / "grpo"
    mixture = Mixture(experiment.run_dir / "mixture")
    rewarding = section.reward_model or (str(experiment.model_of("reward_model")) if experiment.reward_model else None)
    rows = _prompts(mixture, section, rewarding is not None)
    base = resolve_model(experiment.starting_model)
    use_vllm = section.trl.get("use_vllm", experiment.engine.type == "vllm")
    if use_vllm:
        prepare_environment(experiment.engine.kv_cache_gb)
    defaults = {
        "logging_steps": 1,
        "save_steps": 5,
        "beta": 0.0,
        "use_vllm": use_vllm,
        "vllm_mode": "colocate",
        "vllm_max_model_length": experiment.engine.max_model_len,
        "vllm_gpu_memory_utilization": min(experiment.engine.gpu_memory_utilization, 0.3),
        "log_completions": False,
    }
    arguments = GRPOConfig(
        **trl_arguments(section, folder, experiment.seed, **{k: v for k, v in defaults.items() if k not in section.trl})
    )
    settle_launch(arguments)
    set_seed(experiment.seed)
    first = arguments.process_index == 0
    checkpoint = agreed_checkpoint(folder, run_id := experiment.fingerprint_of("grpo"), arguments)
    preemption = SaveOnSigterm()  # before what takes long: the launchers ignore SIGTERM until somebody takes it
    model, tokenizer = load_for_training(base, section), load_tokenizer(base)
    if first:
        forget_after(folder, step_of(checkpoint))
    order = _order(mixture.manifest, section, arguments, rows, experiment.seed)
    micro_batches = arguments.steps_per_generation * arguments.num_iterations
    begun = step_of(checkpoint) * arguments.gradient_accumulation_steps // micro_batches
    given = Path(section.rollouts).expanduser() if section.rollouts else None
    rollouts = Rollouts(folder, begun, given, first)
    names = {name for row in rows for name in row.verifiers}
    needed = rewarding is not None and not all(row.verifiers for row in rows)
    if section.reward_model and not needed:
        raise UserError(
            "grpo.reward_model: every row that is trained on names a verifier, so it would judge nothing; remove it, or"
            " name tasks without verifiers in grpo.tasks"
        )
    reward_model = RewardModel(rewarding, device=str(arguments.device)) if needed else None
    if section.critique_reward:
        names |= further_verifiers(rows)
    judges = Judges(names, (os.cpu_count() or 1) // arguments.world_size, section.verifier_timeout)
    critique_reward = open_critique_reward(experiment, rows, base, judges.judge, folder, arguments.process_index)
    if critique_reward:
        critique_reward.remember_run(folder / FILE, rows, begun)
    judge = partial(judge_rows, judges, reward_model)
    hardness = open_hardness(section, base, judge, arguments.device)

    def start() -> MultiTaskGRPOTrainer:
        return MultiTaskGRPOTrainer(
            model=model,
            args=arguments,
            rows=rows,
            judge=judge,
            rollouts=rollouts,
            order=order,
            rewards_scaled=section.reward_scale,
            oapl=section.oapl,
            critique_reward=critique_reward,
            hardness=hardness,
            run_id=run_id,
            train_dataset=Dataset.from_list([{"prompt": row.prompt, "index": i} for i, row in enumerate(rows)]),
            processing_class=tokenizer,
            peft_config=peft_config(section.lora),
            callbacks=[
                StaleRollouts(section.stale_logp_difference),
                RunFolder(folder, "grpo", experiment.name, checkpoint),
                preemption,
            ],
        )

    if use_vllm and arguments.vllm_mode == "colocate":
        with _engine_as_configured(concrete_dtype(experiment.engine.dtype)):
            trainer = start()
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            trainer.vllm_generation.sync_weights = partial(sync_weights_on_cpu, trainer.vllm_generation)
    else:
        trainer = start()
    if first:
        say(f"  {len(rows)} prompts of {len({row.task for row in rows})} tasks")
        if reward_model:
            say(f"  {sum(not row.verifiers for row in rows)} of them name no verifier: {rewarding} judges the answers")
    trainer.remove_callback(PrinterCallback)
    try:
        run_training(trainer, folder, checkpoint, preemption, base, tokenizer, section.dtype)
    finally:
        judges.close()
        if critique_reward:
            critique_reward.close()
        rollouts.close()


def _order(
    manifest: dict[str, Any], section: GRPOSection, arguments: GRPOConfig, rows: list[Row], seed: int
) -> PromptOrder:
    """Return the order of the prompts, in the recipe's shares of the tasks that are trained on."""
    rows_of: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        rows_of.setdefault(row.task, []).append(number)
    epoch = draws_of(manifest, prompts_too=True)
    draws = dict(zip(epoch.tasks, epoch.rows, strict=True))
    unread = [task for task in rows_of if not draws[task]]
    if len(unread) == len(rows_of):
        raise UserError(f"grpo.tasks: the recipe's mixing reads none of {', '.join(unread)}; give them a share")
    prompts = arguments.generation_batch_size // arguments.num_generations
    repeats = arguments.steps_per_generation * arguments.num_iterations
    accumulated = arguments.gradient_accumulation_steps
    epoch_generations = math.ceil(sum(draws[task] for task in rows_of) / prompts)
    generations = math.ceil(arguments.num_train_epochs * epoch_generations)
    if arguments.max_steps > 0:
        generations = math.ceil(arguments.max_steps * accumulated / repeats)
    arguments.num_train_epochs = 1  # the order holds them all
    return PromptOrder(
        list(rows_of.values()),
        [draws[task] for task in rows_of],
        prompts=prompts,
        answers=arguments.num_generations,
        repeats=repeats,
        generations=generations,
        lag=lag(accumulated, repeats),
        set_aside_for=section.set_aside_for,
        seed=seed,
    )


def _prompts(mixture: Mixture, section: GRPOSection, any_row: bool) -> list[Row]:
    """Return the rows to ask: of the tasks that are named, else of those meant to be judged.

    Args:
        any_row: there is a reward model, which judges what names no verifier.
    """
    rows = [row for row in mixture.rows(TRAIN) if row.verifiers or any_row]
    if section.tasks:
        missing = set(section.tasks) - {row.task for row in rows}
        if missing:
            mend = "" if any_row else "; name verifiers in the recipe, or give grpo a reward_model"
            raise UserError(f"grpo.tasks: the mixture has no judgeable rows of {', '.join(sorted(missing))}{mend}")
        return [row for row in rows if row.task in section.tasks]
    rows = [row for row in rows if row.verifiers or row.chosen is not None]
    if not rows:
        raise UserError(
            "grpo: no row of the mixture names a verifier, so nothing can be rewarded; name verifiers in the recipe, or"
            " give grpo a reward_model and tasks"
        )
    return rows


if __name__ == "__main__":
    from pipelines.alone import run_alone

    run_alone("grpo", train)
