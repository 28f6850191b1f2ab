"""CriticBench: can a model answer a question, tell a right response from a wrong one, and correct it?

Lin et al. 2024 (arXiv 2402.14809; code and prompts github.com/CriticBench/CriticBench, MIT; items on the hub,
llm-agents/CriticBench). Three tasks a record: *generation* of an answer, *critique* of the given response, *correction*
of it by the model's own critique. Plain text, greedy, 512 tokens, the published prompts and stop strings; where a
tokenizer is named to count with, examples are dropped from the end of a prompt that leaves no room. The figures are
accuracy for generation and correction, and for critique the F1 of the class "wrong", pooled over all records.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_recipes.errors import UserError, nearest
from data_recipes.files import fingerprint
from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.criticbench_prompts import Stage, Style, load_prompt
from eval.critique_metrics import f1, mean_score, present, ratio
from eval.models import token_counter
from eval.program_tests import python_tests
from eval.verifiers.criticbench import CODE_SOURCES

ITEMS = {
    "type": "hub",
    "dataset": "llm-agents/CriticBench",
    "split": "test",
    "offline": {"type": "files", "path": "{data}/criticbench/test.jsonl"},
}
SOURCES = (
    *("GSM8K", "MATH", "AQuA", "TabMWP", "CSQA", "AmbigNQ", "StrategyQA", "HotpotQA"),
    *("Penguins", "Colored Object", "Date", "MBPP", "HumanEval", "Object Counting", "Repeat Copy"),
)
"""The 15 data sets."""
STOPS = (
    "\n\nQuestion:",
    "\n\nTable:",
    "\n\n---",
    "\n\nYou are an expert Python programmer",
    "\nAnalysis and verdict:",
)


class Settings(BenchmarkSettings):
    """The published protocol."""

    max_tokens: int = 512
    chat: bool = False
    tasks: Literal["GQC", "QC", "G", "Q"] = "GQC"
    """What is asked: generation (G), critique (Q), correction by the model's own critique (C)."""
    prompt: Style = "fs"
    """Few-shot, or without examples asking for a verdict in JSON (zs-crit-cot) or in brackets (zs-crit-ao-1 to 3)."""
    context: int = Field(4096, ge=1)
    """Examples are left out until prompt and completion have at most this many tokens, counted by `tokenizer`."""
    tokenizer: str = ""
    """The model (folder or hub id) whose tokenizer counts a prompt's tokens; empty: no example is left out."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the generation and critique tasks.

    Raises:
        UserError: the records, the prompts or the tokenizer cannot be had, or a record lacks something.
    """
    source = open_source(ITEMS, Place(Path()), "criticbench")
    make = _Maker(settings)
    asked = []
    for record in source.records():
        about = _checked(record, f"criticbench: record {record['key']}")
        asked += [make.item(stage, about) for stage in ("generation", "critique") if _LETTERS[stage] in settings.tasks]
    return asked


_LETTERS = {"generation": "G", "critique": "Q", "correction": "C"}


def _checked(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return what every task about a record needs to know.

    Raises:
        UserError: a column is missing, or holds something else.
    """
    for name in ("id", "question", "question_source", "question_type", "response", "response_label", "answer"):
        if record.get(name) is None:
            raise UserError(f"{where} has no {name!r}; fetch llm-agents/CriticBench again")
    source, label, answers = str(record["question_source"]), record["response_label"], record["answer"]
    if source not in SOURCES:
        raise UserError(f"{where}: unknown question_source {source!r:.60}{nearest(source, SOURCES)}")
    if label not in (True, False):
        raise UserError(f"{where}: response_label is {label!r:.40}, not true or false; fetch the set again")
    answers = [str(one) for one in (answers if isinstance(answers, list) else [answers])]
    if not answers:
        raise UserError(f"{where}: its list of answers is empty; fetch the set again")
    return {
        "record": str(record["id"]),
        "source": source,
        "type": str(record["question_type"]),
        "question": str(record["question"]),
        "response": str(record["response"]),
        "right": bool(label),
        "answers": answers,
        "cluster": fingerprint(str(record["question"])),
        "licence": "MIT",
        **({"tests": python_tests(answers[0], where)} if source in CODE_SOURCES else {}),
    }


class _Maker:
    """Makes tasks of records, with the prompts read once."""

    def __init__(self, settings: Settings) -> None:
        self._prompt = cache(partial(load_prompt, style=settings.prompt))
        self._count = token_counter(settings.tokenizer) if settings.tokenizer else None
        self._limit = settings.context - settings.max_tokens

    def item(self, stage: Stage, about: dict[str, Any], critique: str = "", sample: int = 0) -> Item:
        """Return one task about a record; a correction by a critique, which was the critique task's `sample`."""
        prompt = self._prompt(stage, about["source"])
        values = {"question": about["question"], "solution": about["response"], "critique": critique}
        text, num_examples = prompt.text(values), prompt.num_examples
        if self._count:
            text, num_examples = prompt.fitting(values, self._count, self._limit)
        row = Row(
            id=f"criticbench/{stage}/{about['record']}" + (f"/{sample}" if sample else ""),
            task=f"criticbench/{stage}/{about['type']}",
            # (bits per byte are measured of domain rows: a program has no one right text)
            kind="domain" if stage == "generation" and about["source"] not in CODE_SOURCES else "critique",
            messages=[Message(role="user", content=text)],
            answer=_VERDICTS[about["right"]] if stage == "critique" else about["answers"][0],
            verifiers=["criticbench"],
            meta={
                **about,
                "stage": stage,
                "answer_format": prompt.answer_format,
                "num_examples": num_examples,
                **({"options": list(_VERDICTS.values())} if stage == "critique" else {}),
            },
        )
        return Item(row, stop=STOPS, num_samples=1 if stage == "correction" else None)


_VERDICTS = {True: "correct", False: "wrong"}
_RECORD = ("record", "source", "type", "question", "response", "right", "answers", "cluster", "licence", "tests")
"""The keys of a row's meta that tell of its record."""


def follow_up(settings: Settings, answered: list[Answered]) -> list[Item]:
    """Return the correction of every response that has been criticised, by that critique."""
    if "C" not in settings.tasks or _stage(answered, "correction"):
        return []
    make = _Maker(settings)
    asked = []
    for one in _stage(answered, "critique"):
        about = {key: one.row.meta[key] for key in _RECORD if key in one.row.meta}
        asked.append(make.item("correction", about, one.completion, one.sample))
    return asked


def _stage(answered: list[Answered], stage: Stage) -> list[Answered]:
    return [one for one in answered if one.row.meta["stage"] == stage]


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return the published figures over all records and by type, and what correction mends and spoils.

    ``critique F1`` takes "wrong" as the positive class. An unread verdict misses a wrong response and raises no false
    alarm; under ``extraction: compat`` it counts as the opposite of the truth, as in the repository.
    ``mended`` is the share of wrong responses that the correction makes right, ``spoilt`` of right ones made wrong.
    """
    generated, criticised, corrected = (_stage(answered, stage) for stage in _LETTERS)
    found = {
        "generation": mean_score(generated),
        "critique F1": _f1_of_wrong(settings, criticised),
        "correction": mean_score(corrected),
        "correction, mended": mean_score([one for one in corrected if not one.row.meta["right"]]),
        "correction, spoilt": ratio([one for one in corrected if one.row.meta["right"]], lambda one: 1 - one.score),
    }
    for kind in sorted({one.row.meta["type"] for one in answered}):
        of_kind = [one for one in criticised if one.row.meta["type"] == kind]
        found[f"critique F1, {kind}"] = _f1_of_wrong(settings, of_kind)
    return present(found)


def _f1_of_wrong(settings: Settings, criticised: list[Answered]) -> Metric | None:
    opposite = settings.extraction == "compat"

    def found(one: Answered) -> bool:
        if one.verdict.answer is None:
            return opposite and one.row.meta["right"]
        return one.verdict.answer == "wrong"

    return f1(criticised, found, lambda one: not one.row.meta["right"])
