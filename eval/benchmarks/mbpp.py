"""MBPP: short Python functions from a sentence and three assertions, judged by these assertions in the sandbox.

"Program Synthesis with Large Language Models" (arXiv 2108.07732): task ids 11 to 510 are the test set; tasks 2, 3 and 4
are the examples of its prompt, which `num_shots` puts before the question in the same words, in a chat or (with
``chat: false``) as one text. As published, the question shows the assertions that judge.
"""

import ast
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.benchmarks import BenchmarkSettings, Item
from eval.critique import spread
from eval.halved_sets import required
from eval.protected import SETS, evaluation_sets
from eval.sandbox import SandboxError, names_used

HEADLINE = "micro"
TEST = range(11, 511)
EXAMPLES = (2, 3, 4)
QUESTION = """\
You are an expert Python programmer, and here is your task: {} Your code should pass these tests:

{}"""
CHAT = "{}\n\nAnswer with the function in one fenced block of code."
FENCED = "```python\n{}\n```"
BEGIN, DONE = "\n[BEGIN]\n", "\n[DONE]"


class Settings(BenchmarkSettings):
    """``items`` bounds how many problems are asked, spread over the set; 0: all."""

    max_tokens: int = Field(512, ge=1)
    items: int = Field(0, ge=0)
    num_shots: int = Field(3, ge=0, le=len(EXAMPLES))
    """Solved tasks before the question."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return the problems of the test set.

    Raises:
        UserError: the set cannot be had, or is not as published.
    """
    rows = spread(
        problems(continuation=not settings.chat, num_shots=settings.num_shots), settings.items, lambda row: row.id
    )
    return [Item(row, stop=() if settings.chat else (DONE.strip(),)) for row in rows]


def problems(continuation: bool = False, num_shots: int = 0) -> list[Row]:
    """Return the test set as rows that the verifier `code` judges.

    Args:
        continuation: one text up to where the code begins, rather than a chat.
        num_shots: solved tasks before each question.

    Raises:
        UserError: the set cannot be had, or is not as published.
    """
    where = f"{SETS.name}, tasks.mbpp"
    task = evaluation_sets().tasks["mbpp"]
    turns: list[Message] = []
    if num_shots:
        known = {record["task_id"]: record for record in _records({**task.source, "split": "prompt"}, where)}
        missing = [number for number in EXAMPLES[:num_shots] if number not in known]
        if missing:
            raise UserError(f"{where}: task {missing[0]}, an example of the prompt, is missing; fetch the set again")
        turns = [turn for number in EXAMPLES[:num_shots] for turn in _turns(known[number], where)]
    rows = []
    for record in _records(task.source, where):
        if record["task_id"] in TEST:
            rows.append(_row(record, turns, continuation, where, task.licence))
    return rows


def _records(source: dict[str, Any], where: str) -> list[dict[str, Any]]:
    records = list(open_source(source, Place(SETS.parent), where, SETS, ("tasks", "mbpp", "source")).records())
    for record in records:
        required(record, where, task_id=int, text=str, code=str, test_setup_code=str, test_list=list)
    return records


def _turns(record: dict[str, Any], where: str) -> list[Message]:
    question = QUESTION.format(record["text"], "\n".join(record["test_list"]))
    return [Message(role="user", content=question), Message(role="assistant", content=_plain(record["code"]))]


def _in_chat(turn: Message) -> Message:
    content = FENCED if turn.role == "assistant" else CHAT
    return Message(role=turn.role, content=content.format(turn.content))


def _plain(code: str) -> str:
    return code.replace("\r\n", "\n").rstrip()


def _row(record: dict[str, Any], shots: list[Message], continuation: bool, where: str, licence: str) -> Row:
    tests = "\n".join([_plain(record["test_setup_code"]), *record["test_list"]]).strip()
    entry, alone = _called(tests, record, where)
    question, solution = _turns(record, where)
    if continuation:
        # the examples and the question as one text, each code between its marks
        asked = [turn.content + (DONE + "\n\n" if turn.role == "assistant" else BEGIN) for turn in (*shots, question)]
        messages = [Message(role="user", content="".join(asked))]
        gold = solution.content
    else:
        messages = [_in_chat(turn) for turn in (*shots, question)]
        gold = _in_chat(solution).content
    return Row(
        id=f"mbpp/{record['task_id']}",
        task="mbpp",
        kind="domain",
        messages=messages,
        answer="",
        verifiers=["code"],
        meta={
            "licence": licence,
            "entry_point": entry,
            "tests": tests,
            "together": not alone,
            "continuation": continuation,
            "stops": [DONE.strip()],
            "question": record["text"],
            "gold_text": gold,
        },
    )


def _called(tests: str, record: dict[str, Any], where: str) -> tuple[str, bool]:
    """Return the function the tests call, and whether they use nothing else of the program's."""
    where = f"{where}: task {record['task_id']}"
    try:
        used = names_used(tests)
    except SandboxError as error:
        raise UserError(f"{where}: {error}; fetch the set again") from None
    nodes = ast.walk(ast.parse(tests))
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    defined = re.findall(r"^def (\w+)", record["code"], re.M)
    entries = [name for name in called if name in defined]
    if not entries:
        raise UserError(f"{where}: its tests call no function of its code; fetch the set again")
    return entries[0], used <= {entries[0]} and not record["test_setup_code"]
