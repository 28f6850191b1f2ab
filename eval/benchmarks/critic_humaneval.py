"""Critic-HumanEval: does a program for a HumanEval problem pass its tests? As many that do as that do not.

The protocol is that of "Critique Ability of Large Language Models" (arXiv 2310.04815; see `critic_gsm8k`), whose items
were never published. The model first writes programs itself, the sandbox says which are right, and the model then
judges its own programs; with ``samples`` all models judge the same programs from a file. The convincing wrong program
is the one that holds most assertions of the tests, as in section 3.2.1; that the certainty of a problem is |2p - 1| for
the share p of its programs that pass is our design.
"""

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

from pydantic import Field

from data_recipes.errors import UserError
from data_recipes.files import fingerprint, read_jsonl
from data_recipes.progress import track
from data_recipes.row import Row
from data_recipes.sources import Place
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.benchmarks.humaneval import problems
from eval.critique import Example, Sample, asked_for_verdict, balanced, spread
from eval.critique_metrics import mean_score, present, verdict_metrics
from eval.statistics import Scores
from eval.verifiers import Verdict, code

TASK = "critic_humaneval"
PRINCIPLES = """\
Here are Python functions written for a description, each with a critique. A critique follows the program on the \
examples of the description and on edge cases: does it return what is asked, for every input? A response counts as \
correct only if it would pass all tests of the description. The critique ends with the line "Judgment: correct" or \
"Judgment: incorrect"."""
EXAMPLES = (
    Example(
        'def middle(values):\n    """Return the middle element of a list of odd length.\n    >>> middle([3, 9, 4])\n'
        '    9\n    """',
        "```python\ndef middle(values):\n    return values[len(values) // 2]\n```",
        "Three elements give 3 // 2 = 1, and values[1] is 9, as in the example. One element gives the index 0. A list"
        " of odd length n has its middle at n // 2, so it always holds.",
        "correct",
    ),
    Example(
        'def count_capitalised(text):\n    """Return how many words of text begin with an upper-case letter.\n'
        '    >>> count_capitalised("Anna met Bo")\n    2\n    """',
        "```python\ndef count_capitalised(text):\n    return sum(word.isupper() for word in text.split())\n```",
        'isupper asks whether all letters of a word are upper case. "Anna".isupper() and "Bo".isupper() are False, so'
        " the example gives 0, not 2.",
        "incorrect",
    ),
    Example(
        'def squeeze(text):\n    """Replace every run of spaces by a single space.\n    >>> squeeze("a   b c")\n'
        '    \'a b c\'\n    """',
        '```python\ndef squeeze(text):\n    while "  " in text:\n        text = text.replace("  ", " ")\n'
        "    return text\n```",
        "As long as two spaces stand together they are made one, so no run is left at the end; single spaces are never"
        " touched. A text without spaces, or an empty one, comes back as it is.",
        "correct",
    ),
    Example(
        'def last_place(values, wanted):\n    """Return the last index of wanted in values, or -1.\n'
        '    >>> last_place([1, 2, 1], 1)\n    2\n    """',
        "```python\ndef last_place(values, wanted):\n    for i in range(len(values) - 1, 0, -1):\n"
        "        if values[i] == wanted:\n            return i\n    return -1\n```",
        "It goes through the indices from the end, which gives 2 for the example. But the range ends before 0, so the"
        " first element is never looked at: last_place([5], 5) gives -1 instead of 0.",
        "incorrect",
    ),
)


class Settings(BenchmarkSettings):
    """The paper's settings for critiques: examples, 8 runs at temperature 0.6."""

    max_tokens: int = Field(384, ge=1)
    temperature: float = Field(0.6, ge=0)
    num_samples: int = Field(8, ge=1)
    num_shots: int = Field(len(EXAMPLES), ge=0, le=len(EXAMPLES))
    """Worked critiques before the question; 0: the bare question, in the words that the critique stage trains with."""
    items: int = Field(0, ge=0)
    """How many problems to take programs from, spread over the set; 0: all."""
    num_answers: int = Field(10, ge=2)
    """How many programs the model writes for each problem."""
    answer_tokens: int = Field(512, ge=1)
    """Longest program, in tokens."""
    answer_temperature: float = Field(0.8, ge=0)
    samples: str = ""
    """JSON Lines with ``task_id`` (or ``id``: HumanEval/0, ...) and ``completion``, whose programs are judged instead;
    empty: the model writes its own."""


@dataclass(frozen=True)
class Program:
    """A program for a problem and what its tests say."""

    text: str
    right: bool
    held: float
    """The share of the assertions that hold."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the problems to write programs for, or the critiques of those in the file.

    Raises:
        UserError: the problems or the programs cannot be had, or the programs of the file do not divide into right and
            wrong ones.
    """
    rows = problems(continuation=not settings.chat and not settings.samples)
    rows = spread(rows, settings.items, lambda row: row.id)
    if settings.samples:
        asked = _critiques(settings, rows, _of_file(settings.samples, rows))
        if not asked:
            raise UserError(f"{settings.samples}: no right or no wrong program in it, so nothing can be balanced")
        return asked
    return [
        Item(
            row.model_copy(update={"task": f"{TASK}/programs"}),
            max_tokens=settings.answer_tokens,
            temperature=settings.answer_temperature,
            num_samples=settings.num_answers,
            stop=() if settings.chat else tuple(row.meta["stops"]),
        )
        for row in rows
    ]


def follow_up(settings: Settings, answered: list[Answered]) -> list[Item]:
    """Return the critiques of the model's own programs; none where all are right or all are wrong."""
    if any(one.row.kind == "critique" for one in answered):
        return []
    written: dict[str, list[Program | None]] = defaultdict(list)
    rows = {}
    for one in sorted(answered, key=lambda one: (one.row.id, one.sample)):
        rows[one.row.id] = one.row
        written[one.row.id].append(_program(one.verdict, one.row))
    return _critiques(settings, list(rows.values()), written)


def _program(verdict: Verdict, row: Row) -> Program | None:
    if verdict.answer is None or verdict.score is None:
        return None
    if verdict.score == 1.0:
        return Program(verdict.answer, True, 1.0)
    ended = code.outcome(verdict.answer, row)
    return Program(verdict.answer, False, ended.passed / max(1, ended.passed + ended.failed))


def _of_file(given: str, rows: list[Row]) -> dict[str, list[Program | None]]:
    """Run every program of the file on its problem's tests."""
    by_number = {row.id.rpartition("/")[2]: row for row in rows}
    known = [row.id.rpartition("/")[2] for row in problems()]
    path = Place(Path.cwd()).resolve(given)
    asked = []
    for line_number, line in enumerate(read_jsonl(path), start=1):
        name, completion = line.get("task_id", line.get("id")), line.get("completion")
        where = f"{path}, line {line_number}"
        if not isinstance(name, str) or not isinstance(completion, str):
            raise UserError(f"{where}: no texts task_id (or id) and completion; mend or delete that line")
        number = name.casefold().removeprefix("humaneval/")
        if number not in known:
            names = f"HumanEval/0 to HumanEval/{len(known) - 1}"
            raise UserError(f"{where}: no problem {name!r:.60}, they are {names}; mend or delete that line")
        if number in by_number:
            asked.append((by_number[number], completion.encode(errors="replace").decode()))

    def judged(one: tuple[Row, str]) -> tuple[str, Program | None]:
        row, completion = one
        program = code.read(completion, row)
        return row.id, None if program is None else _program(Verdict(code.score(program, row), program), row)

    found: dict[str, list[Program | None]] = defaultdict(list)
    with ThreadPoolExecutor(cpu_count()) as pool:
        for row_id, program in track(pool.map(judged, asked), f"run the programs of {path.name}", len(asked)):
            found[row_id].append(program)
    return found


def _critiques(settings: Settings, rows: list[Row], written: dict[str, list[Program | None]]) -> list[Item]:
    """Return critiques of a right and the most convincing wrong program a problem; of problems with only right and
    only wrong ones one each, in pairs."""
    distinct = {
        row.id: sorted({one for one in written.get(row.id, []) if one}, key=lambda one: (-one.held, _hash(one.text)))
        for row in rows
    }
    samples = {
        name: [Sample(one.text, Verdict(float(one.right), one.text), number) for number, one in enumerate(programs)]
        for name, programs in distinct.items()
    }
    by_id = {row.id: row for row in rows}
    chosen = []
    for name, sample in balanced(samples, 2 * len(rows)):
        passed = sum(one is not None and one.right for one in written[name]) / len(written[name])
        chosen.append(
            asked_for_verdict(
                f"{TASK}/{name.rpartition('/')[2]}/{fingerprint(sample.text)}",
                TASK,
                by_id[name].meta["prompt_code"],
                f"```python\n{sample.text.strip()}\n```",
                sample.verdict.score == 1.0,
                principles=PRINCIPLES,
                examples=EXAMPLES[: settings.num_shots],
                cluster=name,
                certainty=abs(2 * passed - 1),
                held=distinct[name][sample.seed].held,
                licence=by_id[name].meta["licence"],
            )
        )
    return chosen


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return the mean score of every critique; the programs themselves are not counted."""
    from eval.scoring import mean_scores

    return mean_scores(one for one in answered if one.row.kind == "critique")


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return F1 of the wrong class, accuracy by class and by certainty, and how many programs were right."""
    programs = [one for one in answered if one.row.kind != "critique"]
    critiques = [one for one in answered if one.row.kind == "critique"]
    return present({"programs that pass": mean_score(programs)}) | verdict_metrics(critiques)
