"""The mix stage: the experiment's recipe becomes the run's mixture folder."""

from data_recipes.errors import UserError
from data_recipes.mixture import build_mixture
from data_recipes.progress import console, say
from data_recipes.row import Row
from eval.models import resolve_model
from pipelines.experiment import Experiment
from pipelines.tokens import tokenise


def mix(experiment: Experiment) -> None:
    """Build ``mixture/`` in the run folder, check that no held-out question is in it, and print what is.

    Raises:
        UserError: the recipe cannot be built, or a held-out question is left in training.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(experiment.model))
    recipe, recipe_path = experiment.mixture_recipe

    def count_tokens(row: Row) -> int:
        return len(tokenise(row, tokenizer)["input_ids"])

    folder = experiment.run_dir / "mixture"
    manifest = build_mixture(
        recipe, recipe_path, folder, seed=experiment.seed, count_tokens=count_tokens, run_dir=experiment.run_dir
    )
    if manifest["heldout_questions_found_in_training"]:
        raise UserError(
            f"{folder}: a held-out question is in the training rows; this is a bug of ours, please report it"
        )
    show(manifest)


def show(manifest: dict) -> None:
    """Print the mixture's account as a table."""
    from rich.table import Table

    table = Table(title="mixture", title_justify="left")
    for name in ("task", "kind"):
        table.add_column(name)
    for name in ("train rows", "tokens", "share", "held out", "distinct answers"):
        table.add_column(name, justify="right")
    for task, counts in manifest["tasks"].items():
        table.add_row(
            task,
            counts["kind"],
            f"{counts['train_rows']}",
            f"{counts['train_tokens']}",
            f"{counts['share_of_tokens']:.1%}",
            f"{counts['heldout_rows']}",
            f"{counts['distinct_answers']}",
        )
    console().print(table)
    left_out = len(manifest["removed_because_of_a_heldout_question"])
    say(f"  no held-out question occurs in training ({left_out} rows left out because one did)")
