"""YAML in, a validated model or one plain sentence out."""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from data_recipes.errors import UserError, nearest

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue  # the loader itself merges the one and refuses the other
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML safely.

    Raises:
        UserError: `text` is not YAML; the message gives the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise UserError(f"{where}{line}: not valid YAML: {problem}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file.

    Raises:
        UserError: the file is missing, unreadable or not a mapping.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(f"{path}: not a YAML text file") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected keys and values at the top level")
    return value


def validated(model: type[M], value: Any, where: str) -> M:
    """Validate `value`, turning the first fault into a sentence; an unknown key is answered with the nearest known one.

    Raises:
        UserError: `value` does not fit `model`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(model, error)}") from None


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    fault = error.errors()[0]
    location = fault["loc"]
    place = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place!r}{nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
    if fault["type"] == "missing":
        return f"the key {place!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model that `location` leads to, as far as it can be followed."""
    from typing import get_args

    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        if field is None:
            continue  # the key of a mapping: its values' model is already current
        candidates = [field.annotation, *get_args(field.annotation)]
        candidates += [inner for outer in get_args(field.annotation) for inner in get_args(outer)]
        models = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
        current = models[0] if models else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
