"""What stands behind a cell: a page a row and benchmark with every prompt, completion, answer and verdict.

The pages open from disk, where a page may not fetch its neighbours but may load scripts: the samples lie in
``part-N.js`` beside the page, a few hundred each, and the page loads the parts it shows. They are JSON in ASCII, and
the page writes them as text, so nothing a model wrote is ever read as markup or code.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from os.path import commonprefix
from pathlib import Path
from typing import Any

from jinja2 import Template

from data_recipes.errors import UserError
from data_recipes.progress import track
from eval.leaderboard.reading import RunRow
from eval.run_folder import slug

SAMPLES_A_PART = 200
CHARACTERS_A_PART = 4_000_000
"""A part with long completions holds fewer samples."""
CUT_SHORT = ("length", "no_room")
Key = tuple[str, str, int]
"""(benchmark, id, sample)"""


def write_samples(rows: list[RunRow], folder: Path, template: Template) -> list[dict[str, str]]:
    """Write the sample pages of all rows into `folder`.

    Returns:
        For each row, benchmark -> its page, relative to `folder`; empty where the run keeps no samples.

    Raises:
        UserError: a file of a row is damaged, or its samples have not been scored.
    """
    asked: dict[Path, dict[tuple[str, str], str | None]] = {}
    links = []
    for number, row in enumerate(track(rows, "samples of the leaderboard", len(rows)), start=1):
        files = sorted(row.folder.glob("samples*.jsonl"))
        run = row.folder.parent
        if files and run not in asked:
            asked = {run: _right_answers(run / "items.jsonl")}
        name = f"{number}-{slug(row.name)[:60]}"
        links.append(_write_row(row, files, asked[run], folder, name, template) if files else {})
    return links


def _write_row(
    row: RunRow,
    files: list[Path],
    answers: dict[tuple[str, str], str | None],
    folder: Path,
    name: str,
    template: Template,
) -> dict[str, str]:
    answers = answers | _right_answers(row.folder / "items.jsonl")
    order = {key: place for place, key in enumerate(answers)}
    verdicts = _verdicts(row.folder / "verdicts.jsonl")
    pages = {
        label: _Page(folder / name / f"{place}-{slug(label)[:60]}")
        for place, label in enumerate(row.result.benchmarks, start=1)
    }
    last: dict[Key, str] = {}
    for file in files:
        for where, sample in _lines(file):
            last[str(sample.get("benchmark")), str(sample.get("id")), sample.get("sample", 0)] = where
    for file in files:
        for where, sample in _lines(file):
            try:
                key = (str(sample["benchmark"]), str(sample["id"]), int(sample.get("sample", 0)))
                prompt = [(str(turn["role"]), str(turn["content"])) for turn in sample["prompt"]]
                completion = str(sample["completion"])
            except (KeyError, TypeError, ValueError, OverflowError):
                needed = "benchmark, id, prompt and completion"
                raise UserError(f"{where}: no sample with {needed}; mend or delete that line") from None
            if key[0] in pages and last.get(key) == where:  # (what was asked again counts as it was asked last)
                pages[key[0]].add(_shown(sample, completion, prompt, verdicts.get(key), answers.get(key[:2])))
    links = {}
    for label, page in pages.items():
        if page.index:
            page.close(template, row.name, label, order)
            links[label] = f"{page.folder.relative_to(folder).as_posix()}/index.html"
    return links


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and content of each line of a JSON Lines file; a last line that a kill tore in two is left out."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise UserError(f"{path}, line {number}: not a JSON object; mend or delete that line")
            yield f"{path}, line {number}", found


def _verdicts(path: Path) -> dict[Key, dict[str, Any]]:
    if not path.exists():
        raise UserError(f"{path}: no such file, so its samples have no verdicts; run 'whetstone score RUN' first")
    found: dict[Key, dict[str, Any]] = {}
    for where, line in _lines(path):
        try:
            key = (str(line["benchmark"]), str(line["id"]), int(line.get("sample", 0)))
            score = line.get("score")
            found[key] = {**line, "score": score if score is None else float(score)}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{where}: not the verdict on a sample; 'whetstone score RUN' writes it anew") from None
    return found


def _right_answers(path: Path) -> dict[tuple[str, str], str | None]:
    """Return (benchmark, id) -> the right answer of the rows that were asked, in their order."""
    lines = _lines(path) if path.exists() else ()
    return {(str(line.get("benchmark")), str(line.get("id"))): line.get("answer") for _, line in lines}


def _shown(
    sample: dict[str, Any],
    completion: str,
    prompt: list[tuple[str, str]],
    verdict: dict[str, Any] | None,
    right: str | None,
) -> dict[str, Any]:
    score = verdict.get("score") if verdict else None
    if score is None:
        state = "unjudged"
    elif not verdict.get("parsed"):
        state = "unparsed"
    else:
        state = "right" if score >= 1 else "partly" if score > 0 else "wrong"
    return {
        "id": str(sample["id"]),
        "task": str(sample.get("task", "")),
        "state": state,
        "cut": sample.get("finish_reason") in CUT_SHORT,
        "sample": int(sample.get("sample", 0)),
        "round": sample.get("round", 0),
        "prompt": prompt,
        "completion": completion,
        "answer": verdict.get("answer") if verdict else None,
        "right": right,
        "score": score,
        "tokens": sample.get("num_tokens"),
        "finish": sample.get("finish_reason"),
        "seed": sample.get("seed"),
    }


class _Page:
    """One page and its parts, written as the samples come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: list[list[Any]] = []
        self._waiting: list[dict[str, Any]] = []
        self._parts = self._characters = 0

    def add(self, sample: dict[str, Any]) -> None:
        place = [self._parts, len(self._waiting)]
        keys = ("id", "task", "state", "cut", "round", "sample")
        self.index.append([*(sample[key] for key in keys), *place])
        self._waiting.append(sample)
        self._characters += len(sample["completion"])
        if len(self._waiting) == SAMPLES_A_PART or self._characters > CHARACTERS_A_PART:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(_with_shared_starts(self._waiting), separators=(",", ":"))
        (self.folder / f"part-{self._parts}.js").write_text(f"part({self._parts}, {content});\n", encoding="ascii")
        self._waiting, self._characters, self._parts = [], 0, self._parts + 1

    def close(self, template: Template, row: str, label: str, order: dict[tuple[str, str], int]) -> None:
        """Write what is left, and the page, its samples in the order in which the rows were asked."""
        self._write()
        self.index.sort(key=lambda entry: (order.get((label, entry[0]), len(order)), entry[5]))
        page = template.render(row=row, benchmark=label, index=self.index)
        (self.folder / "index.html").write_bytes(page.encode("utf-8", "replace"))


def _with_shared_starts(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep once what all prompts of a task begin with, such as worked examples; a turn is [role, start, rest]."""
    turns: dict[tuple[str, int], list[str]] = defaultdict(list)
    for sample in samples:
        for number, (_, text) in enumerate(sample["prompt"]):
            turns[sample["task"], number].append(text)
    starts = {key: commonprefix(texts) if len(texts) > 1 else "" for key, texts in turns.items()}
    places = {key: place for place, key in enumerate(starts)}
    for sample in samples:
        keys = [(sample["task"], number) for number in range(len(sample["prompt"]))]
        sample["prompt"] = [
            [role, places[key], text[len(starts[key]) :]]
            for key, (role, text) in zip(keys, sample["prompt"], strict=True)
        ]
    return {"starts": list(starts.values()), "samples": samples}
