"""MMLU-Pro: ten options, 14 categories, five worked examples; with reasoning as published, or answered directly.

The default asks with the official prompt, reads the letter with the official three steps, counts an answer that cannot
be read as the expected value of a guess, and strips the options, some of which give the answer away. What each official
script and lm-evaluation-harness do otherwise is behind `compat`; ``docs/mmlu-pro.md`` lists it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from data_recipes.errors import UserError, nearest
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.mmlu_pro import (
    CATEGORIES,
    STYLES,
    Compat,
    Mode,
    Question,
    Style,
    clusters,
    fitting,
    prompt,
    read_split,
    row_of,
    style_of,
)
from eval.models import token_counter
from eval.statistics import Items, bootstrap_interval, share

HEADLINE = "micro"

DEFAULTS: dict[str, dict[str, Any]] = {
    "direct": {"max_tokens": 16, "extraction": "direct"},
    "official-local": {"on_failure": "guess", "extraction": "L3"},
    "official-api": {"on_failure": "guess", "extraction": "api", "chat": True, "max_tokens": 4000},
    "lm-eval": {"on_failure": "wrong", "extraction": "L1"},
}
"""What a mode or a compat sets where the experiment file says nothing."""


class Settings(BenchmarkSettings):
    """How MMLU-Pro is asked."""

    max_tokens: int = Field(2048, ge=1)
    """Longest completion, in tokens; 16 for direct answers and 4000 under official-api."""
    chat: bool = False
    """The official local script asks in plain text; true under official-api."""
    mode: Mode = "cot"
    """cot: the model reasons, then answers; direct: it answers at once."""
    num_shots: int = Field(5, ge=0, le=5)
    """Worked examples of the item's category, from the validation split."""
    categories: list[str] = []
    """Which categories are asked; empty: all 14."""
    items_per_category: int = Field(0, ge=0)
    """How many items of each category are asked, spread over it by a hash of their ids; 0: all."""
    styles: list[int] | Literal["all"] = [0]
    """Prompt styles, each asked of every item: 0 is the official prompt, 1 to 24 the tested ones; all: those of the 24
    that fit the mode."""
    compat: Compat = "none"
    """Ask, read and count as the official scripts or lm-evaluation-harness do."""
    max_prompt_tokens: int = Field(2048, ge=0)
    """Examples are left out until the prompt has fewer tokens than this, counted by `tokenizer`; 0: none is."""
    tokenizer: str = ""
    """The model (folder or hub id) whose tokenizer counts a prompt's tokens; empty: no example is left out."""

    @field_validator("categories")
    @classmethod
    def _are_known(cls, given: list[str]) -> list[str]:
        for name in given:
            if name.replace(" ", "_") not in CATEGORIES:
                raise ValueError(f"unknown category {name!r}{nearest(name, CATEGORIES)}")
        return [name.replace(" ", "_") for name in given]

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.compat != "none" and (self.mode != "cot" or self.styles != [0]):
            raise ValueError(f"compat: {self.compat} has one prompt with reasoning; leave out mode and styles")
        if self.compat == "official-local" and self.max_prompt_tokens and not self.tokenizer:
            raise ValueError(
                "compat: official-local leaves examples out of long prompts; set tokenizer to the model that is asked,"
                " or max_prompt_tokens to 0"
            )
        numbers = self.style_numbers()
        if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(STYLES) + 1)):
            raise ValueError(f"styles: give different numbers from 0 to {len(STYLES)}, or all")
        wordy = [number for number in numbers if number and STYLES[number - 1].reasons]
        if self.mode == "direct" and wordy:
            raise ValueError(f"styles: {wordy[0]} asks for reasoning; in direct mode choose among 0-6 and 13-18")
        for key, value in {**DEFAULTS.get(self.mode, {}), **DEFAULTS.get(self.compat, {})}.items():
            if key not in self.model_fields_set:
                setattr(self, key, value)
        return self

    def style_numbers(self) -> list[int]:
        """Return the styles to ask in."""
        if self.styles != "all":
            return self.styles
        return [n for n, style in enumerate(STYLES, start=1) if self.mode == "cot" or not style.reasons]


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the items, style after style, category after category.

    Raises:
        UserError: the data set cannot be had, a record of it is damaged, or a category has no worked example.
    """
    questions = [one.prepared(settings.compat) for one in read_split("test")]
    cluster = clusters(questions)
    chosen = _chosen(questions, settings)
    examples: dict[str, list[Question]] = defaultdict(list)
    for example in read_split("validation") if settings.num_shots else []:
        examples[example.category].append(example.prepared(settings.compat))
    if settings.num_shots and (bare := {one.category for one in chosen} - set(examples)):
        raise UserError(f"mmlu_pro, validation split: no worked example of {min(bare)!r}; set num_shots to 0")
    count = token_counter(settings.tokenizer) if settings.tokenizer and settings.max_prompt_tokens else None
    asked = []
    for number in settings.style_numbers():
        style = style_of(number, settings.mode, settings.compat)
        stop = () if settings.compat == "official-api" else (style.stop,)
        for question in chosen:
            shots = examples[question.category][: settings.num_shots]

            def build(some: Sequence[Question], one: Question = question, style: Style = style) -> str:
                return prompt(one, some, style, settings.mode, settings.compat)

            text, num_shots = build(shots), len(shots)
            if count:
                text, num_shots = fitting(shots, build, count, settings.max_prompt_tokens)
            same = f"mmlu_pro/{cluster[question.id]}"
            asked.append(Item(row_of(question, text, number, cluster=same, num_shots=num_shots), stop=stop))
    return asked


def _chosen(questions: list[Question], settings: Settings) -> list[Question]:
    by_category: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_category[question.category.replace(" ", "_")].append(question)
    chosen = []
    for category in sorted(settings.categories or by_category):
        spread = sorted(by_category[category], key=lambda one: hashlib.sha256(one.id.encode()).digest())
        chosen += sorted(spread[: settings.items_per_category or None], key=lambda one: (len(one.id), one.id))
    return chosen


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return the mean of all categories alike and, of several styles, how far they are apart on the same questions.

    The spread of finite samples is never quite zero: with few items the interval says more than the value.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    rows = {}
    for one in answered:
        scores[one.row.id].append(one.score)
        rows[one.row.id] = one.row
    if not rows:
        return {}
    of_items = Items.of(
        [(row.task, row.id) for row in rows.values()],
        {row.id: row.meta["cluster"] for row in rows.values() if "cluster" in row.meta},
        micro=False,
    )
    macro = share(of_items, np.array([fmean(scores[name]) for name in rows]))
    found = {"macro": Metric(macro.value, macro.low, macro.high, macro.n)}
    if len(settings.style_numbers()) > 1:
        table: dict[str, dict[int, float]] = defaultdict(dict)
        for row in rows.values():
            table[row.meta["question_id"]][row.meta["style"]] = fmean(scores[row.id])
        found |= _sensitivity(list(table.values()), settings.style_numbers())
    return found


def _sensitivity(table: list[dict[int, float]], numbers: list[int]) -> dict[str, Metric]:
    """Return the accuracies of all styles and their spread over the questions that were answered in each of them."""
    values = np.array([[of_style[n] for n in numbers] for of_style in table if len(of_style) == len(numbers)])
    if not len(values):
        return {}
    means = values.mean(axis=0)
    found = {}
    for name, spread in (("prompt sensitivity", np.ptp), ("prompt sensitivity, sd", pstdev)):
        low, high = bootstrap_interval(
            range(len(values)), lambda drawn, spread=spread: float(spread(values[drawn].mean(axis=0)))
        )
        found[name] = Metric(float(spread(means)), low, high, len(values))
    return found | {
        f"style {number}": Metric(float(mean), n=len(values)) for number, mean in zip(numbers, means, strict=True)
    }
