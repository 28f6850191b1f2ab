"""A run folder made by hand, in the layout the harness leaves, and a browser to look at its leaderboard with."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROWS = {
    "base": {"right": 1, "baseline": True},
    "base, 3 examples": {"right": 2, "baseline": True, "settings": {"num_examples": 3}},
    "SFT": {"right": 9, "settings": {"model": "{run}/sft/model"}, "sessions": 2},
}
BENCHMARKS = {"heldout": ("macro", ["sum", "sort"]), "critique": ("micro", ["critique/sum", "critique/sort"])}


def write_lines(path: Path, lines: list) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def write_run(tmp_path: Path, run_writer: Callable[[Path], Callable[..., Path]]) -> Callable[..., Path]:
    """Write a run folder; returns a function (name, rows, benchmarks, items, samples, wrote) -> its path."""
    return run_writer(tmp_path)


@pytest.fixture(scope="session")
def run_writer() -> Callable[[Path], Callable[..., Path]]:
    """What `write_run` is for a test's own folder, for any folder.

    Of a row's `items` questions a task the first ``right`` are answered rightly; of the others every fourth is not
    readable and every eighth was cut short. ``wrote`` is what models write around their answers.
    """

    def write(parent, name, rows=None, benchmarks=None, items=10, samples=False, wrote="So it is"):
        rows, benchmarks = rows or ROWS, benchmarks or BENCHMARKS
        run = parent / name
        (run / "eval").mkdir(parents=True)
        about = {"name": name, "command": f"whetstone eval {name}.yaml", "versions": {"vllm": "0.1"}}
        about |= {"order": list(rows), "baselines": [row for row in rows if rows[row].get("baseline")]}
        (run / "eval" / "run.json").write_text(json.dumps(about))
        asked = [(label, task, i) for label, (_, tasks) in benchmarks.items() for task in tasks for i in range(items)]
        turn = {"role": "user", "content": f"{wrote}?"}
        write_lines(
            run / "eval" / "items.jsonl",
            [{"benchmark": b, "round": 0, "id": f"{t}/{i}", "task": t, "messages": [turn], "answer": str(i)}
             for b, t, i in asked],
        )  # fmt: skip
        for number, (row, given) in enumerate(rows.items()):
            folder = run / "eval" / f"row-{number}"
            folder.mkdir()
            results = _results(row, given, benchmarks, items)
            (folder / "results.json").write_text(json.dumps(results))
            if samples:
                write_lines(folder / "samples.jsonl", [_sample(b, t, i, given, wrote) for b, t, i in asked])
                write_lines(folder / "verdicts.jsonl", [_verdict(b, t, i, given, wrote) for b, t, i in asked])
        return run

    return lambda parent: partial(write, parent)


def _state(i: int, given: dict) -> str:
    return "right" if i < given["right"] else "unparsed" if i % 4 == 3 else "wrong"


def _results(row: str, given: dict, benchmarks: dict, items: int) -> dict:
    made = {}
    for label, (headline, tasks) in benchmarks.items():
        states = [_state(i, given) for i in range(items)]
        made[label] = {
            "type": label,
            "headline": headline,
            "extraction": "",
            "on_failure": "wrong",
            "scores": {task: {f"{task}/{i}": float(s == "right") for i, s in enumerate(states)} for task in tasks},
            "clusters": {},
            "answers": dict.fromkeys(tasks, items),
            "unparsed": dict.fromkeys(tasks, states.count("unparsed")),
            "truncated": dict.fromkeys(tasks, sum(i % 8 == 7 and s != "right" for i, s in enumerate(states))),
            "metrics": {},
            "bits_per_byte": {},
            "num_tokens": 500,
            "num_prompt_tokens": 900,
            "seconds": 1.5,
            **given.get("results", {}),
        }
    settings = {"name": row, "model": "tiny", "num_examples": 0, "constant": False, "seed": 0}
    return {
        "name": row,
        "settings": settings | given.get("settings", {}),
        "command": "whetstone eval tiny.yaml --set seed=0",
        "versions": {"vllm": "0.1"},
        "benchmarks": {label: one for label, one in made.items() if label in given.get("only", made)},
        "num_tokens": 1000,
        "num_prompt_tokens": 1800,
        "seconds": 3.0,
        "sessions": given.get("sessions", 1),
    }


def _sample(label: str, task: str, i: int, given: dict, wrote: str) -> dict:
    cut = i % 8 == 7 and i >= given["right"]
    return {
        "benchmark": label,
        "id": f"{task}/{i}",
        "task": task,
        "round": 0,
        "sample": 0,
        "prompt": [{"role": "user", "content": f"{wrote}: question {i}?"}],
        "completion": f"{wrote} {i}",
        "num_tokens": 7,
        "num_prompt_tokens": 9,
        "finish_reason": "length" if cut else "stop",
        "seconds": 0.5,
        "seed": 0,
        "session": 1,
    }


def _verdict(label: str, task: str, i: int, given: dict, wrote: str) -> dict:
    state = _state(i, given)
    answer = {"right": str(i), "wrong": f"{wrote} {i + 1}", "unparsed": None}[state]
    line = {"benchmark": label, "id": f"{task}/{i}", "round": 0, "sample": 0, "answer": answer}
    return {**line, "score": float(state == "right"), "parsed": state != "unparsed"}
