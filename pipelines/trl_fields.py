"""TRL's own field names inside the training sections: checked against TRL's dataclasses, types and all."""

import dataclasses
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from data_recipes.errors import UserError, nearest

OURS = {
    "output_dir": "the run folder decides it",
    "seed": "set the experiment's seed",
    "data_seed": "set the experiment's seed",
    "resume_from_checkpoint": "the same command resumes by itself",
    "model_init_kwargs": "set dtype",
    "hub_token": "set HF_TOKEN in the environment: files and run folders are no place for secrets",
    "remove_unused_columns": "task ids travel as a column",
    "padding_free": "set packing",
    "eval_packing": "held-out rows are never packed",
    "packing_strategy": "set packing: rows are put together by best fit",
    "load_best_model_at_end": "sft.best chooses a checkpoint",
    "metric_for_best_model": "sft.best chooses a checkpoint",
    "greater_is_better": "sft.best chooses a checkpoint",
    "deepspeed": "set launch.strategy",
    "fsdp": "set launch.strategy",
    "enable_jit_checkpoint": "SIGTERM always saves",
    "multi_objective_aggregation": "a row's verifiers give one reward, which is never normalised with other tasks'",
    "reward_weights": "set reward_scale, by task",
    "shuffle_dataset": "the recipe's mixing orders the prompts",
    "label_smoothing_factor": "the tasks' losses would no longer be what is trained on",
}
"""Fields of TRL's that Whetstone sets itself, and what to do instead."""


def config_class(section: str) -> type:
    """Return TRL's config dataclass for a training section. Imports TRL (seconds)."""
    import trl

    return getattr(trl, {"sft": "SFTConfig", "reward_model": "RewardConfig", "grpo": "GRPOConfig"}[section])


@cache
def _adapters(section: str) -> dict[str, TypeAdapter]:
    hints = get_type_hints(config_class(section))
    adapters = {}
    for field in dataclasses.fields(config_class(section)):
        if field.init and field.name not in OURS:
            try:
                adapters[field.name] = TypeAdapter(hints[field.name], config=ConfigDict(arbitrary_types_allowed=True))
            except PydanticUserError:  # a hint that takes no config of ours, such as another dataclass
                adapters[field.name] = TypeAdapter(Any)
    return adapters


def checked_fields(section: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `values` with each one converted to the type TRL declares for it.

    Raises:
        UserError: a key that neither Whetstone nor TRL knows, one that Whetstone sets itself, or a wrong type.
    """
    checked = {}
    for key, value in values.items():
        if key in OURS:
            raise UserError(f"{where}: {section}.{key} is not for the file: {OURS[key]}")
        if key not in _adapters(section):
            ours = SECTION_KEYS.get(section, ())
            raise UserError(f"{where}: unknown key {f'{section}.{key}'!r}{nearest(key, [*_adapters(section), *ours])}")
        try:
            checked[key] = _adapters(section)[key].validate_python(value)
        except ValidationError as error:
            raise UserError(f"{where}: {section}.{key}: {error.errors()[0]['msg']}, not {value!r}") from None
    return checked


def check_lora_fields(values: dict[str, Any], ours: list[str], where: str) -> None:
    """Check the keys that go to PEFT's LoraConfig. Imports PEFT (seconds).

    Raises:
        UserError: a key that neither Whetstone nor PEFT knows.
    """
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    for key in values:
        if key not in known:
            name = f"{where}.{key}"
            raise UserError(
                f"{where.rsplit(': ', 1)[0]}: unknown key {name.rsplit(': ', 1)[1]!r}{nearest(key, [*ours, *known])}"
            )


SECTION_KEYS: dict[str, tuple[str, ...]] = {}
"""Whetstone's own keys of each section, for the nearest-key answer; filled by `pipelines.experiment`."""


def json_schema_properties(section: str) -> dict[str, Any]:
    """Return JSON Schema properties of TRL's fields, with TRL's own help texts."""
    properties = {}
    for field in dataclasses.fields(config_class(section)):
        if field.name not in _adapters(section):
            continue
        try:
            schema = _adapters(section)[field.name].json_schema()
        except (PydanticUserError, PydanticSchemaGenerationError):
            schema = {}
        schema.pop("$defs", None) if "$ref" not in str(schema) else schema.clear()
        properties[field.name] = {**schema, "description": " ".join(field.metadata.get("help", "").split())}
    return properties
