"""`python -m tests.benchmarks.contamination`: what decontamination finds of planted test questions, and finds wrongly.

500 rows each, verbatim and lightly reworded (100 a rewording), of the GSM8K, MMLU-Pro and HumanEval tests, planted in
100,000 real training rows. Needs WHETSTONE_DATA.
"""

import random
import time
from collections import Counter

from data_recipes.decontamination import Protected
from data_recipes.row import Row
from eval.protected import items_of
from tests.benchmarks.planting import REWORDINGS, all_at_once, clean_rows, planted

SETS = {"gsm8k": 168, "mmlu_pro": 168, "humaneval": 164}


def chosen_items(seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Return the items of all three sets, and 500 of them."""
    everything: list[Row] = []
    chosen: list[Row] = []
    for name, count in SETS.items():
        items = items_of(name)
        everything += items
        chosen += random.Random(f"{seed}/{name}").sample(items, count)
    return everything, chosen


def shares_found(index: Protected, chosen: list[Row], seed: int = 0) -> dict[str, float]:
    """Return the share found of verbatim rows, of each rewording, of all rewordings, and of all edits at once."""
    rng = random.Random(seed)
    shares = {"verbatim": _share(index, planted(chosen, lambda text: text))}
    order = rng.sample(chosen, len(chosen))
    parts = [order[number :: len(REWORDINGS)] for number in range(len(REWORDINGS))]
    for (name, reword), part in zip(REWORDINGS.items(), parts, strict=True):
        shares[name] = _share(index, planted(part, lambda text, reword=reword: reword(text, rng)))
    shares["reworded, all kinds"] = sum(shares[name] for name in REWORDINGS) / len(REWORDINGS)
    shares["every edit at once"] = _share(index, planted(chosen, lambda text: all_at_once(text, rng)))
    return shares


def _share(index: Protected, rows) -> float:
    found = [index.find(row) is not None for row in rows]
    return sum(found) / len(found)


def main() -> None:
    """Measure and print."""
    everything, chosen = chosen_items()
    start = time.monotonic()
    index = Protected(everything)
    print(f"index of {len(everything)} items: {time.monotonic() - start:.1f} s")
    for name, share in shares_found(index, chosen).items():
        print(f"{name}: {share:.1%} found")
    rows = clean_rows(100_000)
    start = time.monotonic()
    flagged = [(row, match) for row in rows if (match := index.find(row))]
    seconds = time.monotonic() - start
    print(f"clean rows flagged: {len(flagged)} of {len(rows)} ({len(flagged) / len(rows):.3%}), {seconds:.0f} s")
    print(Counter(row.task for row, _ in flagged).most_common())
    items = {item.id: item for item in everything}
    for row, match in flagged[:: max(1, len(flagged) // 12)]:
        print(f"- {match.how} {match.score}: {row.question[:150]!r}\n  {items[match.item].question[:150]!r}")


if __name__ == "__main__":
    main()
