"""A source's record becomes a row: templates over its columns, options in order, instructions around the prompt."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from data_recipes.errors import UserError, nearest
from data_recipes.layouts import is_row, recognised
from data_recipes.row import Message, Row
from data_recipes.validation import clause, one_line

if TYPE_CHECKING:  # recipes check their templates with `check_template`
    from data_recipes.recipe import Choices, Instruction, TaskRecipe

Where = Callable[[str], str]
"""Tells where a key of the task, such as ``prompt``, stands: the recipe's file and line, for messages."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REFERS_TO_OTHERS = re.compile(
    r"\b(all|none|both|neither|any|some|two|three) of (the )?(above|these|them|others?|options|following)\b"
    r"|\b(above|below|preceding|foregoing)\b|\b(both|either|neither|only) \(?[a-e1-5]\)?(\b|$)"
    r"|^\W*\(?[a-e1-5]\)?\s*(,|and|&|or)\s*\(?[a-e1-5]\b",
    re.I,
)
"""Options that speak of other options by their place: shuffling would make them wrong."""


def _without(text: str, pattern: str) -> str:
    return re.sub(pattern, "", text)


def _as_table(rows: list[list[Any]]) -> str:
    return "\n".join(" | ".join(str(cell).strip() for cell in row) for row in rows)


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
_environment.filters |= {"without": _without, "as_table": _as_table}
# the same record gives the same row: nothing random
del _environment.filters["random"], _environment.globals["lipsum"]


@lru_cache(maxsize=4096)
def _template(text: str) -> Any:
    return _environment.from_string(text)


@lru_cache(maxsize=4096)
def _expression(text: str) -> Any:
    return _environment.compile_expression(text, undefined_to_none=False)


def check_template(text: str) -> str:
    """Return `text`, a Jinja template.

    Raises:
        ValueError: it is none.
    """
    return _checked(_template, text, "template")


def check_expression(text: str) -> str:
    """Return `text`, a Jinja expression.

    Raises:
        ValueError: it is none.
    """
    return _checked(_expression, text, "expression")


def _checked(compiled: Callable[[str], Any], text: str, kind: str) -> str:
    try:
        compiled(text)
    except TemplateSyntaxError as error:
        line = f" in its line {error.lineno}" if "\n" in text.strip() else ""
        raise ValueError(f"not a Jinja {kind}: {clause(error.message)}{line}; mend {text.strip()!r:.80}") from None
    except RecursionError:
        raise ValueError(f"not a Jinja {kind}: nested too deeply; simplify it") from None
    return text


def _render(text: str, columns: dict[str, Any], where: Where, key: str) -> str:
    if text == "{{ answer }}" and isinstance(columns.get("answer"), str):
        return columns["answer"].strip()
    try:
        return _template(text).render(columns).strip()
    except Exception as error:  # whatever a template of the user's may do
        raise _misfit(f"template {text!r:.200}", error, columns, where, key) from None


def _evaluate(text: str, columns: dict[str, Any], where: Where, key: str) -> Any:
    try:
        value = _expression(text)(columns)
        parts = [value, *value] if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, StrictUndefined):
                part._fail_with_undefined_error()
        return value
    except Exception as error:
        raise _misfit(f"expression {text!r:.200}", error, columns, where, key) from None


def _misfit(what: str, error: Exception, columns: dict[str, Any], where: Where, key: str) -> UserError:
    reason = clause(error) or type(error).__name__
    undefined = re.fullmatch(r"'(\w+)' is undefined", reason) if isinstance(error, UndefinedError) else None
    known = nearest(undefined[1], columns) if undefined else ""
    return UserError(f"{where(key)}: {what} does not fit the source's columns: {reason}{known}; mend it")


def _at_record(where: Where | str, record: dict[str, Any]) -> Where:
    name = f"record {one_line(record.get('key'))}"
    if isinstance(where, str):  # one place for all keys
        return lambda key: f"{where}: {name}" if key == "source" else f"{where}: {name}: {key}"
    return lambda key: f"{where(key)}: {name}"


def wanted(recipe: TaskRecipe, record: dict[str, Any], where: Where | str) -> bool:
    """Tell whether the task's ``only`` lets the record in."""
    return recipe.only is None or bool(_evaluate(recipe.only, record, _at_record(where, record), "only"))


def row_of(task: str, recipe: TaskRecipe, prefix: str, record: dict[str, Any], where: Where | str) -> Row:
    """Return the row a record becomes.

    Args:
        prefix: of the row's id: the source and its revision.
        where: tells the recipe's file and line, for messages.

    Raises:
        UserError: the templates or the layout do not fit the record, or the row does not hold together.
    """
    where = _at_record(where, record)
    try:
        if recipe.prompt is None and is_row(record):
            row = Row.model_validate({name: value for name, value in record.items() if name != "key"})
            if row.task != task and not row.task.startswith(f"{task}/"):
                raise UserError(
                    f"{where('source')}: row {row.id!r} is of task {row.task!r}, not {task!r} or {task}/...; mend the"
                    " row or rename the task"
                )
        else:
            row = _rendered(task, recipe, f"{prefix}/{record.get('key')}", record, where)
        if not any(turn.role == "user" for turn in row.messages):
            raise UserError(f"{where('source')}: messages hold no user turn; mend the record")
        "".join(_texts(row)).encode()
        return row
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "row"
        message = clause(first["msg"].removeprefix("Value error, "))
        raise UserError(f"{where('source')}: {place}: {message}; mend the record or the recipe's templates") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{where('source')}: holds half a character ({half!r}); mend the record") from None


def _texts(row: Row) -> list[str]:
    turns = [*row.messages, *(row.chosen or []), *(row.rejected or [])]
    return [row.id, row.answer or "", *(turn.content for turn in turns), *filter(_is_text, row.meta.values())]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _rendered(task: str, recipe: TaskRecipe, row_id: str, record: dict[str, Any], where: Where) -> Row:
    columns = record
    meta: dict[str, Any] = {"licence": recipe.licence}
    if recipe.choices:
        columns = {**record, **_in_order(recipe.choices, record, row_id, where)}
        meta["options"] = columns["options"]
    parts: dict[str, Any] = {}
    if recipe.prompt is None:
        try:
            parts = recognised(record)
        except ValueError as error:
            mend = "mend the record, give the task a prompt template or rename the columns"
            raise UserError(f"{where('source')}: {clause(error)}; {mend}") from None
        question = next((turn["content"] for turn in parts["messages"] if turn["role"] == "user"), "")
    else:
        templates = [recipe.prompt] if isinstance(recipe.prompt, str) else recipe.prompt
        template = templates[_number(row_id) % len(templates)] if len(templates) > 1 else templates[0]
        question = _render(template, columns, where, "prompt")
        target = _render(recipe.target, columns, where, "target")
        parts["messages"] = [Message(role="user", content=question), Message(role="assistant", content=target)]
    if recipe.instruction:
        roles = [turn["role"] if isinstance(turn, dict) else turn.role for turn in parts["messages"]]
        first = Message(role="user", content=_instructed(recipe.instruction, question))
        parts["messages"][roles.index("user") if "user" in roles else 0] = first
    if recipe.question:
        meta["question"] = _render(recipe.question, columns, where, "question")
    elif recipe.instruction or recipe.choices:
        meta["question"] = question
    if recipe.group:
        meta["group"] = _render(recipe.group, columns, where, "group")
    if recipe.working:
        meta["working"] = _render(recipe.working, columns, where, "working")
    given = {name: _render(text, columns, where, f"meta.{name}") for name, text in recipe.meta.items()}
    meta |= {name: text for name, text in given.items() if text}
    return Row(
        id=row_id,
        task=task,
        kind=recipe.kind,
        **parts,
        answer=_render(recipe.answer, columns, where, "answer") if recipe.verifiers else None,
        verifiers=recipe.verifiers,
        meta=meta,
    )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _instructed(instruction: Instruction, instance: str) -> str:
    blocks = [f"Definition: {instruction.definition.strip()}"]
    if instruction.examples:
        shown = []
        for example in instruction.examples:
            lines = [f"input: {example.input.strip()}", f"output: {example.output.strip()}"]
            lines += [f"explanation: {example.explanation.strip()}"] if example.explanation else []
            shown.append("\n".join(lines))
        blocks.append("Positive Examples:\n" + "\n\n".join(shown))
    return "\n\n".join([*blocks, f"Instance:\ninput: {instance}\noutput:"])


def _in_order(choices: Choices, record: dict[str, Any], row_id: str, where: Where) -> dict[str, Any]:
    """Return ``options``, ``choices``, ``letter`` and ``choice``: the options in the order asked, the answer with
    them."""
    options = _evaluate(choices.options, record, where, "choices.options")
    letters = list(LETTERS)
    if isinstance(options, dict):
        letters, options = [str(letter) for letter in options], list(options.values())
    if not isinstance(options, list | tuple) or not 2 <= len(options) <= len(LETTERS):
        key = where("choices.options")
        raise UserError(f"{key}: expected 2 to 26 options, got {options!r:.80}; mend the expression")
    options = [str(option).strip() for option in options]
    given = _evaluate(choices.answer, record, where, "choices.answer")
    if isinstance(given, int) and 0 <= given < len(options):
        right = given
    elif str(given).strip() in letters[: len(options)]:
        right = letters.index(str(given).strip())
    elif str(given).strip() in options:
        right = options.index(str(given).strip())
    else:
        raise UserError(
            f"{where('choices.answer')}: {given!r:.80} is neither the index, the letter nor the text of one of the"
            f" {len(options)} options; mend the expression or the record"
        )
    order = list(range(len(options)))
    if choices.shuffle is not None and not any(REFERS_TO_OTHERS.search(option) for option in options):
        random.Random(f"{choices.shuffle}/{row_id}").shuffle(order)
    options = [options[place] for place in order]
    letter = LETTERS[order.index(right)]
    lines = "\n".join(f"{LETTERS[place]}. {option}" for place, option in enumerate(options))
    return {"options": options, "choices": lines, "letter": letter, "choice": options[order.index(right)]}
