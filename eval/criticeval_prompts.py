"""The prompts CriticEval publishes, read from the Python files of its repository without running them.

``inference/utils/prompts.py`` holds the text before and after an item by dimension and domain, ``formats.py`` the
item's own layout with its blanks. Both are constants: only string, list and dictionary literals and names of earlier
ones are understood.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.sources import Place

FOLDER = "https://raw.githubusercontent.com/open-compass/CriticEval/58c85e10c354811f7c07090cd75bfbe19efa0a56/"
OFFLINE = "{data}/criticeval/"
_BLANK = re.compile(r"\{(\w+)\}")


def fill(dimension: str, domain: str, record: dict[str, str], where: str) -> str:
    """Return the prompt about a record, as ``critic_bench_dataloader.py`` puts it together.

    Args:
        dimension: the repository's name: feedback, comp_feedback, correction or meta_feedback.
        record: the columns that fill the blanks; their text is not searched for blanks again.

    Raises:
        UserError: the prompts cannot be had, or a column is missing.
    """
    around = _constant("prompts.py", "prompts", dimension)
    around = around["obj"] if dimension in ("feedback", "comp_feedback") else around
    layout = _constant("formats.py", "mappings", dimension)
    try:
        before, after, body = around[domain]["prefix_prompt"], around[domain]["post_prompt"], layout[domain]
    except (KeyError, TypeError):
        raise UserError(
            f"CriticEval's prompts.py and formats.py have no {dimension} prompt for {domain}; fetch them again"
        ) from None

    def value(blank: re.Match[str]) -> str:
        if blank[1] not in record:
            raise UserError(f"{where} has no {blank[1]!r}, which its prompt needs; fetch the set again")
        return record[blank[1]]

    return before + _BLANK.sub(value, body) + after


def _constant(file: str, name: str, key: str) -> Any:
    place = Place(Path())
    path = place.resolve((OFFLINE if place.data_dir else FOLDER) + f"inference/utils/{file}")
    found = constants_of(path).get(name)
    if not isinstance(found, dict) or key not in found:
        raise UserError(f"{path}: no {name}[{key!r}] in it; fetch CriticEval's inference/utils/{file} again")
    return found[key]


@cache
def constants_of(path: Path) -> dict[str, Any]:
    """Return the module-level constants of a Python file, which is read and not run.

    Raises:
        UserError: it is missing or no Python.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        raise UserError(f"{path}: no readable Python file; fetch it from CriticEval's repository again") from None
    known: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    known[target.id] = _value(statement.value, known)
                except (KeyError, ValueError):
                    continue  # not a constant
    return known


def _value(node: ast.AST | None, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.List):
        return [_value(one, known) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(k, known): _value(v, known) for k, v in zip(node.keys, node.values, strict=True)}
    raise ValueError("not a constant")
