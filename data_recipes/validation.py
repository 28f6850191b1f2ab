"""YAML in, a validated model or one plain sentence out."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from data_recipes.errors import UserError, nearest

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # such as 2024-13-45, which looks like a date
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r:.40} cannot be read ({error})", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else []:
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
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{where}, line {line}: not valid YAML: the character {chr(error.character)!r} is not text; remove it"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_fault_of(error)}; mend that line") from None
    except RecursionError:
        raise UserError(f"{where}, line 1: not valid YAML: nested too deeply; flatten it") from None


def _fault_of(error: yaml.MarkedYAMLError) -> str:
    """Return the line and the problem, and where what it is in begins: an open quote is noticed at the file's end."""
    mark = error.problem_mark or error.context_mark
    line = f", line {mark.line + 1}" if mark else ""
    problem = str(error.problem)
    for sign, hint in (("'\\t'", "indent with spaces"), ("unhashable", "put a {{ template }} in quotes")):
        problem += f", {hint}" if sign in problem else ""
    start = error.context_mark
    begun = f" ({error.context} that begins on line {start.line + 1})" if start and error.context else ""
    return one_line(f"{line}: not valid YAML: {problem}{begun}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file.

    Raises:
        UserError: the file is missing, unreadable or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; mend the path") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not a YAML text file; save it as UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: not a YAML text file ({error.strerror}); give the path of one") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        given = "the file is empty" if value is None else f"not {value!r:.40}"
        raise UserError(f"{path}, line 1: expected keys and values at the top level, {given}; write it as 'key: value'")
    return value


def validated(model: type[M], value: Any, where: str, file: Path | None = None, at: tuple[Any, ...] = ()) -> M:
    """Validate `value`, turning the first fault into a sentence; an unknown key is answered with the nearest known one.

    Args:
        file: the YAML file `value` was read from; the sentence then names the line.
        at: the keys that lead to `value` in that file.

    Raises:
        UserError: `value` does not fit `model`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault, keys, message = _first_fault(error, value)
        sentence = _sentence(model, fault, keys, message)
        raise UserError(one_line(f"{where}{line_of(file, at + keys)}: {sentence}")) from None


def one_line(text: object) -> str:
    """Return the text without line breaks."""
    return " ".join(str(text).split())


def clause(error: object) -> str:
    """Return what another library's error says as part of a sentence: on one line, without full stops."""
    return re.sub(r"\. (?=[A-Z])", ", ", one_line(error)).rstrip(".")


@lru_cache(maxsize=16)
def _composed(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def line_of(file: Path | None, keys: tuple[Any, ...]) -> str:
    """Return ``, line N`` for the place in a YAML file that `keys` lead to, as far as they lead; else nothing."""
    try:
        text = file.read_text(encoding="utf-8") if file else ""
        node = _composed(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        node = None
    if node is None:
        return ""
    line = node.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return f", line {line}"


def _first_fault(error: ValidationError, value: Any) -> tuple[Any, tuple[Any, ...], str]:
    """Return the first fault, the keys that lead to it in `value`, and what is wrong there.

    Of a choice between types (a path or a list of paths) every one is a fault of its own: the one that got furthest
    into `value` is what was meant.
    """
    # what is missing comes last: a misspelt key says more
    ordered = sorted(error.errors(), key=lambda fault: fault["type"] == "missing")
    faults = [(fault, _keys(fault, value)) for fault in ordered]
    first = faults[0][1]
    fault, keys = max(
        (one for one in faults if one[1][: len(first)] == first),
        key=lambda one: (len(one[1]), not one[0]["type"].endswith("_type")),
    )
    should = "Input should be "
    messages = [other["msg"] for other, place in faults if place == keys]
    if len(messages) > 1 and all(message.startswith(should) for message in messages):
        return fault, keys, should + " or ".join(message.removeprefix(should) for message in messages)
    return fault, keys, fault["msg"].removeprefix("Value error, ")


def _keys(fault: Any, value: Any) -> tuple[Any, ...]:
    """Return the part of a fault's place that is keys of `value`: pydantic puts names of types in between."""
    keys = []
    for part in fault["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            keys.append(part)
            value = value[part]
    return (*keys, fault["loc"][-1]) if fault["type"] == "missing" else tuple(keys)


def _sentence(model: type[BaseModel], fault: Any, keys: tuple[Any, ...], message: str) -> str:
    place = ".".join(str(part) for part in keys)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, keys[:-1])
        return f"unknown key {place!r}{nearest(str(keys[-1]), known) or '; remove it'}"
    if fault["type"] == "missing":
        return f"the key {place!r} is missing; add it"
    if fault["loc"][-1:] == ("[key]",):
        return f"{place}: the key {keys[-1]!r} should be text; put it in quotes"
    if isinstance(fault["input"], dict | list):
        kind = "keys and values" if isinstance(fault["input"], dict) else "a list"
        given = f", not {kind}" if message.startswith("Input should be ") else ""
    else:
        given = "" if fault["type"] == "value_error" else f", not {fault['input']!r:.80}"
    return f"{place}: {message}{given}" if place else message


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
