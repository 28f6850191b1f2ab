"""Model-written code, run where it can do no harm: a process of its own, without privileges, network or files.

`run_python` runs a script; `run_tests` runs a program's tests on it, which only call its functions from another
process, so the program neither reads its tests nor forges their verdict. What is guaranteed and what it takes is in
``docs/sandbox.md``; the inside begins in ``child.py``. Both may be called from many threads.
"""

import ast
import builtins
import errno
import importlib.util
import marshal
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, cast

from data_recipes.errors import UserError
from data_recipes.validation import one_line

Status = Literal["passed", "failed", "timeout", "memory", "killed"]
_START = "import sys; sys.path.append(sys.argv.pop()); import child; child.main()"
MOST_STDIN_BYTES = 8 << 20
GRACE_SECONDS = 60
"""How long after its limits a sandbox may take to answer before it is given up as broken."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # sets in the same order each time: the same verdict each time
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class SandboxError(UserError):
    """The sandbox itself failed, or the tests cannot be run as they are: nothing is known of the program.

    It is never a score; what called for one stops with this sentence.
    """


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    """passed: to its end, and all assertions held; failed: an error, a false assertion, another exit status than 0;
    timeout and memory: beyond the limits; killed: ended by a signal."""
    stdout: str
    """The beginning of what was printed, at most 64 KiB."""
    stderr: str
    """The beginning of what was printed to stderr, at most 64 KiB."""
    seconds: float
    """Processor time."""
    detail: str = ""
    """What went wrong, in a few words."""
    passed: int = 0
    """Assertions that held."""
    failed: int = 0
    """Assertions that did not; the rest of the tests runs on."""


def run_python(code: str, *, timeout: float = 10.0, memory_mb: int = 512, stdin: str = "") -> Outcome:
    """Run a script in the sandbox.

    Args:
        timeout: processor time in seconds; by the clock a run may take four times as long.
        memory_mb: address space in MiB.
        stdin: what the script reads, at most 8 MiB.

    Raises:
        UserError: this system has no namespaces for us, or they are closed.
        SandboxError: the sandbox failed.
    """
    given = stdin.encode(errors="replace")
    if len(given) > MOST_STDIN_BYTES:
        raise ValueError(f"stdin of {len(given)} bytes; at most {MOST_STDIN_BYTES} are passed on")
    return _run({"stdin": given, "tests": False}, code.encode(errors="replace"), timeout, memory_mb)


def run_tests(
    program: str,
    tests: str,
    calls: tuple[str, ...],
    *,
    prelude: str = "",
    together: bool = False,
    timeout: float = 10.0,
    memory_mb: int = 512,
) -> Outcome:
    """Run the tests of a program in the sandbox, on the other side of a pipe.

    Arguments and results cross as plain data (numbers, text, built-in containers): results of the program's own
    classes fail, so no ``__eq__`` of theirs is asked; arguments changed in place are not seen changed by the tests.

    Args:
        tests: source of assertions that call the program's functions.
        calls: names of those functions.
        prelude: source the tests may rely on, such as helpers the question came with; run on the tests' side.
        together: run the tests inside the program instead, for tests that use its classes; the program can then forge
            the verdict if it sets out to.

    Raises:
        UserError: this system has no namespaces for us, or they are closed.
        SandboxError: the sandbox failed, or the tests cannot be run as they are.
    """
    code: object = tests if together else _counting(tests)
    part = marshal.dumps((program.encode(errors="replace").decode(), prelude, code, calls))
    return _run({"stdin": b"", "tests": True, "together": together}, part, timeout, memory_mb)


def check() -> None:
    """Try the sandbox.

    Raises:
        UserError: this system has no namespaces for us, or they are closed.
        SandboxError: the sandbox failed.
    """
    outcome = run_python("print('here')")
    if (outcome.status, outcome.stdout) != ("passed", "here\n"):
        raise SandboxError(f"the sandbox does not run a plain program: {outcome.detail or outcome.stderr[-300:]}")


@lru_cache(maxsize=1024)
def _counting(tests: str) -> object:
    """Return the tests compiled so that every assertion is counted, and a false one does not end them.

    Raises:
        SandboxError: they are no Python.
    """
    try:
        tree = _Counting().visit(ast.parse(tests))
        return compile(ast.fix_missing_locations(tree), "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SandboxError(f"the tests are no Python ({one_line(str(error))})") from None


class _Counting(ast.NodeTransformer):
    def visit_Try(self, node: ast.Try) -> ast.Try:
        return node  # whether its assertions fail is the tests' own business

    def visit_Assert(self, node: ast.Assert) -> ast.Try:
        text = ast.unparse(node.test)
        shown = text if len(text) <= 160 else f"{text[:120]}...{text[-37:]}"
        counted = ast.parse(f"try:\n  0\n  __passed__()\nexcept Exception:\n  __failed__({shown!r})").body[0]
        assert isinstance(counted, ast.Try)
        counted.body[0] = node
        return ast.copy_location(counted, node)


def names_used(tests: str) -> set[str]:
    """Return the names that tests use without defining them, built-in ones aside.

    Raises:
        SandboxError: they are no Python.
    """
    try:
        nodes = list(ast.walk(ast.parse(tests)))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SandboxError(f"the tests are no Python ({one_line(str(error))})") from None
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
    made |= {node.name for node in nodes if isinstance(node, named) and node.name}
    made |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return used - made - set(dir(builtins))


def _run(job: dict, part: bytes, timeout: float, memory_mb: int) -> Outcome:
    if not sys.platform.startswith("linux") or os.uname().machine not in ("x86_64", "aarch64"):
        raise UserError(
            "code written by a model runs in a sandbox that needs Linux on x86-64 or ARM64; score the stored"
            " completions on such a machine"
        )
    job |= {"seconds": timeout, "memory_mb": memory_mb, "packages": _packages()}
    head = marshal.dumps((os.getpid(), job))
    given = b"".join(struct.pack("Q", len(one)) + one for one in (head, part))
    kept = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}  # Python may need it
    process = subprocess.Popen(
        [sys.executable, "-s", "-S", "-P", "-X", "utf8", "-c", _START, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT | kept,
        cwd="/",
        start_new_session=True,
    )
    try:
        answer, complaint = process.communicate(given, timeout=4 * timeout + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise SandboxError("the sandbox did not answer in time; see that the machine is not out of memory") from None
    finally:
        process.kill()  # (where it has ended, this does nothing) with it goes everything it started
        process.wait()
    return _outcome(answer, complaint.decode(errors="replace"))


def _outcome(answer: bytes, complaint: str) -> Outcome:
    head, _, rest = answer.partition(b"\n")
    if not head:
        last = one_line(complaint.strip().splitlines()[-1]) if complaint.strip() else "it ended without a word"
        raise SandboxError(f"the sandbox did not come to stand: {last}")
    status, passed, failed, seconds, *sizes = head.decode().split()
    texts = []
    for size in map(int, sizes):
        texts.append(rest[:size].decode(errors="replace"))
        rest = rest[size:]
    if status == "broken":
        raise _broken(*texts[0].split("\n", 2))
    detail, stdout, stderr = texts
    return Outcome(cast(Status, status), stdout, stderr, float(seconds), detail, int(passed), int(failed))


def _broken(step: str, number: str, reason: str) -> Exception:
    if step == "tests":
        return SandboxError(one_line(reason))
    refused = int(number) in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.ENOSYS, errno.EUSERS)
    if refused or (step == "clone" and int(number) == errno.EINVAL):
        return UserError(
            f"the sandbox for code written by a model needs Linux namespaces, which this system refuses"
            f" ({step}: {one_line(reason)}); allow them as docs/sandbox.md says, or score the stored completions on a"
            " machine that has them"
        )
    return SandboxError(f"the sandbox did not come to stand ({step}: {one_line(reason)})")


@cache
def _packages() -> list[str]:
    """Return the folders of numpy, the one package beside the standard library that programs may import."""
    found = importlib.util.find_spec("numpy")
    folder = Path(found.origin).resolve().parent if found and found.origin else None
    near = [folder, folder.with_name("numpy.libs")] if folder else []
    return [str(path) for path in near if path.is_dir()]
