"""Tests run on a program from another process: they count, results cross as plain data, and no verdict is forged."""

import pytest

from eval.sandbox import names_used, run_tests

ADDS_ONE = "def f(x):\n  return x + 1"


def test_the_tests_call_a_program_and_count():
    looped = "assert f(1) == 2\nassert f(2) == 4\nfor i in range(3):\n  assert f(i) > i"
    outcome = run_tests(ADDS_ONE, looped, ("f",))
    assert (outcome.status, outcome.passed, outcome.failed) == ("failed", 4, 1)
    assert outcome.detail == "f(2) returns 3, against: f(2) == 4"
    assert run_tests(ADDS_ONE, "assert f(1) == 2", ("f",)).status == "passed"
    error = run_tests("def f(x): return [][x]", "assert f(1)", ("f",))
    assert error.detail == "f(1) raises IndexError: list index out of range"
    missing = run_tests("def g(x): pass", "assert f(1)", ("f",))
    assert missing.detail == "f(1) raises NameError: name 'f' is not defined"
    late = run_tests("import time\ndef f(x): time.sleep(60)", "assert f(1)", ("f",), timeout=0.3)
    assert (late.status, late.passed, late.failed) == ("timeout", 0, 1)
    huge = run_tests("def f(x): return [0] * (1 << 40)", "assert f(1)", ("f",))
    assert (huge.status, huge.failed) == ("memory", 1)


def test_a_test_may_expect_an_error():
    program = "def f(x):\n  if x < 0: raise ValueError('negative')"
    test = "try:\n  f(-1)\n  assert False\nexcept ValueError as error:\n  assert 'negative' in str(error)\n"
    test += "assert f(1) is None"
    assert run_tests(program, test, ("f",)).status == "passed"
    assert run_tests("def f(x): pass", test, ("f",)).status == "failed"


def test_a_prelude_gives_the_tests_their_own_helpers():
    prelude = "def helper(x):\n  return x * 2\ndef f(x):\n  '''To be written.'''\n"
    forged = "def helper(x): return 0\ndef f(x): return 0"
    assert run_tests(forged, "assert f(3) == helper(3)", ("f",), prelude=prelude).status == "failed"
    assert run_tests("def f(x): return x + x", "assert f(3) == helper(3)", ("f",), prelude=prelude).status == "passed"


@pytest.mark.parametrize(
    ("value", "test"),
    [
        ("(1, 2.5, 'a', b'b', None, True, 3j)", "type(f()) is tuple and f() == (1, 2.5, 'a', b'b', None, True, 3j)"),
        ("[{1: {2, 3}}, frozenset([4]), range(5)]", "f() == [{1: {2, 3}}, frozenset([4]), range(5)]"),
        ("__import__('collections').Counter('aab')", "f() == {'a': 2, 'b': 1}"),
        ("__import__('collections').namedtuple('P', 'x y')(1, 2)", "f() == (1, 2)"),
        ("__import__('collections').defaultdict(list, {1: [2]})", "f() == {1: [2]}"),
        ("__import__('enum').IntEnum('E', 'A B')(2)", "f() == 2"),
        ("__import__('numpy').int64(7)", "f() == 7"),
        ("[__import__('numpy').float64(0.5), __import__('numpy').bool_(True)]", "f() == [0.5, True]"),
        ("map(str, [1, 2])", "list(f()) == ['1', '2'] and f() != ['1', '2']"),
        ("{1: 2}.values()", "sorted(f()) == [2]"),
        ("float('nan')", "f() != f()"),
        ("10 ** 5000", "f() == 10 ** 5000"),
        ("'\\ud800'", "f() == '\\ud800'"),
    ],
)
def test_results_cross_as_plain_data(value, test):
    outcome = run_tests(f"def f():\n  return {value}", f"assert {test}", ("f",))
    assert outcome.status == "passed", outcome


def test_objects_of_the_programs_own_classes_do_not_cross():
    outcome = run_tests("class A: pass\ndef f(): return A()", "assert f()", ("f",))
    assert outcome.detail == "f() raises TypeError: A is no plain data"


TESTS = """
def check(c):
  assert abs(c(10) - 11) < 1e-9, 'n33dle'
  assert all(c(n) == n + 1 for n in map(int, '12345'))
  assert len([*map(c, range(3))]) == 3
check(f)
"""
WRONG = "def f(x): return 7\n"
ALWAYS_EQUAL = """
class E:
  def __eq__(self, other): return True
  def __bool__(self): return True
  def __sub__(self, other): return self
  def __abs__(self): return 0
def f(x): return E()
"""
NUMBER_ALWAYS_EQUAL = """
class E(int):
  def __eq__(self, other): return True
def f(x): return E(7)
"""
NO_ASSERTIONS = """
import builtins
builtins.AssertionError = type('E', (BaseException,), {})
builtins.abs = builtins.len = builtins.sum = lambda *a: 0
builtins.all = builtins.any = lambda *a: True
"""
SHADOWED = "abs = lambda x: 0\nall = any = lambda x: True\ndef check(c): pass\n"
WRITES_EVERYWHERE = """
import os
for fd in range(64):
  for verdict in (b'++++\\npassed\\n', b'passed 1 0 0.1 0 0 0\\n'):
    try: os.write(fd, verdict)
    except OSError: pass
"""
TRACES = "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\n"
HOOKS_AT_THE_END = """
import atexit, os
atexit.register(os._exit, 0)
class D:
  def __del__(self): os._exit(0)
d = D()
def f(x):
  global d
  d = None
"""
SIGNALS_THE_TESTS = """
import os
def f(x):
  for pid in range(1, 20):
    if pid != os.getpid():
      try: os.kill(pid, NUMBER)
      except OSError: pass
  return 7
"""
HUNTS_FOR_THE_TESTS = """
import gc, sys
def f(x):
  frame, seen = sys._getframe(), []
  while frame:
    seen += [*frame.f_locals.values(), *frame.f_globals.values()]
    frame = frame.f_back
  seen += [one for one in gc.get_objects() if isinstance(one, (str, bytes, tuple, list, dict))]
  needle = ''.join(['n33d', 'le'])
  del frame
  return 11 if any(needle in repr(one) for one in seen) else 7
"""
RUNS_CODE_BY_PICKLE = """
import sys
sys.modules['model_side'].plain_message = lambda value: b'cos\\n_exit\\n(I0\\ntR.'
"""
CHANGES_A_CLASS_BY_PICKLE = """
import sys
sys.modules['model_side'].plain_message = (
    lambda value: b'cbuiltins\\nset\\n(N}X\\x06\\x00\\x00\\x00__eq__cbuiltins\\nbool\\nstb.'
)
"""
NONSENSE = """
import os
def f(x):
  while True: os.write(4, os.urandom(4096))
"""
NO_ANSWER = """
import os
def f(x):
  os.close(3); os.close(4)
  while True: pass
"""
ENDLESS_ANSWER = """
import itertools
def f(x): return itertools.count()
"""
FORGERIES = {
    "leave before the tests": "import os; os._exit(0)",
    "exit before the tests": "import sys; sys.exit(0)",
    "leave when called": "import os\ndef f(x): os._exit(0)",
    "equal to everything": ALWAYS_EQUAL,
    "a number equal to everything": NUMBER_ALWAYS_EQUAL,
    "no assertions": NO_ASSERTIONS + WRONG,
    "other names for the tests": SHADOWED + WRONG,
    "print the verdict": "print('passed'); print('+\\npassed\\n')\n" + WRONG,
    "write the verdict everywhere": WRITES_EVERYWHERE + WRONG,
    "write the verdict and leave": WRITES_EVERYWHERE + "os._exit(0)",
    "trace the tests": TRACES + WRONG,
    "hooks at the end": HOOKS_AT_THE_END,
    "end the tests": SIGNALS_THE_TESTS.replace("NUMBER", "9"),
    "interrupt the tests": SIGNALS_THE_TESTS.replace("NUMBER", "2"),
    "stop the tests": SIGNALS_THE_TESTS.replace("NUMBER", "19"),
    "stop the iteration": "def f(x): raise StopIteration",
    "hunt for the tests": HUNTS_FOR_THE_TESTS,
    "run code by pickle": RUNS_CODE_BY_PICKLE + WRONG,
    "change a class by pickle": CHANGES_A_CLASS_BY_PICKLE + WRONG,
    "nonsense as an answer": NONSENSE,
    "no answer": NO_ANSWER,
    "an endless answer": ENDLESS_ANSWER,
}


@pytest.mark.parametrize("way", FORGERIES)
def test_a_program_cannot_forge_its_verdict(way):
    timeout = 0.2 if way == "stop the tests" else 0.5  # (of which the clock waits four times as long)
    outcome = run_tests(FORGERIES[way], TESTS, ("f",), timeout=timeout, memory_mb=256)
    assert outcome.status in ("failed", "killed", "timeout", "memory") and outcome.failed > 0, outcome


def test_the_hunter_finds_tests_that_run_together_with_it():
    assert run_tests(HUNTS_FOR_THE_TESTS, "assert f(10) == 11, 'n33dle'", ("f",), together=True).status == "passed"
    assert run_tests(HUNTS_FOR_THE_TESTS, "assert f(10) == 11, 'n33dle'", ("f",)).status == "failed"


def test_the_honest_program_passes_the_same_tests():
    outcome = run_tests(ADDS_ONE, TESTS, ("f",))
    assert (outcome.status, outcome.passed, outcome.failed) == ("passed", 3, 0), outcome


def test_tests_that_use_the_programs_classes_run_together_with_it():
    program = "class Node:\n  def __init__(self, v): self.v = v\ndef f(node): return node.v"
    assert run_tests(program, "assert f(Node(3)) == 3", ("f",), together=True).status == "passed"
    wrong = run_tests(program, "assert f(Node(3)) == 4", ("f",), together=True)
    assert (wrong.status, wrong.passed, wrong.failed) == ("failed", 0, 1)


def test_names_that_tests_use():
    tests = "import math as m\ndef check(c):\n  for i in range(3): assert c(i) == poly(i) + m.pi\n"
    tests += "try: check(f)\nexcept E as e: print(e)"
    assert names_used(tests) == {"poly", "f", "E"}
