"""`whetstone plan FILE`: parameters, memory, tokens and steps of the SFT stage, before anything starts."""

from pathlib import Path

from rich import box
from rich.table import Table

from data_recipes.progress import console, say
from pipelines.experiment import load_experiment
from pipelines.memory_phases import CPU_PARTS, PARTS, total
from pipelines.memory_plan import MemoryPlan, memory_there_is, plan_sft


def print_memory_plan(path: Path, overrides: list[str]) -> None:
    """Print the plan of the experiment at `path`; nothing is written.

    Raises:
        UserError: the file is wrong, has no sft section, or the model's config cannot be read.
    """
    experiment = load_experiment(path, overrides)
    plan = plan_sft(experiment)
    for line in summary(plan):
        say(line)
    console().print(memory_table(plan))
    setup = plan.setup
    there_is = memory_there_is(setup.device, experiment.launch.num_processes)
    say(verdict(plan, there_is))
    if experiment.reward_model is not None:
        say("The reward_model stage is not planned: a step reads two conversations a pair, and scores no vocabulary.")
    if experiment.grpo is not None:
        say("The grpo stage is not planned: its rollout engine's memory is set by engine.")


def summary(plan: MemoryPlan) -> list[str]:
    """Return the lines above the table: parameters, how a step is made up, what is read."""
    shape, setup = plan.shape, plan.setup
    share = shape.trainable.numel / shape.weights.numel
    processes = "one process" if setup.world_size == 1 else f"{setup.world_size} processes, {setup.strategy}"
    where = "GPU" if setup.device == "cuda" else "CPU"
    rows, length = plan.micro_batch
    step = rows * plan.accumulation * setup.world_size
    lines = [
        f"parameters: {shape.weights.numel:,}, of which {shape.trainable.numel:,} train ({share:.2%}), in {plan.dtype}",
        f"a step: {step} sequences = {rows} a process x {setup.world_size} x {plan.accumulation} accumulated;"
        f" {processes}, {where}",
        f"the largest micro-batch: {rows} x {length} tokens",
    ]
    if plan.run is None:
        lines.append("steps and tokens: unknown until the mixture is built (whetstone mix); memory is for max_length")
    else:
        run = plan.run
        lines.append(
            f"steps: {run.steps:,}; {run.rows:,} rows, {run.tokens:,} tokens, {run.trained_tokens:,} of them trained on"
        )
    return lines


def memory_table(plan: MemoryPlan) -> Table:
    """Return the table: a line a part, a column a phase, in GB (10^9 bytes) of one process."""
    table = Table(box=box.SIMPLE_HEAD, title="memory of a process, GB", title_justify="left")
    table.add_column("part")
    peak, _ = plan.peak
    for phase in plan.phases:
        table.add_column(f"[bold]{phase}[/bold]" if phase == peak else phase, justify="right")
    for part in PARTS:
        sizes = [phase.get(part, 0) for phase in plan.phases.values()]
        if any(sizes):
            beside = plan.setup.device == "cuda" and part in CPU_PARTS
            table.add_row(
                f"{part} (in CPU memory)" if beside else part, *[f"{size / 1e9:.2f}" if size else "-" for size in sizes]
            )
    table.add_section()
    table.add_row(
        "together", *[f"{total(phase, plan.setup) / 1e9:.2f}" for phase in plan.phases.values()], style="bold"
    )
    return table


def verdict(plan: MemoryPlan, there_is: int | None) -> str:
    """Return the sentence that says whether it fits.

    Args:
        there_is: bytes that a process may take; None where this machine cannot tell.
    """
    phase, peak = plan.peak
    need = f"{peak / 1e9:.2f} GB a process ({phase})"
    if there_is is None:
        return f"It takes {need}; this machine cannot tell whether that fits where it will run."
    if peak <= there_is:
        return f"It fits: {need} of {there_is / 1e9:.2f} GB there are."
    mend = "gradient_checkpointing: true, a smaller per_device_train_batch_size or max_length, lora"
    if plan.setup.world_size > 1:
        mend += ", or a strategy that shards more"
    return f"It does not fit: {need} but {there_is / 1e9:.2f} GB there are; try {mend}."
