"""Programs read out of completions and judged by their tests; HumanEval and MBPP as benchmarks; pass@k."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.benchmarks import Answered, humaneval, mbpp
from eval.pass_at_k import pass_at_k, pass_at_k_metrics
from eval.verifiers import Verdict, fault, verify
from eval.verifiers.code import continuation, first_block, outcome, read

PROMPT = 'import math\n\n\ndef area(r):\n    """Area of a circle of radius r."""\n'
TESTS = """
def check(candidate):
    assert abs(candidate(2) - 4 * math.pi) < 1e-9
    assert candidate(0) == 0
check(area)
"""
ONE = "import math\n\n\ndef area(r):\n    return 1\n"
SHORT = "import math\n\n\ndef area(r): return 1\n"
TWICE = "```python\ndef area(r): return 0\n```\nBetter:\n```python\ndef area(r): return 1\n```"


def row(**meta) -> Row:
    return Row(
        id="x",
        task="code",
        kind="domain",
        messages=[Message(role="user", content="?")],
        answer="",
        verifiers=["code"],
        meta={"entry_point": "area", "prompt_code": PROMPT, "tests": TESTS} | meta,
    )


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\ndef area(r):\n    return 1\n```", ONE),
        ("Sure!\n```\ndef area(r): return 1\n```\nDone.", SHORT),
        ("```py\narea = lambda r: 1\n```", "import math\n\n\narea = lambda r: 1\n"),
        ("```python\r\ndef area(r):\r\n    return 1\r\n```", ONE),
        ("1. Write:\n   ```python\n   def area(r):\n       return 1\n   ```", ONE),
        ("```python\ndef area(r):\n    return 1", ONE),
        ("```python\ndef area(r): return 1\n```\nUse it:\n```python\nprint(area(2))\n```", SHORT),
        (TWICE, SHORT),
        ("```bash\npip install x\n```\n```python\ndef Area(r): 1\n```", "import math\n\n\ndef Area(r): 1\n"),
        ("Here it is:\ndef area(r):\n    return 1\n\nIt returns one.", ONE + "\n"),
        ("    return math.pi * r * r\n", PROMPT + "    return math.pi * r * r\n"),
        ("\n    return 1\nprint(area(1))", PROMPT + "\n    return 1"),
        ("I cannot do that.", None),
        ("```json\n{}\n```", None),
        ("```python\n\n```", None),
        ("", None),
    ],
)
def test_the_program_is_read_as_a_person_would(completion, program):
    assert read(completion, row()) == program


def test_other_ways_of_reading():
    assert first_block(TWICE, row()) == "import math\n\n\ndef area(r): return 0\n"
    assert continuation("    return 1\ndef other(): pass", row()) == PROMPT + "    return 1"
    assert read("    return 1\n# more", row(continuation=True)) == PROMPT + "    return 1"
    marked = row(continuation=True, prompt_code="", stops=["[DONE]"])
    assert read("def area(r): 1\n[DONE]\nmore", marked) == "def area(r): 1\n"
    assert read("  \n", row(continuation=True)) is None
    assert verify(row(), TWICE, "first_block").score == 0


def test_programs_are_scored_by_their_tests():
    right = "```python\ndef area(r): return math.pi * r ** 2\n```"
    assert verify(row(), right).score == 1
    judged = verify(row(), right.replace("math.pi", "3"))
    assert judged.score == 0
    assert fault(row(), judged.answer) == "area(2) returns 12, against: abs(candidate(2) - 4 * math.pi) < 1e-09"
    assert (outcome(judged.answer, row()).passed, outcome(judged.answer, row()).failed) == (1, 1)
    endless = verify(row(timeout=0.3), "```python\ndef area(r):\n    while True: pass\n```")
    assert endless.score == 0 and fault(row(timeout=0.3), endless.answer) == "It takes too long"
    assert verify(row(), "no code").score is None
    as_list = row(tests=["assert area(0) == 0", "assert area(1) > 3"], prompt_code="")
    assert verify(as_list, "```python\narea = lambda r: 4 * r\n```").score == 1


@pytest.mark.parametrize("tests", [None, "", [], ["  "]])
def test_a_row_without_tests_is_refused(tests):
    with pytest.raises(UserError, match=r"'x' of task 'code' has no meta.tests"):
        verify(row(tests=tests), "```python\ndef area(r): 1\n```")


@pytest.mark.parametrize(
    "text",
    [
        "`" * 1_000_000,
        "```python\n" * 100_000,
        "\n" * 1_000_000,
        " \t" * 500_000,
        "def area(" * 120_000,
        "def " + "a." * 500_000,
    ],
)
def test_huge_completions_are_read_in_linear_time(text):
    begin = time.monotonic()
    for one in (row(), row(continuation=True)):
        read(text, one)
    assert time.monotonic() - begin < 5


def test_pass_at_k_by_hand():
    assert pass_at_k(1, 1, 1) == 1 and pass_at_k(5, 0, 5) == 0 and pass_at_k(5, 1, 5) == 1
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - (3 * 2) / (4 * 3))
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(200, 20, 100) == pytest.approx(1 - _product(200, 20, 100))
    with pytest.raises(ValueError, match="pass@3 of 2"):
        pass_at_k(2, 1, 3)


def _product(n, c, k):
    """The form in which the paper's code evaluates C(n - c, k) / C(n, k)."""
    value = 1.0
    for i in range(n - c + 1, n + 1):
        value *= 1 - k / i
    return value


def test_pass_at_k_of_a_run():
    def answered(problem, sample, score):
        problem_row = row().model_copy(update={"id": problem})
        return Answered(problem_row, 0, sample, "", "stop", Verdict(score, None if score is None else ""), score or 0.0)

    samples = [answered("a", n, float(n < 2)) for n in range(4)] + [answered("b", n, None) for n in range(4)]
    metrics = pass_at_k_metrics(4, samples)
    assert list(metrics) == ["pass@1", "pass@4"]
    assert metrics["pass@1"].value == pytest.approx(0.25) and metrics["pass@4"].value == pytest.approx(0.5)
    assert metrics["pass@1"].n == 2 and metrics["pass@1"].low == 0 and metrics["pass@1"].high == pytest.approx(0.5)
    assert pass_at_k_metrics(1, samples) == {}


def test_humaneval_asks_in_a_chat_or_for_a_continuation():
    settings = humaneval.Settings(type="humaneval", items=10)
    chat, plain = (humaneval.items(settings.model_copy(update={"chat": chat}), None) for chat in (True, False))
    ids = [item.row.id for item in chat]
    assert ids == [item.row.id for item in plain] and len(set(ids)) == 10
    assert chat[0].stop == () and plain[0].stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert plain[0].row.question == plain[0].row.meta["prompt_code"]
    assert chat[0].row.question.endswith(plain[0].row.question + "```")
    with ThreadPoolExecutor(2) as pool:
        right = pool.map(lambda item: verify(item.row, item.row.meta["gold_text"]).score, [*chat, *plain])
        empty = pool.map(lambda item: verify(item.row, "    pass\n").score, plain)
    assert set(right) == {1.0} and set(empty) == {0.0}
    assert len(humaneval.problems()) == 164 and humaneval.metrics(settings, []) == {}


def problem(number: int, name: str, code: str, *tests: str, setup: str = "") -> dict:
    text = f"Write a function number {number}."
    return {"task_id": number, "text": text, "code": code, "test_list": list(tests), "test_setup_code": setup}


@pytest.fixture
def small_mbpp(tmp_path, monkeypatch):
    """MBPP's layout, with problems of our own."""
    records = [problem(n, "g", f"def g(x):\r\n    return x + {n}", f"assert g(0) == {n}") for n in (2, 3, 4)]
    records += [
        problem(11, "add", "def add(a, b):\r\n\treturn a + b", "assert add(1, 2) == 3", "assert add(0, 0) == 0"),
        problem(12, "sum", "def sum(a):\r\n\treturn a + a", "assert sum(2) == 4"),
        problem(
            510,
            "value",
            "class Node:\r\n  def __init__(self, v):\r\n    self.v = v\r\ndef value(n):\r\n  return n.v",
            "assert value(root) == 5",
            setup="root = Node(5)",
        ),
        problem(511, "late", "def late(): pass", "assert late() is None"),
    ]
    file = tmp_path / "code_and_format" / "mbpp.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    return file


def test_mbpp_asks_with_the_papers_examples(small_mbpp):
    chat = mbpp.items(mbpp.Settings(type="mbpp"), None)
    assert [item.row.id for item in chat] == ["mbpp/11", "mbpp/12", "mbpp/510"]
    turns = chat[0].row.prompt
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3 + ["user"]
    assert turns[1]["content"] == "```python\ndef g(x):\n    return x + 2\n```"
    asked = "number 11. Your code should pass these tests:\n\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n"
    assert asked in turns[-1]["content"]
    plain = mbpp.items(mbpp.Settings(type="mbpp", chat=False, num_shots=1), None)
    text = plain[0].row.question
    assert text.count("[BEGIN]") == 2 and text.count("[DONE]") == 1 and text.endswith("\n[BEGIN]\n")
    assert plain[0].stop == ("[DONE]",) and len(plain[0].row.prompt) == 1
    for item in [*chat, *plain]:
        assert verify(item.row, item.row.meta["gold_text"]).score == 1, item.row.id
    assert [item.row.meta["together"] for item in chat] == [False, False, True]
    assert verify(plain[0].row, "def add(a, b): return 3\n[DONE]").score == 0


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"test_list": "assert add(1, 2) == 3"}, "column 'test_list'"),
        ({"test_list": ["assert add("]}, "task 11: the tests are no Python"),
        ({"test_list": ["assert len([]) == 0"]}, "task 11: its tests call no function of its code"),
    ],
)
def test_a_spoilt_problem_of_mbpp_is_named(small_mbpp, spoilt, message):
    records = [json.loads(line) for line in small_mbpp.read_text().splitlines()]
    changed = [record | spoilt if record["task_id"] == 11 else record for record in records]
    small_mbpp.write_text("".join(json.dumps(record) + "\n" for record in changed))
    with pytest.raises(UserError, match=message):
        mbpp.problems()


def test_an_example_that_is_missing_is_named(small_mbpp):
    lines = small_mbpp.read_text().splitlines(keepends=True)
    small_mbpp.write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="task 2, an example of the prompt, is missing"):
        mbpp.problems(num_shots=3)
