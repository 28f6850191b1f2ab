"""The process that runs the tests: it asks the program's process, and only it can speak to the referee."""

from __future__ import annotations

import _pickle as pickle
import _signal as signal
import builtins
import marshal
import os
import sys

from wire import Gone, plain_value, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class Unsound(BaseException):
    """A fault of the tests: they cannot be run as they are."""


def run_tests(together: bool, job: int, requests: int, replies: int, verdict: int) -> NoReturn:
    """Have the program run its source, then run the tests on it.

    The referee gets a sign for every assertion, then a line with the status and one with the reason.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the program can end this process, but not make it raise
    tests = _Tests(requests, replies, verdict)
    status, reason = "passed", ""
    try:
        source, prelude, code, calls = marshal.loads(receive(job, sys.maxsize))
        os.close(job)
        tests.ask("run", source)
        if together:
            tests.ask("run", code)
            tests.passed()
        else:
            names = _prepared(prelude)
            names |= {name: tests.function(name) for name in calls}
            names |= {"__passed__": tests.passed, "__failed__": tests.failed}
            exec(code, names)  # noqa: S102 - the benchmark's, behind the walls like everything here
    except Gone:
        status = "gone"
    except Unsound as error:
        status, reason = "broken", f"tests\n0\n{error}"
    except BaseException as error:
        status, reason = tests.described(error)
    if status == "passed" and tests.first_fault:
        status, reason = tests.first_fault
    os.write(verdict, f"\n{status}\n{reason[:1000]}".encode(errors="replace"))
    os._exit(0)


def _prepared(prelude: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(prelude, "<prelude>", "exec", dont_inherit=True), names)  # noqa: S102 - the benchmark's, too
    except Exception as error:
        raise Unsound(f"what precedes the tests does not run ({type(error).__name__}: {error})") from None
    return names


class _Tests:
    """The tests' side of the conversation."""

    def __init__(self, requests: int, replies: int, verdict: int) -> None:
        self.requests, self.replies, self.verdict = requests, replies, verdict
        self.last: tuple[str, tuple] | None = None
        self.returned: list[Any] = []
        self.first_fault: tuple[str, str] | None = None

    def ask(self, *request: Any) -> Any:
        """Return the program's answer.

        Raises:
            Gone: there is none.
            Unsound: the request cannot be sent.
            Exception: the one the program raised, or a RuntimeError where that is not built in.
        """
        try:
            message = pickle.dumps(request, 4)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise Unsound(f"a test hands the program what is no plain data ({error})") from None
        send(self.requests, message)
        kind, *answer = _parts(plain_value(receive(self.replies)))
        if kind == "value":
            return answer[0]
        name, text = str(answer[0])[:100], str(answer[-1])[:500]
        known = getattr(builtins, name, None)
        # (a StopIteration would end a test's own loop, and look like success)
        if known is StopIteration or not isinstance(known, type) or not issubclass(known, Exception):
            raise RuntimeError(f"{name}: {text}" if text else name)
        raise known(text) if text else known()

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the program's function."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.last, self.returned = (name, arguments), []
            value = self.ask("call", name, arguments, keywords)
            self.returned = [value]
            return value

        return call

    def passed(self) -> None:
        """Note an assertion that holds."""
        os.write(self.verdict, b"+")

    def failed(self, test: str) -> None:
        """Note an assertion that does not hold, or that an error ended."""
        os.write(self.verdict, b"-")
        error = sys.exc_info()[1]
        if self.first_fault is None and error is not None:
            self.first_fault = self.described(error, test)

    def described(self, error: BaseException, test: str = "") -> tuple[str, str]:
        """Return the status and the reason in a few words."""
        status = "memory" if isinstance(error, MemoryError) else "failed"
        call = f"{self.last[0]}({', '.join(map(_short, self.last[1]))})" if self.last else ""
        if isinstance(error, AssertionError) and test:
            if self.returned:
                return status, f"{call} returns {_short(self.returned[0])}, against: {test}"
            return status, f"does not hold: {test}"
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return status, f"{call} raises {what}" if call and not self.returned else what


def _parts(answer: Any) -> tuple:
    if not isinstance(answer, tuple) or len(answer) < 2:
        raise Gone
    return answer


def _short(value: Any) -> str:
    """Return a value as a person would write it, cut."""
    try:
        text = repr(value)
    except Exception:  # a number of too many digits, lists too deep
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"
