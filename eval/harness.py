"""Benchmarks x models -> run folders: every completion is on disk as soon as it is finished, and scored afterwards.

``<folder>/<model>/samples.jsonl`` holds one line a completion with everything that made it; ``results.json``
is computed from it alone. Running again keeps every stored completion and generates only the missing ones.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint, read_json, read_jsonl, write_json
from data_recipes.progress import say, track
from data_recipes.row import Row
from eval.engines import Engine, Request
from eval.statistics import Scores
from eval.verifiers import verify


@dataclass(frozen=True)
class Contestant:
    """One row of the leaderboard: a model, asked in a certain way."""

    name: str
    model: str | None
    """Folder or hub id; None: no model writes, `constant` answers."""
    num_examples: int = 0
    """Worked examples before the question."""
    constant: bool = False
    """Answers every question of a task with that task's most frequent training answer."""


@dataclass(frozen=True)
class Item:
    """One benchmark question."""

    benchmark: str
    max_tokens: int
    row: Row


def evaluate(
    contestants: list[Contestant],
    items: list[Item],
    folder: Path,
    *,
    engine_for: Callable[[str], Engine],
    examples: Callable[[str, int], list[Row]],
    constants: dict[str, str],
    seed: int,
) -> None:
    """Generate what is missing for every contestant, then score all of it.

    Args:
        engine_for: returns an engine that holds the given model's weights; called only where something is missing.
        examples: (task, k) -> k training rows with targets.
        constants: task -> its most frequent training answer.

    Raises:
        UserError: the folder holds completions to other questions or settings.
    """
    for contestant in contestants:
        run = folder / slug(contestant.name)
        answer_all(contestant, items, run, engine_for, examples, constants, seed)
        score_run(run, [item.row for item in items])


def slug(name: str) -> str:
    """Return a leaderboard row's name as a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-").lower()


def answer_all(
    contestant: Contestant,
    items: list[Item],
    folder: Path,
    engine_for: Callable[[str], Engine],
    examples: Callable[[str, int], list[Row]],
    constants: dict[str, str],
    seed: int,
) -> None:
    """Complete every item that has no stored completion yet; see `evaluate`."""
    settings = {
        **asdict(contestant),
        "seed": seed,
        "items": fingerprint([(item.row.id, item.row.prompt, item.max_tokens) for item in items]),
    }
    if (folder / "settings.json").exists() and read_json(folder / "settings.json") != settings:
        raise UserError(
            f"{folder}: holds completions to other questions or settings; move it away or name another output_dir"
        )
    write_json(folder / "settings.json", settings)
    log = JsonlLog(folder / "samples.jsonl")
    session = 1 + max((sample["session"] for sample in log.rows), default=0)
    stored = {sample["id"] for sample in log.rows}
    missing = [item for item in items if item.row.id not in stored]
    if not missing:
        log.close()
        return

    def record(item: Item, prompt: list[dict[str, str]], **written: Any) -> None:
        log.append(
            {
                "id": item.row.id,
                "benchmark": item.benchmark,
                "task": item.row.task,
                "prompt": prompt,
                **written,
                "seed": seed,
                "max_tokens": item.max_tokens,
                "session": session,
            }
        )

    if contestant.constant:
        for item in missing:
            text = constants.get(item.row.task, "")
            record(
                item,
                item.row.prompt,
                completion=text,
                num_tokens=0,
                num_prompt_tokens=0,
                finish_reason="stop",
                seconds=0,
            )
        log.close()
        return

    assert contestant.model is not None
    engine = engine_for(contestant.model)
    by_id = {item.row.id: item for item in missing}
    requests = [
        Request(
            item.row.id,
            _with_examples(item.row, examples(item.row.task, contestant.num_examples)),
            item.max_tokens,
            seed=seed,
        )
        for item in missing
    ]
    if stored:
        say(f"  {contestant.name}: {len(stored)} completions kept, {len(missing)} to go")
    start = time.monotonic()
    for request, completion in track(engine.generate(requests), f"evaluate {contestant.name}", len(requests)):
        record(
            by_id[request.key],
            request.messages,
            completion=completion.text,
            num_tokens=completion.num_tokens,
            num_prompt_tokens=completion.num_prompt_tokens,
            finish_reason=completion.finish_reason,
            seconds=round(time.monotonic() - start, 3),
        )
    log.close()


def _with_examples(row: Row, examples: list[Row]) -> list[dict[str, str]]:
    turns = [turn.model_dump() for example in examples for turn in example.messages]
    return [*turns, *row.prompt]


def score_run(folder: Path, rows: list[Row]) -> dict[str, Any]:
    """Score a folder's stored completions and write its ``results.json``. An unparsed answer counts as wrong here.

    Returns:
        The results: scores by task and item, shares of unparsed and truncated answers, tokens, sessions.
    """
    settings = read_json(folder / "settings.json")
    by_id = {row.id: row for row in rows}
    samples = [sample for sample in read_jsonl(folder / "samples.jsonl") if sample["id"] in by_id]
    scores: Scores = {}
    unparsed: Counter[str] = Counter()
    truncated: Counter[str] = Counter()
    for sample in samples:
        task = sample["task"]
        verdict = verify(by_id[sample["id"]], sample["completion"])
        scores.setdefault(task, {})[sample["id"]] = verdict.score or 0.0
        unparsed[task] += verdict.score is None
        truncated[task] += sample["finish_reason"] == "length"
    seconds: dict[int, float] = {}
    for sample in samples:
        seconds[sample["session"]] = max(seconds.get(sample["session"], 0.0), sample["seconds"])
    results = {
        "name": settings["name"],
        "settings": settings,
        "benchmarks": {sample["task"]: sample["benchmark"] for sample in samples},
        "on_failure": "an unparsed answer counts as wrong",
        "scores": {task: dict(sorted(items.items())) for task, items in sorted(scores.items())},
        "unparsed": {task: unparsed[task] for task in sorted(scores)},
        "truncated": {task: truncated[task] for task in sorted(scores)},
        "num_tokens": sum(sample["num_tokens"] for sample in samples),
        "num_prompt_tokens": sum(sample["num_prompt_tokens"] for sample in samples),
        "seconds": round(sum(seconds.values()), 1),
        "sessions": len(seconds),
    }
    write_json(folder / "results.json", results)
    return results
