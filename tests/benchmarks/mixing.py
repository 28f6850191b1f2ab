"""`python -m tests.benchmarks.mixing`: planning, reading and packing against `datasets` and TRL, run in turn.

Same sets, same probabilities, same batches; medians of five rounds, A/B/A/B. Packing needs WHETSTONE_DATA.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_recipes.mixing import draws_of
from data_recipes.mixture import build_mixture
from data_recipes.order import Order
from data_recipes.packing import pack_batch, packs
from data_recipes.recipe import load_recipe
from data_recipes.store import Mixture

ROUNDS = 5
BATCH = 32


def in_turn(programs: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return the median rate (things a second) of each program, run one after another in every round."""
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(ROUNDS + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            done = program()
            if number:  # the first round warms up
                rates[name].append(done / (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in rates.items()}


def planning() -> dict[str, float]:
    """Rows planned a second: two sets of 400,000 and 10,000 rows at 70 % and 30 %."""
    import datasets

    sets = [datasets.Dataset.from_dict({"x": range(size)}) for size in (400_000, 10_000)]

    def theirs() -> int:
        mixed = datasets.interleave_datasets(sets, probabilities=[0.7, 0.3], seed=1, stopping_strategy="all_exhausted")
        return len(mixed)

    planned = theirs()
    draws = (round(0.7 * planned), planned - round(0.7 * planned))

    def ours() -> int:
        return len(Order((400_000, 10_000), (draws,), seed=1).indices(0, planned))

    return in_turn({"datasets.interleave_datasets": theirs, "Order.indices": ours})


def synthetic(folder: Path, rows: int, tasks: int) -> Mixture:
    """Return a mixture of tokenised rows of 20 to 200 tokens, of tasks of unlike size."""
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, (rows * (weights := rng.random(tasks)) / weights.sum()).astype(int))
    text = "word " * 200
    for number, size in enumerate(sizes):
        with open(folder / f"{number}.jsonl", "w") as file:
            for row, length in enumerate(rng.integers(20, 200, size)):
                file.write(f'{{"prompt": "{number} {row}", "completion": "{text[: 5 * length]}"}}\n')
    lines = "".join(f"  t{n}: {{kind: domain, source: {{type: files, path: {n}.jsonl}}}}\n" for n in range(tasks))
    (folder / "recipe.yaml").write_text(f"tasks:\n{lines}cleaning: {{duplicates: false, decontaminate: none}}\n")
    recipe, _ = load_recipe("recipe.yaml", beside=folder)
    build_mixture(recipe, folder / "m", seed=0, tokenise=ByWord(), workers=os.cpu_count() or 1)
    return Mixture(folder / "m")


class ByWord:
    """A token a word: the benchmarks measure the mixture, not a tokenizer."""

    name, vocabulary = "by word", 50_000

    def __call__(self, rows):
        """Return the hash of each word as its token."""
        made = []
        for row in rows:
            prompt, target = ([len(word) % 50_000 for word in turn.content.split()] for turn in row.messages)
            made.append((prompt + target, len(prompt)))
        return made


def reading(mixture: Mixture, batches: int = 1000) -> dict[str, float]:
    """Rows read a second, tokenised, in batches of 32, interleaved at the tasks' shares."""
    import datasets

    datasets.disable_progress_bars()
    bounds = np.cumsum([0, *mixture.sizes])
    sets = []
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        rows = [mixture.tokens[mixture.offsets[i] : mixture.offsets[i + 1]] for i in range(first, last)]
        sets.append(datasets.Dataset.from_dict({"input_ids": rows}))
    shares = (np.array(mixture.sizes) / len(mixture)).tolist()
    with tempfile.TemporaryDirectory() as folder:  # from disk, memory-mapped, as a run reads them
        for number, one in enumerate(sets):
            one.save_to_disk(f"{folder}/{number}")
        sets = [datasets.load_from_disk(f"{folder}/{number}") for number in range(len(sets))]
        mapped = datasets.interleave_datasets(sets, probabilities=shares, seed=1, stopping_strategy="all_exhausted")
        formats = {name: mapped.with_format(name) for name in (None, "numpy", "arrow")}
        streams = [one.to_iterable_dataset() for one in sets]
        stream = datasets.interleave_datasets(streams, probabilities=shares, seed=1, stopping_strategy="all_exhausted")
        order = draws_of(mixture.manifest).order(seed=1)

        def map_style(name: str | None) -> Callable[[], int]:
            one = formats[name]
            return lambda: sum(len(one[i * BATCH : (i + 1) * BATCH]["input_ids"]) for i in range(batches))

        def iterable() -> int:
            some = stream.batch(BATCH).take(batches // 20)
            return sum(len(batch["input_ids"]) for batch in some)

        def ours() -> int:
            return sum(len(batch["input_ids"]) for batch in mixture.read(order, 0, batches * BATCH, BATCH))

        mapped_ones = {f"datasets, map-style as {name or 'lists'}": map_style(name) for name in formats}
        return in_turn({"datasets, iterable": iterable, **mapped_ones, "Mixture.read, padded": ours})


def padding(folder: Path, capacity: int = 2048) -> dict[str, float]:
    """Share of padding of a mixed recipe: batches of 8 as they come, TRL's packing, ours."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    mixture = Mixture(folder)
    order = draws_of(mixture.manifest).order(seed=1)
    sequences = packs(mixture, order, 0, len(order), capacity)
    empty = wasted = 0
    for start in range(0, len(sequences), 64):
        batch = pack_batch(mixture, sequences[start : start + 64], capacity)
        wasted += int((batch["segment_ids"] < 0).sum())
    indices = order.indices(0, len(order))
    lengths = np.minimum(mixture.lengths[indices], capacity)
    whole = lengths[: len(lengths) // 8 * 8].reshape(-1, 8)
    empty = int((whole.max(axis=1, keepdims=True) - whole).sum())
    rows = [mixture.tokens[mixture.offsets[i] : mixture.offsets[i + 1]].tolist()[:capacity] for i in indices]
    theirs = pack_dataset(Dataset.from_dict({"input_ids": rows}), seq_length=capacity, strategy="bfd")
    return {
        "batches of 8, unpacked": empty / (empty + int(whole.sum())),
        "trl.pack_dataset, bfd": 1 - int(lengths.sum()) / (len(theirs) * capacity),
        "packs": wasted / (len(sequences) * capacity),
    }


def main() -> None:
    """Measure and print."""
    print(f"load {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    for title, rates in (("planning, rows/s", planning()),):
        _print(title, rates)
    with tempfile.TemporaryDirectory() as folder:
        mixture = synthetic(Path(folder), rows=200_000, tasks=10)
        _print("reading, rows/s", reading(mixture))
    data = os.environ.get("WHETSTONE_DATA")
    if data:
        with tempfile.TemporaryDirectory() as folder:
            from eval.models import resolve_model
            from pipelines.tokens import ChatTokeniser

            recipe, _ = load_recipe("cocktail")
            recipe.cleaning.protect = "heldout"
            tokeniser = ChatTokeniser(resolve_model("smollm2-135m-instruct"))
            build_mixture(recipe, Path(folder) / "m", seed=0, tokenise=tokeniser)
            for name, share in padding(Path(folder) / "m").items():
                print(f"padding, {name}: {share:.2%}")


def _print(title: str, rates: dict[str, float]) -> None:
    ours = list(rates.values())[-1]
    for name, rate in rates.items():
        print(f"{title}, {name}: {rate:,.0f} (ours: {ours / rate:.1f} times)")


if __name__ == "__main__":
    main()
