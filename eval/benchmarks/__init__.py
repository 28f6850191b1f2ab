"""Benchmarks: one file each, found by its name.

A benchmark module ``eval/benchmarks/NAME.py`` is named in an experiment file as ``- {type: NAME, ...}`` under
``eval.benchmarks``. It defines::

    class Settings(BenchmarkSettings): ...                  # the keys it takes, validated
    def items(settings, mixture) -> list[Row | Item]: ...   # rows with a prompt, an answer and verifiers

and, where the mean score of its rows is not all there is to say::

    HEADLINE = "micro"                                      # of all items alike; else "macro": of all tasks alike
    def follow_up(settings, answered) -> list[Row | Item]   # what is asked next, after these answers; [] ends it
    def scores(settings, answered) -> Scores                # task -> item -> score, instead of the rows' mean scores
    def metrics(settings, answered) -> dict[str, Metric]    # figures beside the scores

Extraction and scoring belong to the rows' verifiers. A benchmark reads its items through `data_recipes.sources`.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_json
from data_recipes.row import Row
from data_recipes.store import MANIFEST
from eval.verifiers import Verdict

OnFailure = Literal["expected", "wrong", "guess", "guess-10"]


class BenchmarkSettings(BaseModel):
    """Settings every benchmark shares; a benchmark adds its own."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    type: str
    """The name of a file in eval/benchmarks/."""
    name: str = ""
    """What it is called in the run and on the leaderboard; empty: its type. Tells two settings of one type apart."""
    max_tokens: int = Field(48, ge=1)
    """Longest completion, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature; 0: the most likely token."""
    num_samples: int = Field(1, ge=1)
    """How often each item is asked; the scores are averaged."""
    chat: bool = True
    """Ask through the model's chat template; false: the prompt is plain text that the model continues."""
    extraction: str = ""
    """How answers are read: one of the verifier's EXTRACTIONS; empty: its own."""
    on_failure: OnFailure = "expected"
    """What an unparsed answer counts for: the expected value of a guess (0 where there are no options), wrong, or a
    seeded guess among the item's options or among ten letters."""
    strip_reasoning: bool = False
    """Leave out what stands between <think> and </think> before an answer is read."""
    stop_early: bool = False
    """End generation as soon as the first match of the extraction is complete, where the verifier has a finite set of
    such endings; `whetstone score` then refuses extractions for which that is too soon."""

    bits_per_byte: bool = True
    """Also measure how probable the model finds each right answer (a forward pass more for every item)."""

    @property
    def label(self) -> str:
        """What the benchmark is called in the run."""
        return self.name or self.type


SCORE_ONLY = ("extraction", "on_failure", "strip_reasoning")
"""Settings that decide nothing about generation, so stored completions can be scored again under others."""


class OtherModel(BaseModel):
    """A model that is asked in the contestant's place."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)
    model: str
    """A hub id or a folder, such as ``{run}/sft/model``."""
    adapter: str | None = None
    """Folder of a LoRA adapter on top of it."""


@dataclass(frozen=True)
class Item:
    """A row as it is asked; what is None is the benchmark's setting."""

    row: Row
    max_tokens: int | None = None
    temperature: float | None = None
    num_samples: int | None = None
    chat: bool | None = None
    stop: tuple[str, ...] = ()
    """Generation ends before any of these."""
    asked_of: OtherModel | None = None
    """Another model than the contestant's."""


@dataclass(frozen=True)
class Answered:
    """A completion of an item, read and scored."""

    row: Row
    round: int
    """0 for the benchmark's items, 1 for its first follow-up, ..."""
    sample: int
    """Which of the item's samples, from 0."""
    completion: str
    """What the model wrote, reasoning left out where the settings say so."""
    finish_reason: str
    verdict: Verdict
    """Unparsed also where the row names no verifier."""
    score: float
    """The verdict's score; what an unparsed answer counts for is the settings' `on_failure`."""
    num_tokens: int = 0


@dataclass(frozen=True)
class Metric:
    """A figure of a benchmark with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Items it rests on."""
    percent: bool = True
    """A share in [0, 1], shown in percent; false: shown as it is."""


def load_benchmark(name: str) -> ModuleType:
    """Import the benchmark called `name`.

    Raises:
        UserError: there is no such benchmark.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"unknown benchmark {name!r}{nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")


def needed(mixture: Path | None, benchmark: str) -> Path:
    """Return the run's mixture.

    Raises:
        UserError: the experiment has none.
    """
    if mixture is None:
        raise UserError(f"benchmark {benchmark!r} asks the mixture's held-out questions; name a recipe")
    return mixture


def halves_trained_on(mixture: Path | None) -> list[str]:
    """Return the evaluation sets of which the model's mixture read the training half; none without a mixture."""
    return read_json(mixture / MANIFEST)["halves_trained_on"] if mixture else []
