"""The sandbox and the code verifier on all published solutions of HumanEval and MBPP."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from eval.benchmarks import humaneval, mbpp
from eval.verifiers import verify
from eval.verifiers.code import outcome

pytestmark = pytest.mark.data


def all_outcomes(programs, rows):
    with ThreadPoolExecutor(3) as pool:  # (what waits for the kernel leaves a processor free)
        return list(pool.map(outcome, programs, rows))


def test_all_164_solutions_of_humaneval_pass_and_empty_bodies_fail():
    rows = humaneval.problems(continuation=True)
    solved = all_outcomes([row.meta["prompt_code"] + row.meta["gold_text"] for row in rows], rows)
    assert len(rows) == 164
    assert [(row.id, end) for row, end in zip(rows, solved, strict=True) if end.status != "passed"] == []
    empty = all_outcomes([row.meta["prompt_code"] + "    pass\n" for row in rows], rows)
    assert [row.id for row, end in zip(rows, empty, strict=True) if end.status == "passed"] == []
    assert all(end.failed > 0 for end in empty)


def test_all_500_solutions_of_mbpp_pass():
    rows = mbpp.problems(continuation=True)
    solved = all_outcomes([row.meta["gold_text"] for row in rows], rows)
    assert len(rows) == 500
    assert [(row.id, end) for row, end in zip(rows, solved, strict=True) if end.status != "passed"] == []
    # one problem's tests build objects of the program's own class
    assert [row.id for row in rows if row.meta["together"]] == ["mbpp/367"]


def test_a_sample_of_mbpp_through_a_chat_and_with_the_wrong_body():
    rows = mbpp.problems()[::50]
    assert [verify(row, row.meta["gold_text"]).score for row in rows] == [1.0] * len(rows)
    wrong = [f"```python\ndef {row.meta['entry_point']}(*given):\n    return 'wrong'\n```" for row in rows]
    assert [verify(row, text).score for row, text in zip(rows, wrong, strict=True)] == [0.0] * len(rows)
