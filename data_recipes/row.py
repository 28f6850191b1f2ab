"""The one row that sources, recipes, trainers, RL and benchmarks all speak, and its checks."""

import re
import unicodedata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["instruction", "critique", "domain"]


class Message(BaseModel):
    """One chat turn."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class Row(BaseModel):
    """A task's example: what is asked, what a good answer is, and who judges it."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1)
    """Stable: from the source, its revision and its own key for the row."""
    task: str = Field(min_length=1)
    """The unit of weights, losses, rewards and metrics, such as ``gsm8k`` or ``critique/gsm8k``."""
    kind: Kind
    messages: list[Message] = []
    """Chat turns; the last assistant turn is the SFT target, what precedes it is the prompt."""
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    answer: str | None = None
    verifiers: list[str] = []
    """Names of the verifiers that judge a completion against `answer`; empty: not judgeable."""
    meta: dict[str, Any] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> "Row":
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("chosen and rejected come together")
        if self.chosen is None and not any(message.role == "user" for message in self.messages):
            raise ValueError("messages hold no user turn")
        if self.verifiers and self.answer is None:
            raise ValueError("verifiers are named but there is no answer to judge against")
        return self

    @property
    def prompt(self) -> list[dict[str, str]]:
        """The turns before the target, as chat-template input."""
        turns = self.messages[:-1] if self.target is not None else self.messages
        return [turn.model_dump() for turn in turns]

    @property
    def target(self) -> str | None:
        """The last assistant turn's text, or None where the row has none."""
        return self.messages[-1].content if self.messages and self.messages[-1].role == "assistant" else None

    @property
    def question(self) -> str:
        """The last user turn's text."""
        return next(turn.content for turn in reversed(self.messages) if turn.role == "user")


def normalise(text: str) -> str:
    """Fold case, Unicode forms and white space, so that two spellings of one question compare equal.

    Punctuation stays: in ``3 - 2`` and ``3 + 2`` it is the question.
    """
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
