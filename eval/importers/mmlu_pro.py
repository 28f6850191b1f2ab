"""MMLU-Pro output files, as its repository publishes them and its scripts write them.

A file lists records with ``question_id``, ``question``, ``options``, ``answer``, ``category``, ``pred`` and the raw
text under ``model_outputs`` or ``generated_text``. What a record says of its question is what the model was asked, and
wins over the data set of today: 48 questions changed between releases, 33 of them their answer. The prompt around the
question is not in the file, so a row's prompt is the question alone.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_recipes.errors import UserError
from data_recipes.row import Row
from eval.importers import read_entries
from eval.mmlu_pro import OFFICIAL, Question, block, row_of
from eval.verifiers.mmlu_pro import EXTRACTIONS, LETTERS

TEXTS = ("model_outputs", "generated_text", "output")
"""What the raw text is called: by the scripts, in most published files, in re-packed ones."""


class Output(NamedTuple):
    """A model's answer to a question."""

    row: Row
    completion: str
    stored_pred: str | None
    """The letter that the file says was read from it."""


def read_outputs(path: Path, items: Iterable[Row] = ()) -> tuple[list[Output], Counter[str]]:
    """Read an output file: a JSON list or JSON Lines, maybe gzipped or in a zip archive.

    Args:
        items: rows of the benchmark, for files that leave out the question, its options or its category.

    Returns:
        The outputs, and how many entries were passed over, by reason.

    Raises:
        UserError: the file cannot be read, or holds no output at all.
    """
    known = {row.meta["question_id"]: row for row in items}
    outputs: dict[str, Output] = {}
    passed_over: Counter[str] = Counter()
    for entry in read_entries(path):
        made = _output(entry, known)
        if isinstance(made, str):
            passed_over[made] += 1
        elif made.row.id in outputs:
            passed_over["a second answer to a question"] += 1
        else:
            outputs[made.row.id] = made
    if not outputs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in passed_over.most_common())
        raise UserError(
            f"{path}: no MMLU-Pro output in it ({reasons}); give a list of records with question_id, answer and one of"
            f" {', '.join(TEXTS)}"
        )
    return list(outputs.values()), passed_over


def _output(entry: Any, known: dict[str, Row]) -> Output | str:
    """Return the entry's output, or why it is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("question_id"), int | str):
        return "without a question_id"
    text = next((entry[name] for name in TEXTS if isinstance(entry.get(name), str)), None)
    if text is None:
        return "without a text"
    row = known.get(str(entry["question_id"]))
    meta = row.meta if row else {}
    question = entry.get("question", meta.get("question"))
    options = entry.get("options", meta.get("options"))
    category = entry.get("category", meta.get("category"))
    answer = entry.get("answer", row.answer if row else None)
    if not isinstance(answer, str) or len(answer) != 1 or answer not in LETTERS:
        return "with an answer that is no letter"
    if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
        return "of an unknown question, without its options"
    if not isinstance(question, str) or not isinstance(category, str) or not category:
        return "of an unknown question, without its text or category"
    src = str(entry.get("src", meta.get("src", "")))
    asked = Question(str(entry["question_id"]), category, question, tuple(options), answer, src, "")
    extra = {"cluster": meta["cluster"]} if "cluster" in meta else {}
    pred = entry.get("pred")
    made = row_of(asked, block(asked, OFFICIAL["none"]), **extra)
    return Output(made, text, pred if isinstance(pred, str) and pred else None)


def letters(outputs: Sequence[Output], extraction: str) -> list[str | None]:
    """Return the letter that an extraction reads from every output."""
    extract = EXTRACTIONS[extraction]
    return [extract(output.completion, output.row) for output in outputs]


def accuracies(
    outputs: Sequence[Output], read: Sequence[str | None], failed: Callable[[Row], float]
) -> tuple[float, float]:
    """Return the accuracy over all outputs (micro) and over all categories alike (macro), in percent.

    Args:
        read: the letters read; `failed` is what a missing one counts for.
    """
    by_task: dict[str, list[float]] = {}
    for output, letter in zip(outputs, read, strict=True):
        score = failed(output.row) if letter is None else float(letter == output.row.answer)
        by_task.setdefault(output.row.task, []).append(score)
    micro = sum(sum(scores) for scores in by_task.values()) / len(outputs)
    macro = sum(sum(scores) / len(scores) for scores in by_task.values()) / len(by_task)
    return 100 * micro, 100 * macro


def official_figures(outputs: Sequence[Output], seed: int = 12345) -> dict[str, float]:
    """Return the accuracies that the official scripts' policies give, and the shares without a letter, all in percent.

    ``stored`` is the letter in the file, ``L1`` the first pattern, ``L3`` all three (`compute_accuracy.py` calls them
    l1 and l2). ``guess-10`` draws a letter from A to J whatever the item has, in the file's order from one generator,
    first for L1 and then for L3, as `compute_accuracy.py` does.
    """

    def wrong(row: Row) -> float:
        return 0.0

    def expected(row: Row) -> float:
        return 1 / len(row.meta["options"])

    generator = random.Random(seed)

    def guess(row: Row) -> float:
        return float(generator.choice(LETTERS) == row.answer)

    stored = [output.stored_pred for output in outputs]
    figures = {"stored, wrong": accuracies(outputs, stored, wrong)[0]}
    figures["stored, expected"], figures["stored, expected, macro"] = accuracies(outputs, stored, expected)
    for name in ("L1", "L3"):
        read = letters(outputs, name)
        figures[f"{name}, wrong"] = accuracies(outputs, read, wrong)[0]
        figures[f"{name}, guess-10"] = accuracies(outputs, read, guess)[0]
        figures[f"{name}, unparsed"] = 100 * read.count(None) / len(outputs)
    return figures
