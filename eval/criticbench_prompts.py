"""The prompts CriticBench publishes: read from its repository, cut to the number of examples that fit, filled in.

A prompt file has four sections (instruction, examples, question, answer format) between lines of hashes. Examples are
dropped from the end, as the repository's ``set_prompt`` does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from data_recipes.errors import UserError
from data_recipes.sources import Place

Stage = Literal["generation", "critique", "correction"]
Style = Literal["fs", "zs-crit-cot", "zs-crit-ao-1", "zs-crit-ao-2", "zs-crit-ao-3"]
"""The repository's ``--prompt_type``: few-shot, or without examples asking for a verdict in JSON or in brackets."""

FOLDER = "https://raw.githubusercontent.com/CriticBench/CriticBench/245f785ca65176cb53a70c623d41080232ff7763/"
OFFLINE = "{data}/criticbench_prompts/"
FEW_SHOT = "few_shot.txt"
FILES: dict[str, dict[Stage, str]] = {
    "fs": {"critique": FEW_SHOT, "correction": FEW_SHOT},
    "zs-crit-cot": {
        "critique": "zero_shot_chain_of_thought.txt",
        "correction": "zero_shot_with_chain_of_thought_critique.txt",
    },
    **{
        f"zs-crit-ao-{n}": {
            "critique": f"zero_shot_answer_only_{n}.txt",
            "correction": "zero_shot_with_answer_only_critique.txt",
        }
        for n in (1, 2, 3)
    },
}
"""style -> stage -> file; generation is few-shot in every style."""

RULE = "\n# ########## #"
SECTIONS = ("#instruction#", "#Example#", "#Question#", "#Answer Format#")
DASHES = "\n---"
GENERATION_SEPARATORS = {
    "MBPP": "\nYou are an expert Python programmer",
    "TabMWP": "\nTable:",
    "HumanEval": DASHES,
}
"""What an example of a generation prompt begins with, where that is not ``Question:``."""

_BLANK = re.compile(r"\{(question|solution|critique)\}")


@dataclass(frozen=True)
class Prompt:
    """One prompt file."""

    instruction: str
    chunks: tuple[str, ...]
    """The examples, cut at `separator`; what stands before the first and after the last is a chunk of its own."""
    separator: str
    question: str
    answer_format: str
    """What the file says an answer looks like, such as ``[[]]`` or ``json: verdict``."""

    @property
    def num_examples(self) -> int:
        """How many worked examples there are."""
        return sum(bool(chunk.strip()) for chunk in self.chunks)

    def text(self, values: dict[str, str], num_examples: int | None = None) -> str:
        """Return the prompt with its blanks filled in.

        Args:
            values: of ``question``, ``solution`` and ``critique``; their text is not searched for blanks again.
            num_examples: keep only the first so many; None: all.
        """
        chunks, rest = self.chunks, ""
        if num_examples is not None and num_examples < self.num_examples:
            chunks = chunks[: num_examples + (not chunks[0].strip())]
            rest = DASHES + "\n" if self.separator == DASHES else ""
        question = _BLANK.sub(lambda blank: values[blank[1]], self.question)
        return (self.instruction + self.separator.join(chunks) + rest + question).strip()

    def fitting(self, values: dict[str, str], count: Callable[[str], int], limit: int) -> tuple[str, int]:
        """Return the prompt with as many examples as leave it at most `limit` tokens, and how many those are.

        The script drops the first example that does not fit and all after it, which comes to the same but for a prompt
        that is too long by no more than the examples' closing rule. One too long without any is returned all the same.

        Args:
            count: returns a text's number of tokens.
        """
        for kept in range(self.num_examples, 0, -1):
            text = self.text(values, kept)
            if count(text) <= limit:
                return text, kept
        return self.text(values, 0), 0


def load_prompt(stage: Stage, source: str, style: Style) -> Prompt:
    """Return the prompt for questions of `source` (``GSM8K``, ``Colored Object``, ...).

    From the repository, or with WHETSTONE_DATA from ``criticbench_prompts/`` there.

    Raises:
        UserError: the file cannot be had, or is no prompt.
    """
    path = f"src/prompt/{stage}/{source}/{FEW_SHOT if stage == 'generation' else FILES[style][stage]}"
    place = Place(Path())
    file = place.resolve(OFFLINE + path if place.data_dir else FOLDER + quote(path))
    separator = DASHES if stage != "generation" else GENERATION_SEPARATORS.get(source, "\nQuestion:")
    return _parsed(file, separator)


@cache
def _parsed(file: Path, separator: str) -> Prompt:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file}: no readable prompt of CriticBench; fetch its src/prompt folder again") from None
    found = {}
    for part in text.split(RULE):
        name = next((name for name in SECTIONS if name in part), None)
        if name:
            found[name] = part.replace(f"{name}\n", "").replace(name, "")
    missing = [name for name in SECTIONS if name not in found]
    if missing:
        raise UserError(f"{file}: no section {missing[0]}; fetch CriticBench's src/prompt folder again")
    instruction, examples, question, answer_format = (found[name] for name in SECTIONS)
    chunks = tuple(examples.split(separator)) if examples.strip() else ("",)
    return Prompt(instruction, chunks, separator, question, answer_format.strip())
