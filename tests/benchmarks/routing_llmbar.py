"""`python -m tests.benchmarks.routing_llmbar FILE [--judge NAME]`: LLMBar as pairs for `whetstone route simulate`.

The human label is LLMBar's own; the model's is the published verdict of a judge that was shown the pair as it stands
(princeton-nlp/LLMBar; `judge_outputs.csv.gz` in WHETSTONE_DATA/llmbar). Pairs whose verdict could not be read are left
out. Needs WHETSTONE_DATA.
"""

import argparse
import csv
import gzip
import os
from collections import Counter
from pathlib import Path

from data_recipes.files import read_json, write_atomically
from eval.benchmarks.llmbar import MAIN
from pipelines.routing.pairs import Pair, jsonl

JUDGE = "GPT-4/Vanilla"


def judged_pairs(judge: str = JUDGE) -> list[Pair]:
    """Return LLMBar's pairs, output 1 as a and output 2 as b, with the verdicts of a judge that has any on each."""
    folder = Path(os.environ["WHETSTONE_DATA"]) / "llmbar"
    with gzip.open(folder / "judge_outputs.csv.gz", "rt", newline="") as file:
        verdicts = {
            (line["subset"], int(line["idx"])): line["winner"]
            for line in csv.DictReader(file)
            if line["evaluator"] == judge
        }
    letters = {"1": "a", "2": "b"}
    pairs = []
    for name, path in MAIN.items():
        for number, record in enumerate(read_json(folder / "Dataset" / path / "dataset.json")):
            winner = verdicts[path, number]
            if winner not in letters:
                continue
            texts = {"prompt": record["input"], "a": record["output_1"], "b": record["output_2"]}
            labels = {"ai": letters[winner], "human": letters[str(record["label"])]}
            pairs.append(Pair(id=f"{name}/{number}", **texts, **labels))
    return pairs


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.routing_llmbar")
    parser.add_argument("file", type=Path)
    parser.add_argument("--judge", default=JUDGE, help=f"evaluator/prompt of the published verdicts (default {JUDGE})")
    arguments = parser.parse_args()
    pairs = judged_pairs(arguments.judge)
    write_atomically(arguments.file, jsonl(pair.model_dump() for pair in pairs))
    right = Counter(pair.ai == pair.human for pair in pairs)
    print(f"{arguments.file}: {len(pairs)} pairs, {arguments.judge} right on {right[True]}")


if __name__ == "__main__":
    main()
