"""What MMLU-Pro asks: its items, its worked examples, the official prompts and the 24 styles tested beside them.

Facts from TIGER-AI-Lab/MMLU-Pro (`evaluate_from_local.py`, `evaluate_from_api.py`, `cot_prompt_lib/`) and
lm-evaluation-harness 0.4.13 (`tasks/mmlu_pro/`). Ours, because the repository leaves it open: how the 24 styles show
reasoning, and the whole of direct answering (`prompt`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.verifiers.mmlu_pro import LETTERS

Compat = Literal["none", "official-local", "official-api", "lm-eval"]
Mode = Literal["cot", "direct"]

CATEGORIES = (
    *("biology", "business", "chemistry", "computer_science", "economics", "engineering", "health"),
    *("history", "law", "math", "other", "philosophy", "physics", "psychology"),
)
SOURCES = {
    "test": {
        "type": "hub",
        "dataset": "TIGER-Lab/MMLU-Pro",
        "split": "test",
        "offline": {"type": "files", "path": "{data}/mmlu_pro/test/*.jsonl"},
    },
    "validation": {
        "type": "hub",
        "dataset": "TIGER-Lab/MMLU-Pro",
        "split": "validation",
        "offline": {"type": "files", "path": "{data}/mmlu_pro/validation_cot.jsonl"},
    },
}
STEPS = "Let's think step by step."


@dataclass(frozen=True)
class Question:
    """An item, or a worked example of the validation split."""

    id: str
    category: str
    text: str
    options: tuple[str, ...]
    answer: str
    """The right option's letter. (``answer_index`` disagrees for item 3983; the letter is right.)"""
    src: str
    reasoning: str
    """The worked example's, beginning "A: Let's think step by step."; an item has none."""

    def prepared(self, compat: Compat) -> "Question":
        """Return the question with its options as they are shown.

        Options "N/A" are dropped (not by lm-eval) and white space around options is stripped (not by the official
        scripts: 470 right options begin with a space, and 5 of 101,963 wrong ones).
        """
        options = self.options if compat == "lm-eval" else tuple(o for o in self.options if o != "N/A")
        if not compat.startswith("official"):
            options = tuple(option.strip() for option in options)
        return replace(self, options=options)


@dataclass(frozen=True)
class Style:
    """A way to put the question. Templates take ``{category}``, ``{question}``, ``{letter}`` and ``{option}``."""

    instruction: str
    question: str
    option: str
    cue: str
    """What the answer is written after."""
    after: str = ""
    """What follows the last cue."""

    @property
    def stop(self) -> str:
        """What a model begins that goes on to another question."""
        head = self.question.partition("{question}")[0].strip()
        return head if len(head) > 2 else f"\n\n{head}"  # "Q:" alone may stand in an answer

    @property
    def reasons(self) -> bool:
        """The instruction asks for reasoning."""
        return "step" in self.instruction


_LOCAL = ("Question:\n{question}\nOptions:\n", "{letter}. {option}\n", "Answer:")
_ABOUT = "The following are multiple choice questions (with answers) about {category}."
_COT = f'{_ABOUT} Think step by step and then finish your answer with "the answer is (X)"'
_CHOICE = " where X is the correct letter choice."
OFFICIAL: dict[Compat, Style] = {
    "none": Style(f"{_COT}{_CHOICE}\n\n\n\n", *_LOCAL),
    "official-local": Style(f"{_COT}{_CHOICE}\n\n\n\n", *_LOCAL),
    "official-api": Style(
        f'{_ABOUT} Think step by step and then output the answer in the format of "The answer is (X)" at the end.\n\n',
        "Question: {question}\nOptions: ",
        "{letter}. {option}\n",
        "Answer:",
        "\n\n",
    ),
    "lm-eval": Style(f"{_COT}{_CHOICE}\n", *_LOCAL),
}
DIRECT = Style(f'{_ABOUT} Finish your answer with "the answer is (X)"{_CHOICE}\n\n\n\n', *_LOCAL)

_FOR_YOU = (
    " Below is a series of example questions (with answers) about {category} for demonstration. You will be given a"
    " question at the end, after the examples, for you to answer."
)
INSTRUCTIONS = (
    "Please read the following multiple-choice questions and provide the most likely correct answer based on the"
    " options given.",
    "You are an expert in {category}." + _FOR_YOU + " Think it step by step, and give your answer at the end.",
    _ABOUT,
    "You are a helpful assistant." + _FOR_YOU + " First give step-by-step reasoning about how to solve the question."
    " Then output the answer.",
)
FORMATS = (
    ("Question: {question}\nOptions:\n", "({letter}) {option}\n", "\nCorrect Answer:"),
    ("**Question**: {question}\nOptions:\n", "({letter}) {option}\n", "\n**Correct Answer**:"),
    ("Q: {question}\nOptions:\n", "({letter}) {option}\n", "\nThe Best Choice: "),
    ("Question:\n{question} ", "{letter}) {option}, ", "\nThe most likely option is "),
    ("Question: {question}\nOptions:\n", "{letter}. {option}\n", "\nYour choice: "),
    ("**Question**: {question} ", "({letter}) {option} ", "\n**Answer**:"),
)
STYLES = tuple(Style(f"{instruction}\n\n", *format) for instruction in INSTRUCTIONS for format in FORMATS)
"""The tested styles 1 to 24: the first instruction with each of the six formats, then the second, ..."""


def style_of(number: int, mode: Mode, compat: Compat = "none") -> Style:
    """Return the official prompt's style (0) or a tested one (1 to 24)."""
    if number:
        return STYLES[number - 1]
    return DIRECT if mode == "direct" else OFFICIAL[compat]


def block(question: Question, style: Style) -> str:
    """Return the question and its options, up to the cue. Options beyond the tenth have no letter and are left out."""
    options = zip(LETTERS, question.options, strict=False)
    return style.question.format(question=question.text) + "".join(
        style.option.format(letter=letter, option=option) for letter, option in options
    )


def prompt(question: Question, examples: Iterable[Question], style: Style, mode: Mode, compat: Compat = "none") -> str:
    """Return the text that a model continues: instruction, worked examples, the question and what its answer begins
    with.

    With reasoning an example's answer is the validation split's, and the model goes on after "Let's think step by
    step."; without it is "The answer is (X).", and the model goes on after the cue.
    """
    cue = style.cue.rstrip()
    parts = [style.instruction.format(category=question.category)]
    for example in examples:
        said = _worked(example, compat) if mode == "cot" else f"The answer is ({example.answer})."
        parts.append(f"{block(example, style)}{cue} {said}\n\n")
    parts.append(f"{block(question, style)}{cue}" + (f" {STEPS}" if mode == "cot" else "") + style.after)
    return "".join(parts)


def _worked(example: Question, compat: Compat) -> str:
    if compat == "lm-eval":
        return f"{STEPS} " + example.reasoning.replace(f"A: {STEPS} ", "")
    return example.reasoning.removeprefix("A: ")


def fitting(
    examples: Sequence[Question], build: Callable[[Sequence[Question]], str], count: Callable[[str], int], limit: int
) -> tuple[str, int]:
    """Return the prompt with as many examples as leave it fewer than `limit` tokens, and how many those are.

    As `evaluate_from_local.py` (there 4,096 - 2,048 tokens). A prompt that is too long without any example is returned
    all the same; the script would go on with a negative number of them, which Python counts from the end.

    Args:
        build: returns the prompt with the given examples.
        count: returns a prompt's number of tokens.
    """
    for shots in range(len(examples), 0, -1):
        text = build(examples[:shots])
        if count(text) < limit:
            return text, shots
    return build(()), 0


def read_split(split: Literal["test", "validation"]) -> list[Question]:
    """Return a split's questions, from the hub or, offline, from WHETSTONE_DATA.

    Raises:
        UserError: the split cannot be had, or a record of it is no MMLU-Pro question.
    """
    where = f"mmlu_pro, {split} split"
    questions: dict[str, Question] = {}
    for record in open_source(SOURCES[split], Place(Path.cwd()), where).records():
        question = question_of(record, f"{where}: record {record['key']}")
        if question.id in questions:
            raise UserError(f"{where}: record {record['key']}: question_id {question.id} a second time; remove one")
        questions[question.id] = question
    return list(questions.values())


def question_of(record: dict[str, Any], where: str) -> Question:
    """Return the question in a record of the data set.

    Raises:
        UserError: a column is missing, or the answer is no letter of an option.
    """
    for name, kind in (("question", str), ("options", list | tuple), ("answer", str), ("category", str)):
        if not isinstance(record.get(name), kind) or not record[name]:
            raise UserError(f"{where}: no usable column {name!r}; mend that record")
    options = tuple(record["options"])
    if not all(isinstance(option, str) for option in options) or len(options) > len(LETTERS):
        raise UserError(f"{where}: not at most {len(LETTERS)} options that are text; mend that record")
    if record["answer"] not in LETTERS[: len(options)] or len(record["answer"]) != 1:
        last = LETTERS[len(options) - 1]
        raise UserError(f"{where}: the answer {record['answer']!r:.40} is no letter from A to {last}; mend that record")
    return Question(
        id=str(record.get("question_id", record.get("key", ""))),
        category=record["category"],
        text=record["question"],
        options=options,
        answer=record["answer"],
        src=str(record.get("src") or ""),
        reasoning=str(record.get("cot_content") or ""),
    )


def row_of(question: Question, text: str, style: int = 0, **meta: Any) -> Row:
    """Return the row that asks `question` with the prompt `text`, in that style; `meta` is added to the row's."""
    place = LETTERS.index(question.answer)
    return Row(
        id=f"mmlu_pro/{question.id}" + (f"/style-{style}" if style else ""),
        task=f"mmlu_pro/{question.category.replace(' ', '_')}",
        kind="domain",
        messages=[Message(role="user", content=text)],
        answer=question.answer,
        verifiers=["mmlu_pro"],
        meta={
            "options": list(question.options),
            "gold_text": question.options[place] if place < len(question.options) else "",
            "question": question.text,
            "question_id": question.id,
            "style": style,
            "category": question.category,
            "src": question.src,
            "licence": "MIT",
            **meta,
        },
    )


def clusters(questions: Iterable[Question]) -> dict[str, str]:
    """Return question id -> the id of the first question with the same words and options (159 occur twice)."""
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    return {one.id: first.setdefault((one.text, one.options), one.id) for one in questions}
