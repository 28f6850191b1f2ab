"""What a run in the sandbox costs over a bare interpreter: ``python -m tests.benchmarks.sandbox``."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from eval.sandbox import run_python, run_tests


def bare() -> None:
    """Start the interpreter and nothing else."""
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)


def script() -> None:
    """Run a script that does nothing."""
    run_python("pass")


def tests() -> None:
    """Run two assertions on a program."""
    run_tests("def f(x):\n  return x + 1", "assert f(1) == 2\nassert f(2) == 3", ("f",))


def main() -> None:
    """Print medians of runs in turn, then what many threads do in a second."""
    seconds: dict[str, list[float]] = {"bare": [], "script": [], "tests": []}
    for _ in range(50):
        for work in (bare, script, tests):
            begin = time.perf_counter()
            work()
            seconds[work.__name__].append(time.perf_counter() - begin)
    for name, times in seconds.items():
        print(f"{name}: {1000 * median(times):.1f} ms")
    for threads in (1, 2, 4, 8):
        with ThreadPoolExecutor(threads) as pool:
            begin = time.perf_counter()
            list(pool.map(lambda _: tests(), range(100)))
            print(f"{threads} threads: {100 / (time.perf_counter() - begin):.0f} runs a second")


if __name__ == "__main__":
    main()
