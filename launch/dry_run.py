"""`whetstone run FILE --dry-run`: the resolved file and what each stage would do."""

from pathlib import Path

import yaml

from data_recipes.progress import say
from launch.run import stage_command
from pipelines.experiment import load_experiment
from pipelines.record import read_record


def print_plan(path: Path, overrides: list[str]) -> None:
    """Print the resolved experiment as YAML, then a line a stage: what is done, what would run."""
    experiment = load_experiment(path, overrides)
    say(yaml.safe_dump(experiment.model_dump(), sort_keys=False, allow_unicode=True))
    say(f"# run folder: {experiment.run_dir}")
    if experiment.recipe is not None:
        recipe, recipe_path = experiment.mixture_recipe
        say(f"# recipe: {recipe_path}, {len(recipe.tasks)} tasks")
    for stage in experiment.stages:
        if stage == "leaderboard":
            say(f"# {stage}: written anew from the eval stage's samples")
            continue
        record = read_record(experiment, stage)
        state = "done" if record and record["finished"] else "begun, would go on" if record else "would run"
        command = " ".join(stage_command(experiment, stage, experiment.run_dir / "experiment.yaml"))
        say(f"# {stage}: {state}: {command}")
