"""The experiment file's JSON Schema for editors, and the reference page made from the same models."""

import json
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data_recipes.progress import say
from data_recipes.recipe import (
    Adaptive,
    Choices,
    Cleaning,
    Example,
    Instruction,
    Mixing,
    NearDuplicates,
    Quality,
    Recipe,
    SharePoint,
    TaskRecipe,
)
from eval.benchmarks import BenchmarkSettings
from eval.engines import EngineSettings
from pipelines.critique.sections import AgentSection, BudgetSection, MultiCritiqueSection
from pipelines.experiment import (
    SECTIONS,
    BaselineSection,
    CritiqueSection,
    EvalSection,
    Experiment,
    GRPOSection,
    LoraSection,
    OAPLSection,
    RewardModelSection,
    SFTSection,
)
from pipelines.rl.sections import CritiqueRewardSection, GRPOSSection, ReviserSection
from pipelines.sections import LaunchSection, ModelSection
from pipelines.trl_fields import config_class, json_schema_properties

MODELS = {
    "Top level": Experiment,
    "engine": EngineSettings,
    "critique": CritiqueSection,
    "multicritique": MultiCritiqueSection,
    "multicritique.agents.NAME": AgentSection,
    "multicritique.budget": BudgetSection,
    "sft": SFTSection,
    "reward_model": RewardModelSection,
    "grpo": GRPOSection,
    "grpo.oapl": OAPLSection,
    "grpo.critique_reward": CritiqueRewardSection,
    "grpo.critique_reward.reviser": ReviserSection,
    "grpo.grpo_s": GRPOSSection,
    "sft.lora, reward_model.lora, grpo.lora": LoraSection,
    "eval": EvalSection,
    "eval.models.NAME": ModelSection,
    "eval.baselines.NAME": BaselineSection,
    "eval.benchmarks: what every benchmark takes": BenchmarkSettings,
    "launch": LaunchSection,
    "A recipe file": Recipe,
    "A recipe file: tasks.NAME": TaskRecipe,
    "A recipe file: tasks.NAME.choices": Choices,
    "A recipe file: tasks.NAME.instruction": Instruction,
    "A recipe file: tasks.NAME.instruction.examples": Example,
    "A recipe file: mixing": Mixing,
    "A recipe file: mixing.schedule": SharePoint,
    "A recipe file: mixing.adaptive": Adaptive,
    "A recipe file: cleaning": Cleaning,
    "A recipe file: cleaning.quality": Quality,
    "A recipe file: cleaning.near_duplicates": NearDuplicates,
}


def print_schema(markdown: bool) -> None:
    """Print the JSON Schema, or the reference page."""
    say(reference() if markdown else json.dumps(json_schema(), indent=2))


def json_schema() -> dict[str, Any]:
    """Return the schema, TRL's fields included."""
    schema = Experiment.model_json_schema()
    for name, definition in SECTIONS.items():
        section = schema["$defs"][definition.__name__]
        section["properties"] = {**json_schema_properties(name), **section["properties"]}
        section["additionalProperties"] = False
    return schema


def reference() -> str:
    """Return docs/experiment-file.md."""
    parts = [
        "# The experiment file",
        "",
        "Made by `whetstone schema --markdown` from the models that check the file; a test keeps it current.",
        "For completion in an editor: `whetstone schema > whetstone.schema.json` and put",
        "`# yaml-language-server: $schema=whetstone.schema.json` at the top of the file.",
        "`--set section.key=value` overrides anything.",
        "",
    ]
    for title, model in MODELS.items():
        parts += [
            f"## {title}",
            "",
            " ".join((model.__doc__ or "").split()),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        parts += [_line(name, field) for name, field in model.model_fields.items()]
        parts.append("")
    for name in SECTIONS:
        parts += [
            f"Every other key of `{name}:` is a field of TRL's `{config_class(name).__name__}`, passed on as it is.",
            "",
        ]
    return "\n".join(parts)


def _line(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default_factory is not None or field.default is PydanticUndefined:
        default = ""
    elif hasattr(field.default, "model_dump"):
        default = "see below"
    else:
        default = f"`{json.dumps(field.default, default=lambda value: value.model_dump(exclude_defaults=True))}`"
    return f"| `{name}` | {default} | {' '.join((field.description or '').split())} |"
