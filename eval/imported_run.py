"""`whetstone import`: a run folder made of somebody else's output files, to score, inspect and compare like our own."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import folder_written_atomically, write_atomically, write_json
from data_recipes.progress import say
from data_recipes.row import Row
from eval.benchmarks import load_benchmark
from eval.importers import lm_eval, mmlu_pro
from eval.run_folder import RunFolder, distinct_slugs, slug, write_items
from eval.scoring import score_contestant


@dataclass
class Imported:
    """One row of the leaderboard: a model's answers."""

    name: str
    answers: list[tuple[str, Row, int, str]] = field(default_factory=list)
    """(benchmark's label, row, sample, completion)"""
    versions: dict[str, Any] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def import_files(format: str, files: list[Path], output: Path, names: list[str]) -> None:
    """Write a run folder with a row a model, score it and print the scores.

    Args:
        format: ``mmlu-pro``: one file a model; ``lm-eval``: files of one folder and date are one model's tasks.
        names: of the rows, in the files' order; missing ones are the files' own.

    Raises:
        UserError: a file cannot be read, the output folder holds something, or two rows have one name.
    """
    from eval.rescoring import print_scores

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: holds something already; name a new folder with --output")
    settings, read = FORMATS[format]
    rows = read(files)
    if len(names) > len(rows):
        raise UserError(f"--name is given {len(names)} times, but the files make {len(rows)} row(s); leave some out")
    for row, name in zip(rows, names, strict=False):
        row.name = name
    distinct_slugs(row.name for row in rows)
    command = shlex.join(["whetstone", "import", format, *(os.path.basename(file) for file in files)])
    with folder_written_atomically(output) as folder:
        run = RunFolder(folder / "eval")
        labels = {label for row in rows for label, *_ in row.answers}
        write_json(run.path / "benchmarks.json", [one for one in settings if _label(one) in labels])
        write_items(run.path / "items.jsonl", [])
        order = [row.name for row in rows]
        about = {"name": output.name, "command": command, "versions": {}, "order": order, "baselines": []}
        write_json(run.path / "run.json", about)
        results = []
        for row in rows:
            _write(run.path / slug(row.name), row, command)
            results.append(score_contestant(run, run.path / slug(row.name)))
    for row in rows:
        for reason, count in row.passed_over.most_common():
            say(f"  {row.name}: {count} entries {reason}: passed over")
    print_scores(results)


def _label(settings: dict[str, Any]) -> str:
    return load_benchmark(settings["type"]).Settings(**settings).label


def _write(folder: Path, row: Imported, command: str) -> None:
    about = {"name": row.name, "model": row.name, "seed": 0, "imported": True, "benchmarks": {}}
    write_json(folder / "settings.json", {**about, "command": command, "versions": row.versions})
    # the rows are the model's own: releases of a benchmark differ in single questions
    write_items(
        folder / "items.jsonl", list({(label, one.id): (label, 0, one) for label, one, *_ in row.answers}.values())
    )
    lines = (
        {
            "benchmark": label,
            "id": one.id,
            "task": one.task,
            "round": 0,
            "sample": number,
            "prompt": one.prompt,
            "completion": completion,
            "num_tokens": 0,
            "num_prompt_tokens": 0,
            "finish_reason": "unknown",
            "seconds": 0,
            "session": 1,
        }
        for label, one, number, completion in row.answers
    )
    write_atomically(folder / "samples.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _mmlu_pro(files: list[Path]) -> list[Imported]:
    rows = []
    items = _known_items()
    for file in files:
        outputs, passed_over = mmlu_pro.read_outputs(file, items)
        first: dict[tuple, str] = {}
        row = Imported(file.name.split(".json")[0], passed_over=passed_over)
        for one, completion, _ in outputs:
            same = (one.meta["question"], tuple(one.meta["options"]))
            one.meta["cluster"] = first.setdefault(same, one.id)
            row.answers.append(("mmlu_pro", one, 0, completion))
        rows.append(row)
    return rows


def _known_items() -> list[Row]:
    """Return the benchmark's questions, for files that leave them out; none where they cannot be had."""
    from eval.mmlu_pro import read_split, row_of

    try:
        return [row_of(question, question.text) for question in read_split("test")]
    except UserError:
        return []


def _lm_eval(files: list[Path]) -> list[Imported]:
    rows: dict[tuple[Path, str], Imported] = {}
    for file in files:
        read = lm_eval.read_samples(file)
        of_run = (file.resolve().parent, file.stem.rpartition("_")[2])
        name = str(read.about.get("model") or file.resolve().parent.name)
        row = rows.setdefault(of_run, Imported(os.path.basename(name.rstrip("/")) or "model"))
        row.passed_over += read.passed_over
        if "lm_eval_version" in read.about:
            row.versions["lm-eval"] = read.about["lm_eval_version"]
        first: dict[tuple, str] = {}
        for one in read.samples:
            one.row.meta["scores"] = one.scores
            label = "mmlu_pro" if one.row.verifiers else "imported"
            if one.row.verifiers:
                same = (one.row.meta["question"], tuple(one.row.meta["options"]))
                one.row.meta["cluster"] = first.setdefault(same, one.row.id)
            row.answers.append((label, one.row, one.sample, one.completion))
    return list(rows.values())


AS_LM_EVAL = {"type": "mmlu_pro", "compat": "lm-eval", "bits_per_byte": False}
FORMATS: dict[str, tuple[list[dict[str, Any]], Callable[[list[Path]], list[Imported]]]] = {
    "mmlu-pro": ([{"type": "mmlu_pro", "bits_per_byte": False}], _mmlu_pro),
    "lm-eval": ([AS_LM_EVAL, {"type": "imported", "bits_per_byte": False}], _lm_eval),
}
"""format -> settings of the benchmarks it may hold, and its reader."""
