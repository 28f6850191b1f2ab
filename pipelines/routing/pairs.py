"""Preference pairs: two answers to a prompt, the label a model gave and the one people gave, in a JSON Lines file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_recipes.errors import UserError
from data_recipes.files import read_jsonl
from data_recipes.validation import validated

Label = Literal["a", "b", "tie"]


class Pair(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)
    id: str = Field(min_length=1)
    """Stable: the pair is known by it when its label comes back."""
    prompt: str = Field(min_length=1)
    a: str
    b: str
    ai: Literal["a", "b"]
    """The answer that a model prefers."""
    human: Label | None = None
    """The answer that people prefer; tie: they prefer neither, and the pair takes part in nothing; None: not asked."""

    @property
    def decided(self) -> bool:
        """People preferred one of the two."""
        return self.human in ("a", "b")


def read_pairs(path: Path) -> list[Pair]:
    """Read a JSON Lines file of pairs.

    Raises:
        UserError: the file is missing or empty, a line (named in the message) is no pair, or an id comes twice.
    """
    pairs: list[Pair] = []
    lines: dict[str, int] = {}
    for number, record in enumerate(read_jsonl(path), start=1):
        where = f"{path}, line {number}"
        pair = validated(Pair, record, where)
        if pair.id in lines:
            raise UserError(
                f"{where}: the id {pair.id!r:.80} is that of line {lines[pair.id]}, too; give it another one"
            )
        lines[pair.id] = number
        pairs.append(pair)
    if not pairs:
        raise UserError(f"{path}: holds no pair; write one a line: id, prompt, a, b, ai, and human where it is known")
    return pairs


def jsonl(rows: Iterable[dict]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def preference_rows(pairs: Iterable[Pair]) -> list[dict[str, str]]:
    """Return the pairs in the preference layout (`data_recipes.layouts`), which a recipe reads with ``type: files``.

    The human label counts where there is one, else the model's; ``label`` says which. Ties are left out.
    """
    rows = []
    for pair in pairs:
        if pair.human == "tie":
            continue
        answers = (pair.a, pair.b) if (pair.human or pair.ai) == "a" else (pair.b, pair.a)
        source = "human" if pair.human else "ai"
        rows.append(
            {"id": pair.id, "prompt": pair.prompt, "chosen": answers[0], "rejected": answers[1], "label": source}
        )
    return rows
