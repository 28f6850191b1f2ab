"""CriticEval's corrections: a revised solution whose last number, or whose program, is checked.

``row.meta["domain"]`` is math_cot (the answer is a number), math_pot (a class ``Solution`` whose ``solution()`` returns
it), code_exec or code_not_exec (unit tests). Of programs ``meta`` says what `eval.verifiers.code` needs; the tests of
math_pot ask ``the_answer()``.
"""

import re

from data_recipes.row import Row
from eval.verifiers import code, number
from eval.verifiers.rating import last_number


def read(completion: str, row: Row) -> str | None:
    """Return the number that the solution announces, or the program as `eval.verifiers.code` reads it."""
    return (number if row.meta["domain"] == "math_cot" else code).read(completion, row)


def _compat(completion: str, row: Row) -> str | None:
    """``parse_math_result``, the last number but 0, and ``parse_code``, a closed Python block or a text without any."""
    if row.meta["domain"] == "math_cot":
        value = last_number(completion)
        return None if value is None else str(value)
    start = completion.find("```python")
    end = completion.find("```", start + 9) if start >= 0 else -1
    if end < 0:
        return completion if completion.strip() and "```" not in completion else None
    return re.split(r"\s+", completion[start + 9 : end], maxsplit=1)[-1] or None


EXTRACTIONS = {"compat": _compat}


HEADER = """import collections, datetime, fractions, functools, heapq, itertools, math, random, re, sys, time
from collections import Counter, OrderedDict, defaultdict, deque
from functools import lru_cache
from heapq import *
from itertools import accumulate, combinations, permutations, product
from math import ceil, cos, exp, fabs, floor, gcd, log, log2, sin, sqrt, tan
from typing import *
"""
"""What every program may rely on; of the repository's own list numpy and sympy are left out."""


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the number is the true one, or the program returns it or passes its unit tests, else 0.0."""
    if row.meta["domain"] == "math_cot":
        return number.score(answer, row)
    returned = "\n\ndef the_answer():\n    return float(Solution().solution())\n"
    return code.score(HEADER + answer + returned * (row.meta["domain"] == "math_pot"), row)
