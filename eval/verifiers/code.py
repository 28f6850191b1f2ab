"""A Python program, judged by unit tests that run in the sandbox.

A row's ``meta`` says how:

==============  ======================================================================================================
tests           Python source, or a list of it: assertions that call the program's functions
entry_point     the name of the function that was asked for
prompt_code     optional: code the question came with, which is there before the program and for the tests
continuation    optional: the completion goes on where ``prompt_code`` ends (a model without a chat template)
stops           optional: where such a completion is cut; absent: where HumanEval's protocol does
together        optional: the tests use the program's own classes and run inside it (`eval.sandbox.run_tests`)
timeout         optional: processor seconds
==============  ======================================================================================================
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from data_recipes.errors import UserError
from data_recipes.row import Row
from eval.sandbox import Outcome, names_used, run_tests

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374, section 2.1) ends a continuation."""
CONCURRENT = True
"""Judging waits for another process, so several threads may."""
TIMEOUT = 10.0
"""Processor seconds of a program and its tests."""
_BEGINS = re.compile(r"(?:from|import|def|class|async def)\b|@\w")
_CODE = re.compile(
    r"(?:from|import|def|class|async|if|elif|else|for|while|with|try|except|finally)\b|[@#)\]}]|[\w.]+\s{0,2}[\[(=+-]"
)
"""How a line without indentation begins in code; prose that follows the code does not."""


def read(completion: str, row: Row) -> str | None:
    """Return the program: the last fenced block that defines the function, else the last block of Python.

    Without blocks it is the completion's lines of code, if they define the function, or the completion as the
    continuation of the row's ``prompt_code``, if it begins with an indented line. What stands before the function in
    ``prompt_code`` (imports, helpers) is put before the program.
    """
    return _chosen(completion, row, -1)


def first_block(completion: str, row: Row) -> str | None:
    """Return the program as `read` does, but of several blocks the first."""
    return _chosen(completion, row, 0)


def continuation(completion: str, row: Row) -> str | None:
    """Return the row's ``prompt_code`` and the completion, cut before the first of its ``stops``."""
    places = [completion.find(stop) for stop in row.meta.get("stops", HUMANEVAL_STOPS)]
    text = completion[: min((place for place in places if place >= 0), default=len(completion))]
    return row.meta.get("prompt_code", "") + text if text.strip() else None


EXTRACTIONS = {"first_block": first_block, "continuation": continuation}


def score(answer: str, row: Row) -> float:
    """Return 1.0 where all tests pass, else 0.0.

    Raises:
        UserError: there is no sandbox on this system, or the row has no tests.
        SandboxError: the sandbox failed, or the tests cannot be run.
    """
    return float(outcome(answer, row).status == "passed")


def fault(answer: str, row: Row) -> str:
    """Say how the first assertion failed, or what ended the program."""
    ended = outcome(answer, row)
    return ended.detail or {"timeout": "It takes too long", "memory": "It takes too much memory"}.get(ended.status, "")


def outcome(answer: str, row: Row) -> Outcome:
    """Return how the row's tests end on a program; see `score`."""
    tests = row.meta.get("tests") or []
    source = tests if isinstance(tests, str) else "\n".join(tests)
    if not source.strip():
        raise UserError(f"row {row.id!r} of task {row.task!r} has no meta.tests, so no program can be judged; add them")
    prelude, entry = row.meta.get("prompt_code", ""), row.meta.get("entry_point", "")
    together, timeout = bool(row.meta.get("together")), float(row.meta.get("timeout", TIMEOUT))
    return _outcome(answer, source, prelude, entry, together, timeout)


@lru_cache(maxsize=4096)
def _outcome(program: str, tests: str, prelude: str, entry: str, together: bool, timeout: float) -> Outcome:
    calls = names_used(f"{prelude}\n{tests}") | ({entry} if entry else set())
    return run_tests(program, tests, tuple(sorted(calls)), prelude=prelude, together=together, timeout=timeout)


def _chosen(completion: str, row: Row, which: int) -> str | None:
    if row.meta.get("continuation"):
        return continuation(completion, row)
    entry, given = row.meta.get("entry_point", ""), row.meta.get("prompt_code", "")
    name = re.escape(entry) or r"\w+"
    defines = re.compile(rf"^(?:async )?(?:def|class)[ \t]+{name}\b|^{name}[ \t]*=", re.M)
    blocks = list(_blocks(completion))
    defining = [block for block in blocks if defines.search(block)]
    if blocks:
        program = (defining or blocks)[which]
    elif defines.search(completion):
        program = _lines_of_code(completion)
    elif given and next((line for line in completion.split("\n") if line.strip()), "")[:1] in (" ", "\t"):
        return continuation(completion, row)
    else:
        return None
    place = max((match.start() for match in defines.finditer(given)), default=0)
    return given[:place] + program


def _blocks(text: str) -> Iterator[str]:
    """Yield the fenced blocks that are Python or of no language; the last one may lack its end."""
    inside: list[str] | None = None
    python, indent = False, 0
    for line in text.split("\n"):
        bare = line.strip()
        if inside is None and bare.startswith("```"):
            inside, indent = [], len(line) - len(line.lstrip())
            python = bare.strip("`").strip().casefold() in ("", "python", "python3", "py")
        elif inside is not None and bare.startswith("```"):
            if python and "".join(inside).strip():
                yield "\n".join(inside) + "\n"
            inside = None
        elif inside is not None:
            inside.append(line[min(indent, len(line) - len(line.lstrip())) :].rstrip("\r"))
    if inside and python and "".join(inside).strip():
        yield "\n".join(inside) + "\n"


def _lines_of_code(text: str) -> str:
    """Return the lines from the first that begins like code to the last before prose."""
    kept: list[str] = []
    for line in text.split("\n"):
        if kept and line.strip() and not line[0].isspace() and not _CODE.match(line):
            break
        if kept or _BEGINS.match(line):
            kept.append(line.rstrip("\r"))
    return "\n".join(kept) + "\n"
