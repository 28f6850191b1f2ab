"""BIG-Bench Mistake: which step of a chain of thought is the first wrong one, if any?

The protocol is the direct, trace-level one of "LLMs cannot find reasoning errors, but can correct them!" (arXiv
2311.08516): the whole chain, three examples of the task, and "No" or the number of the first wrong thought for an
answer, which has to be exact. The words and the examples are ours. All chains are PaLM 2's.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from data_recipes.validation import parse_yaml
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.critique import spread
from eval.critique_metrics import f1, mean_score, present, ratio
from eval.halved_sets import records_of, required

SET = "bigbench_mistake"
HEADLINE = "macro"
RULE = """Each of these chains of thought may hold a mistake. The answer is "No" if every thought in it is right, or \
else the number of the first wrong thought."""
ASK = 'Is there a mistake? Answer with "No", or with the number of the first wrong thought only.'
TASKS = {
    "word_sorting": "Sort these words alphabetically: {}",
    "tracking_shuffled_objects": "{}",
    "logical_deduction": "{}",
    "multistep_arithmetic": "Work out: {}",
    "dyck_languages": "Close the brackets that are still open, in the right order: {}",
}
"""How each task is put; three of the five sets give the bare input."""
EXAMPLES = Path(__file__).parent / "bigbench_mistake_examples.yaml"


class Settings(BenchmarkSettings):
    """A number is a short answer."""

    max_tokens: int = Field(16, ge=1)
    num_shots: int = Field(3, ge=0, le=3)
    """Examples of the task before the question; the paper's are 3."""
    items: int = Field(0, ge=0)
    """How many chains to ask about, spread over the tasks; 0: all."""
    longest: int = Field(0, ge=0)
    """Leave out prompts of more characters than this; 0: none. Three of the 2,186 have more than 10,000, the longest
    67,537, which few models have room for."""
    full: bool = False
    """Ask about the whole set; refused where the model was trained on half of it."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return a question a chain; its answer is the number of the first wrong thought, or ``none``.

    Raises:
        UserError: the chains cannot be had, or all are asked of a model trained on half of them.
    """
    examples = parse_yaml(EXAMPLES.read_text(encoding="utf-8"), EXAMPLES.name)
    shots = {
        task: [_chain(task, one["question"], one["thoughts"], one["answer"]) for one in shown[: settings.num_shots]]
        for task, shown in examples.items()
    }
    records = records_of(SET, "input", mixture, settings.full)
    made = [_item(record, shots) for record in records]
    made = [item for item in made if not settings.longest or len(item.row.question) <= settings.longest]
    return spread(made, settings.items, lambda item: item.row.id)


def _item(record: dict[str, Any], shots: dict[str, list[str]]) -> Item:
    asked, steps, _ = required(record, SET, input=str, steps=list, mistake_index=(int, type(None)))
    index = record["mistake_index"]
    file, _, line = record["key"].rpartition(":")
    task = file.rpartition("/")[2].partition(".")[0]
    if task not in TASKS:
        raise UserError(f"{SET}: record {record['key']}: not a file of {', '.join(TASKS)}; give it its published name")
    if not all(isinstance(step, str) for step in steps) or not (index is None or 0 <= index < len(steps)):
        raise UserError(f"{SET}: record {record['key']}: mistake_index {index} is of no step; mend that record")
    row = Row(
        id=f"{SET}/{task}/{line}",
        task=f"{SET}/{task}",
        kind="critique",
        messages=[Message(role="user", content="\n\n".join([RULE, *shots[task], _chain(task, asked, steps, "")]))],
        answer="none" if index is None else str(index + 1),
        verifiers=["step"],
        meta={"question": asked, "num_steps": len(steps), "licence": "Apache-2.0"},
    )
    return Item(row, stop=("\n\nQuestion:",) if shots[task] else ())


def _chain(task: str, asked: str, steps: list[str], answer: str) -> str:
    thoughts = [f"Thought {number}: {step.strip()}" for number, step in enumerate(steps, start=1)]
    question = f"Question: {TASKS[task].format(asked.strip())}"
    return "\n".join([question, *thoughts, ASK, f"Answer: {answer}"]).strip()


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return how well mistakes are noticed at all, and how well they are located where there is one.

    The positive class of F1 is a chain with a mistake. An unparsed answer notices nothing and is right about nothing.
    """
    flawed = [one for one in answered if one.row.answer != "none"]
    found = {
        "mistake noticed or not, accuracy": ratio(
            answered,
            lambda one: one.verdict.answer is not None and (one.verdict.answer == "none") == (one.row.answer == "none"),
        ),
        "mistake noticed, F1": f1(
            answered, lambda one: one.verdict.answer not in (None, "none"), lambda one: one.row.answer != "none"
        ),
        "located, of chains with a mistake": mean_score(flawed),
        "accuracy on chains without a mistake": mean_score([one for one in answered if one.row.answer == "none"]),
    }
    for task in TASKS:
        of_task = [one for one in flawed if one.row.task == f"{SET}/{task}"]
        found[f"located, of chains with a mistake, {task}"] = mean_score(of_task)
    return present(found)
