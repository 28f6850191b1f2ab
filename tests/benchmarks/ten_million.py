"""`python -m tests.benchmarks.ten_million [ROWS]`: ten million synthetic rows in 50 tasks, cleaning off: built, then
read.

Prints time, disk, and memory: the peak of the building process, and of its largest worker, each times how many there
are.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture
from data_recipes.recipe import load_recipe
from data_recipes.store import Mixture
from tests.benchmarks.mixing import ByWord

TASKS = 50


def rows(task: int, size: int) -> Iterator[dict]:
    """Yield the records of a synthetic task: some twenty words each."""
    for number in range(size):
        words = " ".join(f"w{(number * 31 + place * 17) % 977}" for place in range(12 + number % 9))
        yield {
            "key": number,
            "prompt": f"Task {task}, question {number}: {words}?",
            "completion": f"{words[:30]} {number}",
        }


def build(folder: Path, total: int) -> None:
    """Build the mixture in `folder`."""
    source = "{{type: python, function: 'tests.benchmarks.ten_million:rows', arguments: {{task: {0}, size: {1}}}}}"
    lines = "".join(
        f"  t{task}: {{kind: instruction, source: {source.format(task, total // TASKS)}}}\n" for task in range(TASKS)
    )
    (folder / "recipe.yaml").write_text(f"tasks:\n{lines}cleaning: {{duplicates: false, decontaminate: none}}\n")
    recipe, _ = load_recipe("recipe.yaml", beside=folder)
    start = time.monotonic()
    build_mixture(recipe, folder / "m", seed=0, tokenise=ByWord(), workers=os.cpu_count() or 1)
    print(f"built {total:,} rows of {TASKS} tasks in {time.monotonic() - start:.0f} s, {os.cpu_count()} workers")
    _memory("build")
    size = sum(path.stat().st_size for path in (folder / "m").iterdir())
    parts = ", ".join(f"{path.name} {path.stat().st_size / 1e9:.2f}" for path in sorted((folder / "m").iterdir()))
    print(f"disk: {size / 1e9:.2f} GB ({parts})")


def read(folder: Path) -> None:
    """Read an epoch of the mixture in `folder`, in batches of 32."""
    start = time.monotonic()
    mixture = Mixture(folder / "m")
    opened = time.monotonic() - start
    order = draws_of(mixture.manifest).order(seed=0)
    start = time.monotonic()
    count = tokens = 0
    for batch in mixture.read(order, 0, len(order), 32):
        count += len(batch["task_ids"])
        tokens += int(batch["attention_mask"].sum())
    seconds = time.monotonic() - start
    assert (count, tokens) == (len(mixture), len(mixture.tokens))
    print(f"opened and checked in {opened:.1f} s; read {count:,} rows, {tokens:,} tokens in {seconds:.0f} s")
    _memory("read")


def _memory(what: str) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    workers = (os.cpu_count() or 1) if child else 0
    print(f"{what}: peak memory {own + workers * child:.2f} GB ({own:.2f} + {workers} x {child:.2f})")


def main() -> None:
    """Build and read, each in a process of its own."""
    if len(sys.argv) > 2:
        {"build": lambda: build(Path(sys.argv[2]), int(sys.argv[3])), "read": lambda: read(Path(sys.argv[2]))}[
            sys.argv[1]
        ]()
        return
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory(dir=os.environ.get("WHETSTONE_SCRATCH")) as folder:
        for step in ("build", "read"):
            subprocess.run([sys.executable, "-m", "tests.benchmarks.ten_million", step, folder, str(total)], check=True)


if __name__ == "__main__":
    main()
