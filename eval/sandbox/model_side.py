"""The process that runs the model's code: a script, or functions that the tests call from outside."""

from __future__ import annotations

import _pickle as pickle
import os
import sys

import walls
from wire import Gone, plain_message, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

OUT_OF_MEMORY = 99
"""The exit status after a MemoryError."""


def run_script(source: str) -> NoReturn:
    """Run the source as a script; the exit status says how it ended. Hooks for the interpreter's end do not run."""
    code = 0
    try:
        _run(source, _new_module("__main__"))
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()  # waits for the threads, as the interpreter does
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else int(request.code is not None)
    except BaseException as error:
        code = OUT_OF_MEMORY if isinstance(error, MemoryError) else 1
        _show(error)
    _flush()
    os._exit(code & 0xFF)


def serve(requests: int, replies: int) -> NoReturn:
    """Run sources and call functions as the tests ask, until they ask no more."""
    names = _new_module("program")
    while True:
        try:
            kind, *given = pickle.loads(receive(requests))
        except Gone:
            os._exit(0)
        try:
            if kind == "run":
                answer: tuple = ("value", _run(given[0], names))
            else:
                name, arguments, keywords = given
                if name not in names:
                    raise NameError(f"name {name!r} is not defined")
                answer = ("value", names[name](*arguments, **keywords))
            message = plain_message(answer)
        except BaseException as error:
            message = plain_message(("error", type(error).__name__, _text_of(error)))
        _flush()
        send(replies, message)


def _new_module(name: str) -> dict[str, Any]:
    sys.path.append(walls.PACKAGES)
    made = sys.modules[name] = type(sys)(name)
    return made.__dict__


def _run(source: str, names: dict[str, Any]) -> None:
    exec(compile(source, "<program>", "exec", dont_inherit=True), names)  # noqa: S102 - what this process is for


def _show(error: BaseException) -> None:
    """Print an error as the interpreter would, from where it enters the model's code."""
    found = error.__traceback__
    while found and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    try:
        sys.excepthook(type(error), error.with_traceback(found), found)
    except BaseException:
        return  # (whatever the program made of the hook and its outputs)


def _flush() -> None:
    """Write out what was printed, whatever the program made of its outputs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue


def _text_of(error: BaseException) -> str:
    """Return what an error says, which the program's own errors may refuse to."""
    try:
        return str(error)[:500]
    except BaseException:
        return ""
