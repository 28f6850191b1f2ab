"""Toy rows and answers for the tests of critique benchmarks."""

import json

from data_recipes.row import Message, Row
from eval.benchmarks import Answered, BenchmarkSettings, Item
from eval.scoring import answered


def answer(row: Row, text: str, *, round: int = 0, sample: int = 0, num_tokens: int = 10) -> Answered:
    """Read and score a completion as the harness does."""
    stored = {"completion": text, "round": round, "sample": sample, "finish_reason": "stop", "num_tokens": num_tokens}
    return answered(stored, row, BenchmarkSettings(type="toy"))


def rows_of(items: list[Item | Row]) -> list[Row]:
    return [item.row if isinstance(item, Item) else item for item in items]


def verdict_row(name: str, right: bool, **meta) -> Row:
    return Row(
        id=name,
        task="t",
        kind="critique",
        messages=[Message(role="user", content="?")],
        answer="correct" if right else "incorrect",
        verifiers=["verdict"],
        meta={"options": ["correct", "incorrect"], **meta},
    )


def write_lines(path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def manifest(folder, trained_on: list[str]):
    (folder / "mixture").mkdir()
    (folder / "mixture" / "manifest.json").write_text(json.dumps({"halves_trained_on": trained_on}))
    return folder / "mixture"
