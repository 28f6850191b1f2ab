"""Data cards: what a mixture is made of, in Markdown, from its manifest and what the recipe says of its sources."""

from pathlib import Path

from data_recipes.mixing import recipe_of, task_recipe
from data_recipes.progress import say
from data_recipes.recipe import TaskRecipe
from data_recipes.store import Mixture


def print_card(folder: Path) -> None:
    """Print the data card of a mixture.

    Raises:
        UserError: there is no whole mixture.
    """
    say(card(Mixture(folder)))


def card(mixture: Mixture) -> str:
    """Return the data card of a mixture."""
    manifest = mixture.manifest
    recipe = recipe_of(manifest)
    lines = [
        recipe.description[:1].upper() + recipe.description[1:] + ".",
        "",
        f"{len(mixture)} training rows, {len(mixture.tokens)} tokens,"
        f" {sum(counts['heldout_rows'] for counts in manifest['tasks'].values())} held-out rows;"
        f" {manifest['protected_rows']} benchmark items and held-out questions kept out.",
        "",
        "| task | kind | licence | rows | tokens | held out | removed | source read |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for task, counts in manifest["tasks"].items():
        settings = task_recipe(recipe, task)
        removed = manifest["cleaning"].get(task, {}).get("removed", {})
        revision = manifest["sources"].get(task, "").replace("sha256:", "")
        name, _, digest = revision.partition(" ")
        half = ", training half" if _half(settings) else ""
        lines.append(
            f"| {task} | {counts['kind']} | {settings.licence} | {counts['train_rows']} | {counts['train_tokens']} |"
            f" {counts['heldout_rows']} | {', '.join(f'{n} {reason}' for reason, n in removed.items()) or '-'} |"
            f" {name} {digest[:12]}{half} |"
        )
    lines += ["", "By default read from:", ""]
    origins = {task: _origin(settings) for task, settings in recipe.tasks.items()}
    lines += [f"- {task}: {origin}" for task, origin in origins.items()]
    lines += ["", "Known flaws:", ""]
    flaws: dict[str, list[str]] = {}
    for task, settings in recipe.tasks.items():
        flaws.setdefault(" ".join(settings.flaws.split()), []).append(task)
    lines += [f"- {', '.join(tasks)}: {flaw}" for flaw, tasks in flaws.items() if flaw]
    if manifest["halves_trained_on"]:
        lines += [
            "",
            f"Holds the training half of {', '.join(manifest['halves_trained_on'])}: no official score on these sets"
            " for a model trained on it; the held-out halves may be scored.",
        ]
    return "\n".join(lines)


def _half(settings: TaskRecipe) -> bool:
    return "half" in settings.source or "half" in (settings.source.get("offline") or {})


def _origin(settings: TaskRecipe) -> str:
    source = settings.source
    if source["type"] == "hub":
        config = f", {source['config']}" if "config" in source else ""
        return f"hub {source['dataset']}{config}, {source.get('split', 'train')}"
    if source["type"] == "reasoning_gym":
        return f"reasoning-gym {source['dataset']}, seed {source['seed']}"
    where = source.get("path") or source.get("questions") or "GSM8K's repository"
    return where if isinstance(where, str) else where[0]
