"""Ways out of the sandbox, each tried; and what the host looks like afterwards."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_recipes.errors import UserError
from eval import sandbox
from eval.sandbox import SandboxError, check, run_python, run_tests

PROJECT = Path(__file__).parents[2]
START = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
def is_open(fd):
    try: return bool(os.fstat(fd))
    except OSError: return False
try:
"""
END = """
    print("ESCAPED")
except BaseException as error:
    print(type(error).__name__)
"""
NOT_THERE, REFUSED, READ_ONLY = "FileNotFoundError", "PermissionError", "OSError|PermissionError"
# what is tried: (script, the error that stops it, whether it works without a sandbox and does no harm there)
WAYS_OUT = {
    "read the passwords": ("open('/etc/shadow').read()", NOT_THERE, False),
    "read the users": ("open('/etc/passwd').read()", NOT_THERE, True),
    "read the project": (f"open({str(PROJECT / 'README.md')!r}).read()", NOT_THERE, True),
    "list the home folder": (f"assert len(os.listdir({str(Path.home())!r})) > 1", f"AssertionError|{NOT_THERE}", True),
    "read the host's temporary files": ("open(FILE).read()", NOT_THERE, True),
    "change the host's temporary files": ("open(FILE, 'a').write('touched')", NOT_THERE, False),
    "write beside the working folder": ("open('/written', 'w')", READ_ONLY, False),
    "write into the standard library": ("open(os.__file__, 'a')", READ_ONLY, False),
    "write into site-packages": (
        "open(os.path.join(os.path.dirname(os.__file__), 'site-packages', 'x.py'), 'w')",
        READ_ONLY,
        False,
    ),
    "write into numpy": ("import numpy; open(numpy.__file__, 'a')", READ_ONLY, False),
    "make the root writable": ("call(MOUNT, b'', b'/', b'', 32 | 4096, b'')", REFUSED, False),
    "open a TCP connection": ("socket.create_connection(('127.0.0.1', PORT))", REFUSED, True),
    "send a UDP packet": ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))", REFUSED, True),
    "ask for a name": ("socket.getaddrinfo('localhost', 80)", "gaierror", True),
    "reach an abstract socket": ("s = socket.socket(socket.AF_UNIX); s.connect('\\0' + NAME)", REFUSED, True),
    "reach the hypervisor": ("socket.socket(40, socket.SOCK_STREAM)", REFUSED, False),
    "fork": ("if os.fork() == 0: os._exit(0)", REFUSED, True),
    "fork by the C library": ("p = libc.fork(); assert p >= 0; p or os._exit(0)", "AssertionError", True),
    "start a program": ("import subprocess; subprocess.run([sys.executable, '-c', ''], check=True)", REFUSED, True),
    "run a program in place": ("os.execv('/lib64/ld-linux-x86-64.so.2', ['ld'])", REFUSED, False),
    "a process that outlives this one": ("os.fork() or (os.setsid(), os.fork())", REFUSED, False),
    "new namespaces": ("call(UNSHARE, 0x10000000)", REFUSED, False),
    "become root": ("os.setuid(0)", f"{REFUSED}|OSError", False),
    "become root by a group": ("os.setgroups([0])", REFUSED, False),
    "leave by chroot": ("os.mkdir('d'); os.chroot('d')", REFUSED, False),
    "make a disk's device": ("os.mknod('disk', 0o60600, os.makedev(254, 0))", REFUSED, False),
    "read the memory's device": ("open('/dev/mem', 'rb')", NOT_THERE, False),
    "read the kernel's log": ("open('/dev/kmsg')", NOT_THERE, False),
    "read the kernel's log by a call": ("call(SYSLOG, 3, ctypes.create_string_buffer(64), 64)", REFUSED, False),
    "see the processes": ("os.listdir('/proc')", NOT_THERE, True),
    "trace the parent": ("call(PTRACE, 16, os.getppid(), 0, 0)", REFUSED, False),
    "read another's memory": ("call(PROCESS_VM_READV, 1, 0, 0, 0, 0, 0)", REFUSED, False),
    "take another's file": ("call(438, 1, 0, 0)", REFUSED, False),
    "signal a process of the host": ("os.kill(PID, 0)", "ProcessLookupError", True),
    "signal everything": ("os.kill(-1, 0)", f"ProcessLookupError|{REFUSED}", False),
    "read the environment": ("os.environ['WHETSTONE_SECRET']", "KeyError", True),
    "use inherited files": ("assert any(map(is_open, range(3, 256)))", "AssertionError", False),
    "shared memory": ("open('/dev/shm/kept', 'w')", NOT_THERE, False),
    "System V shared memory": ("call(SHMGET, 4711, 4096, 0o1666)", REFUSED, False),
    "memory without an address": ("os.memfd_create('hoard')", REFUSED, True),
    "kernel keys": ("call(ADD_KEY, b'user', b'kept', b'x', 1, -3)", REFUSED, False),
    "programs for the kernel": ("call(BPF, 0, None, 0)", REFUSED, False),
    "asynchronous calls": ("call(425, 8, ctypes.create_string_buffer(256))", REFUSED, False),
    "a link to a file outside": ("os.symlink('/etc/passwd', 'l'); open('l').read()", NOT_THERE, True),
    "a hard link to the library": ("os.link(os.__file__, 'l'); open('l', 'a')", READ_ONLY, False),
    "a job for later": ("open('/var/spool/cron/crontabs/root', 'w')", NOT_THERE, False),
    "a core dump": ("call(PRCTL, 4, 1, 0, 0, 0)", REFUSED, False),
    "a higher limit": ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError", False),
}
CALLS = ("MOUNT", "UNSHARE", "SYSLOG", "PTRACE", "PROCESS_VM_READV", "SHMGET", "ADD_KEY", "BPF", "PRCTL")
NUMBERS = {
    "x86_64": (165, 272, 103, 101, 310, 29, 248, 321, 157),
    "aarch64": (40, 97, 116, 117, 270, 194, 217, 280, 167),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """What stands on the host to be reached: a file, a process, two sockets, a secret, an open file."""
    canary = tmp_path_factory.mktemp("host") / "canary"
    canary.write_text("untouched")
    canary.chmod(0o666)
    sleeper = subprocess.Popen(["sleep", "600"])
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    name = f"whetstone-{secrets.token_hex(4)}"
    abstract.bind("\0" + name)
    abstract.listen()
    for listener in (tcp, abstract):
        listener.settimeout(0)
    inherited = os.open(canary, os.O_RDWR)
    os.set_inheritable(inherited, True)
    os.environ["WHETSTONE_SECRET"] = "s3cret"
    known = {"PORT": tcp.getsockname()[1], "NAME": name, "PID": sleeper.pid, "FILE": str(canary)}
    known |= dict(zip(CALLS, NUMBERS[os.uname().machine], strict=True))
    yield {"known": known, "sockets": (tcp, abstract), "sleeper": sleeper, "file": canary}
    del os.environ["WHETSTONE_SECRET"]
    os.close(inherited)
    for listener in (tcp, abstract):
        listener.close()
    sleeper.kill()
    sleeper.wait()


def script(way: str, host: dict) -> str:
    constants = "\n".join(f"{name} = {value!r}" for name, value in host["known"].items())
    return constants + START + textwrap.indent(WAYS_OUT[way][0], "    ") + END


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_way_out_is_closed_and_the_host_unharmed(way, host):
    outcome = run_python(script(way, host))
    assert outcome.stdout.strip() in WAYS_OUT[way][1].split("|"), outcome
    assert host["sleeper"].poll() is None and host["file"].read_text() == "untouched"
    for listener in host["sockets"]:
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not Path("/written").exists() and not Path("/dev/shm/kept").exists()


@pytest.mark.parametrize("way", [way for way, (_, _, open_outside) in WAYS_OUT.items() if open_outside])
def test_the_same_way_is_open_without_the_sandbox(way, host, tmp_path):
    done = subprocess.run([sys.executable, "-c", script(way, host)], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "ESCAPED"
    for listener in host["sockets"]:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            continue


IGNORES_SIGNALS = """
import signal
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
SPINS_IN_THREADS = """
import threading
for _ in range(3): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()
"""
CLOSES_FILES = """
import os
for fd in range(256):
    try: os.close(fd)
    except OSError: pass
while True: pass
"""
KILLS_ITS_PARENT = """
import os
for number in (9, 15, 2, 19): os.kill(os.getppid(), number)
print("alive")
"""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        (IGNORES_SIGNALS, "timeout"),
        (SPINS_IN_THREADS, "timeout"),
        (CLOSES_FILES, "timeout"),
        ("x = 3 ** 3 ** 3 ** 3", "timeout"),
        ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", "timeout"),
        ("x = [0] * (1 << 40)", "memory"),
        ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory"),
        ("import ctypes; ctypes.string_at(0)", "killed"),
        ("import os; os.abort()", "killed"),
        ("import os; os.kill(os.getpid(), 9)", "killed"),
        ("import sys; sys.setrecursionlimit(1 << 30)\ndef f(x): return list(map(f, [x]))\nf(1)", "killed"),
        (KILLS_ITS_PARENT, "passed|failed"),  # (an ordinary user may signal it, in vain)
        ("import sys; sys.exit(3)", "failed"),
        ("1 / 0", "failed"),
        ("def f(:", "failed"),
        ("print('\\ud800')", "failed"),
        ("\0", "failed"),
        ("(" * 100_000, "failed|memory|killed"),
        ("", "passed"),
    ],
)
def test_a_program_is_ended_by_its_limits_and_errors(code, status):
    begin = time.monotonic()
    outcome = run_python(code, timeout=0.3, memory_mb=256)
    assert outcome.status in status.split("|"), outcome
    assert time.monotonic() - begin < 20


THREADS_WITHOUT_END = """
import threading, time
started = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        started += 1
except RuntimeError:
    print(started)
"""
PROCESSES_WITHOUT_END = """
import os
for _ in range(10_000):
    try: os.fork()
    except PermissionError: pass
print(os.getpid())
"""
FILLS_THE_DISK = """
try:
    for n in range(99): open(str(n), 'wb').write(bytes(1 << 20))
except OSError as error: print(error.errno)
"""
MAKES_FILES = """
try:
    for n in range(9999): open(str(n), 'w').close()
except OSError as error: print(error.errno)
"""


def test_bombs_of_threads_and_processes_stay_small():
    assert 0 < int(run_python(THREADS_WITHOUT_END).stdout) <= 64
    assert run_python(PROCESSES_WITHOUT_END).stdout == "2\n"


def test_a_flood_of_output_is_cut():
    outcome = run_python("while True: print('x' * 65536)", timeout=0.5)
    assert outcome.status == "timeout" and set(outcome.stdout) <= {"x", "\n"} and len(outcome.stdout) == 1 << 16
    assert len(run_python("import sys; sys.stderr.write('é' * 100_000)").stderr) <= 1 << 16


def test_the_disk_cannot_be_filled_and_is_empty_in_the_next_run():
    no_space = 28
    assert int(run_python(FILLS_THE_DISK).stdout) == int(run_python(MAKES_FILES).stdout) == no_space
    assert run_python("import os; print(os.getcwd(), os.listdir('.'))").stdout == "/tmp []\n"


def test_runs_do_not_see_each_other():
    keep = "open('/tmp/kept', 'w').write('x'); print(open('/tmp/kept').read())"
    assert run_python(keep).stdout == "x\n"
    assert run_python("import os; print(os.path.exists('/tmp/kept'))").stdout == "False\n"


def test_only_what_python_needs_is_to_be_seen(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "")  # the one variable that is passed on: Python may need it
    monkeypatch.setenv("WHETSTONE_SECRET", "x")
    code = "import os, glob; print(sorted(os.listdir('/dev')), os.listdir('/empty'), os.path.exists('/etc'))\n"
    code += "print(glob.glob(os.path.dirname(os.__file__) + '/*-packages/*'))"
    assert run_python(code).stdout == "['null', 'urandom', 'zero'] [] False\n[]\n"
    outcome = run_python("import os, socket; print(os.environ, socket.gethostname(), os.getuid(), os.getgid())")
    assert "'HOME': '/tmp'" in outcome.stdout and outcome.stdout.endswith("sandbox 65534 65534\n")
    assert not any(name in outcome.stdout for name in ("'PATH'", "PYTHONPATH", "WHETSTONE", "USER"))


ORDINARY = """
import asyncio, bisect, collections, datetime, decimal, fractions, functools, hashlib, heapq, itertools, json, math
import random, re, sqlite3, ssl, statistics, string, sys, tempfile, threading, typing, unittest, numpy
from dataclasses import dataclass
async def one(): return 1
print(asyncio.run(one()), sys.stdin.read().upper())
@dataclass
class A:
    x: int
print(A(2), __name__, numpy.arange(2))
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
with tempfile.TemporaryFile() as file: print(file.write(b"abc"))
print({"a", "b", "c", "d"})
"""


def test_an_ordinary_program_has_what_it_needs():
    first = run_python(ORDINARY, stdin="typed in")
    assert first.status == "passed", first
    assert first.stdout.startswith("1 TYPED IN\nA(x=2) __main__ [0 1]\nthread\n3\n{")
    assert run_python(ORDINARY, stdin="typed in").stdout == first.stdout  # sets have the same order in each run
    assert run_python("print(input())").stderr.strip().endswith("EOFError: EOF when reading a line")
    error = run_python("import math\ndef f(): return 1 / 0\nf()").stderr
    assert error.splitlines()[1] == '  File "<program>", line 3, in <module>' and error.endswith("division by zero\n")


def test_faults_of_the_sandbox_and_of_the_tests_are_no_verdict(monkeypatch, tmp_path):
    with pytest.raises(SandboxError, match="no Python"):
        run_tests("", "assert (", ())
    with pytest.raises(SandboxError, match="no plain data"):
        run_tests("def f(x): return 1", "assert f(lambda: 0)", ("f",))
    with pytest.raises(SandboxError, match="precedes the tests"):
        run_tests("def f(x): return 1", "assert f(1)", ("f",), prelude="1 / 0")
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_packages", lambda: [str(tmp_path / "missing")])
        with pytest.raises(SandboxError, match="view.*missing"):
            run_python("pass")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(broken))
        with pytest.raises(SandboxError, match="out of order"):
            run_python("pass")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        with pytest.raises(UserError, match="needs Linux"):
            run_python("pass")
    check()


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1)")
def test_without_namespaces_nothing_is_run():
    code = "from eval.sandbox import run_python\nfrom data_recipes.errors import UserError\n"
    code += "try: print(run_python('print(1)'))\nexcept UserError as e: print('refused:', e)"
    closed = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" -c "$1"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", closed, sys.executable, code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.startswith("refused: the sandbox for code written by a model needs Linux namespaces"), done
    assert "docs/sandbox.md" in done.stdout and done.stdout.count("\n") == 1


AS_SOMEBODY = """
from eval import sandbox
from eval.sandbox import run_python, run_tests
print(run_python("import os; print(os.getuid(), os.listdir('/tmp'))").stdout)
print(run_tests("def f(x): return x", "assert f(1) == 1", ("f",)).status)
print(run_python("open('/etc/passwd')").status, run_python("import os; os.fork()").status)
sandbox._packages = lambda: [OWN]
print(run_python("import os; open('/packages/own/file', 'a')").stderr.strip().splitlines()[-1][:30])
print(run_python("import os; [os.kill(1, n) for n in (2, 9, 15, 19)]").status)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_works_for_an_ordinary_user_who_cannot_even_write_where_the_user_may():
    import pydantic

    own = Path(tempfile.mkdtemp()) / "own"  # (pytest's own folders are closed to others)
    own.parent.chmod(0o755)
    own.mkdir()
    (own / "file").touch()
    for path in (own, own / "file"):
        os.chown(path, 12345, 12345)

    python = next((python for python in (sys.executable, "/usr/bin/python3.11") if readable_by_all(python)), None)
    if python is None:
        pytest.skip("no Python 3.11 that other users can read")
    path = f"{PROJECT}:{Path(pydantic.__file__).parents[1]}"
    somebody = {"user": 12345, "group": 12345, "extra_groups": [], "cwd": "/", "env": {"PYTHONPATH": path}}
    code = f"OWN = {str(own)!r}{AS_SOMEBODY}"
    done = subprocess.run([python, "-B", "-c", code], capture_output=True, text=True, **somebody)
    assert done.stdout == "65534 []\n\npassed\nfailed failed\nOSError: [Errno 30] Read-only \npassed\n", done
    shutil.rmtree(own.parent)


def readable_by_all(path: str) -> bool:
    real = Path(path).resolve()
    return real.exists() and all(parent.stat().st_mode & 0o005 == 0o005 for parent in (real, *real.parents))


def named(name: str) -> list[int]:
    """Return the processes of that name on the host."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_killing_the_harness_ends_the_program_which_had_no_privileges():
    mark = f"w{secrets.token_hex(5)}"
    program = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\\nwhile True: pass"
    code = f"from eval.sandbox import run_python; run_python('''{program}''', timeout=60)"
    harness = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT)
    deadline = time.monotonic() + 30
    while not named(mark):
        assert time.monotonic() < deadline and harness.poll() is None
        time.sleep(0.05)
    lines = Path(f"/proc/{named(mark)[0]}/status").read_text().splitlines()
    status = {line.split(":")[0]: line.split(":")[1].split() for line in lines}
    assert status["Uid"] == [str(65534 if os.geteuid() == 0 else os.geteuid())] * 4
    assert all(int(status[f"Cap{kind}"][0], 16) == 0 for kind in ("Inh", "Prm", "Eff", "Amb"))
    assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"]
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    while named(mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_threads_may_run_programs_at_once():
    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(lambda n: run_python(f"print({n} ** 2)"), range(24)))
    assert [int(outcome.stdout) for outcome in outcomes] == [n**2 for n in range(24)]
