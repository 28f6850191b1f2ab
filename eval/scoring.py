"""From stored completions to scores: read the answer, judge it, say what an unreadable one counts for.

Nothing here asks a model, so a saved run is scored again in seconds under another extraction or failure policy.
"""

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl, write_atomically, write_json
from data_recipes.row import Row
from eval.benchmarks import Answered, BenchmarkSettings, OnFailure, load_benchmark
from eval.engines import Likelihood
from eval.run_folder import RunFolder, read_samples
from eval.statistics import Scores
from eval.verifiers import Verdict, extractions_of, load_verifier, verify

CUT_SHORT = ("length", "no_room")
"""Finish reasons of completions that the model did not end itself."""


def failure_score(policy: OnFailure, row: Row, seed: str) -> float:
    """Return what an answer that could not be read counts for.

    ``expected`` is 1/n for n options, and 0 where the row has none. A guess is right with that probability (``guess``)
    or with 1/10 (``guess-10``, whatever the item has), by a generator seeded with `seed`.
    """
    options = len(row.meta.get("options") or ())
    if policy == "wrong" or not options:
        return 0.0
    if policy == "expected":
        return 1 / options
    return float(random.Random(seed).randrange(options if policy == "guess" else 10) == 0)


def without_reasoning(text: str) -> str:
    """Return what follows the reasoning between <think> and </think>; nothing where it never ended."""
    before, closed, after = text.rpartition("</think>")
    rest = after if closed else before or text
    return rest.partition("<think>")[0]


def answered(sample: dict[str, Any], row: Row, settings: BenchmarkSettings, seed: int = 0) -> Answered:
    """Read and score one stored completion of `row`."""
    completion = str(sample["completion"])
    if settings.strip_reasoning:
        completion = without_reasoning(completion)
    verdict = verify(row, completion, settings.extraction) if row.verifiers else Verdict(None, None)
    score = verdict.score
    if score is None:
        score = failure_score(settings.on_failure, row, f"{seed}/{row.id}/{sample['sample']}")
    return Answered(
        row=row,
        round=sample["round"],
        sample=sample["sample"],
        completion=completion,
        finish_reason=sample["finish_reason"],
        verdict=verdict,
        score=score,
        num_tokens=sample.get("num_tokens") or 0,
    )


def mean_scores(answers: Iterable[Answered]) -> Scores:
    """Return task -> item -> mean score over its samples, of the rows that verifiers judge."""
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        if one.row.verifiers:
            collected[one.row.task][one.row.id].append(one.score)
    return {task: {i: sum(v) / len(v) for i, v in sorted(items.items())} for task, items in sorted(collected.items())}


def check_extraction(settings: BenchmarkSettings, rows: Iterable[Row], where: str) -> None:
    """Refuse an extraction that the rows' verifiers do not have, or that a completion cut at its verdict cannot bear.

    Raises:
        UserError: names the extractions that can be used.
    """
    names = sorted({name for row in rows for name in row.verifiers})
    known = sorted({one for name in names for one in extractions_of(name)})
    if settings.extraction and settings.extraction not in known:
        from data_recipes.errors import nearest

        mend = nearest(settings.extraction, known) if known else "; leave it out"
        raise UserError(f"{where}: no extraction {settings.extraction!r}{mend}")
    if settings.stop_early and settings.strip_reasoning:
        raise UserError(
            f"{where}: stop_early may end a completion inside its reasoning, so strip_reasoning cannot be had"
        )
    if settings.stop_early:
        early = [getattr(load_verifier(name), "EARLY", ()) for name in names]
        allowed = sorted(set(early[0]).intersection(*early[1:])) if early else []
        if not allowed:
            raise UserError(f"{where}: stop_early: no verifier here has a finite set of endings; set it to false")
        if settings.extraction not in allowed:
            raise UserError(
                f"{where}: extraction {settings.extraction!r} looks beyond the first match, where stop_early ended the"
                f" completions; use one of {', '.join(one or 'the default' for one in allowed)}, or generate without it"
            )


def score_contestant(
    run: RunFolder, folder: Path, changes: dict[str, Any] | None = None, only: str | None = None
) -> dict[str, Any]:
    """Score a contestant's stored completions and write its ``verdicts.jsonl`` and ``results.json``.

    Args:
        changes: `SCORE_ONLY` settings to score under instead of the run's own. A benchmark whose verifiers lack the
            extraction keeps its own.
        only: the label of the one benchmark that `changes` are for; None: all.

    Raises:
        UserError: a file is damaged, a completion is of no known item, or an extraction cannot be used.
    """
    settings = read_json(folder / "settings.json")
    rows = {(label, row.id): row for label, _, row in run.asked(folder)}
    by_label: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for sample in read_samples(folder):
        if (sample["benchmark"], sample["id"]) in rows:  # others are of a benchmark the file no longer has
            by_label[sample["benchmark"]].append(sample)
    likelihoods = _likelihoods(folder)
    lines, benchmarks = [], {}
    for label, benchmark in run.benchmarks().items():
        samples = by_label.get(label)
        if not samples:
            continue
        of_label = [rows[label, sample["id"]] for sample in samples]
        if changes and only in (None, label):
            known = {one for row in of_label for name in row.verifiers for one in extractions_of(name)}
            fitting = {k: v for k, v in changes.items() if k != "extraction" or only == label or v in ("", *known)}
            benchmark = benchmark.model_copy(update=fitting)
        check_extraction(benchmark, of_label, f"{folder}: {label}")
        seed = settings.get("seed", 0)
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1) if _concurrent(of_label) else 1) as pool:
            judge = partial(answered, settings=benchmark, seed=seed)
            answers = list(pool.map(judge, samples, of_label))
        answers.sort(key=lambda one: (one.round, one.row.id, one.sample))
        benchmarks[label] = _result(benchmark, answers, samples, likelihoods.get(label, {}))
        lines += [_verdict_line(label, one) for one in answers]
    results = {
        "name": settings["name"],
        "settings": settings,
        "command": settings.get("command", ""),
        "versions": settings.get("versions", {}),
        "benchmarks": benchmarks,
        **{k: sum(b[k] for b in benchmarks.values()) for k in ("num_tokens", "num_prompt_tokens")},
        "seconds": round(sum(b["seconds"] for b in benchmarks.values()), 1),
        "sessions": max((s.get("session", 1) for samples in by_label.values() for s in samples), default=0),
    }
    write_atomically(folder / "verdicts.jsonl", "".join(lines))
    write_json(folder / "results.json", results)
    return results


def _concurrent(rows: Iterable[Row]) -> bool:
    return any(getattr(load_verifier(name), "CONCURRENT", False) for name in {n for row in rows for n in row.verifiers})


def _verdict_line(label: str, one: Answered) -> str:
    line = {"benchmark": label, "id": one.row.id, "round": one.round, "sample": one.sample}
    line |= {"answer": one.verdict.answer, "score": one.score if one.row.verifiers else None}
    return json.dumps({**line, "parsed": one.verdict.score is not None}, ensure_ascii=False) + "\n"


def _result(
    settings: BenchmarkSettings, answers: list[Answered], samples: list[dict[str, Any]], likelihoods: dict[str, float]
) -> dict[str, Any]:
    module = load_benchmark(settings.type)
    judged = [one for one in answers if one.row.verifiers]
    counts = {name: Counter() for name in ("answers", "unparsed", "truncated")}
    for one in judged:
        counts["answers"][one.row.task] += 1
        counts["unparsed"][one.row.task] += one.verdict.score is None
        counts["truncated"][one.row.task] += one.finish_reason in CUT_SHORT
    seconds: dict[tuple, float] = {}
    for sample in samples:
        call = (sample.get("shard"), sample.get("session", 1), sample["round"])
        seconds[call] = max(seconds.get(call, 0.0), sample.get("seconds") or 0.0)
    clusters = {one.row.id: str(one.row.meta["cluster"]) for one in answers if "cluster" in one.row.meta}
    shared = Counter(clusters.values())
    bits: Scores = defaultdict(dict)
    for one in answers:
        if one.row.id in likelihoods:
            bits[one.row.task][one.row.id] = likelihoods[one.row.id]
    own_scores = getattr(module, "scores", None)
    own_metrics = getattr(module, "metrics", None)
    return {
        "type": settings.type,
        "headline": getattr(module, "HEADLINE", "macro"),
        **{key: getattr(settings, key) for key in ("extraction", "on_failure", "strip_reasoning", "stop_early")},
        "scores": own_scores(settings, answers) if own_scores else mean_scores(answers),
        "clusters": {item: cluster for item, cluster in clusters.items() if shared[cluster] > 1},
        **{name: dict(sorted(of_task.items())) for name, of_task in counts.items()},
        "metrics": {k: asdict(m) for k, m in own_metrics(settings, answers).items()} if own_metrics else {},
        "bits_per_byte": {task: dict(sorted(items.items())) for task, items in sorted(bits.items())},
        "num_tokens": sum(sample.get("num_tokens") or 0 for sample in samples),
        "num_prompt_tokens": sum(sample.get("num_prompt_tokens") or 0 for sample in samples),
        "seconds": round(sum(seconds.values()), 1),
    }


def _likelihoods(folder: Path) -> dict[str, dict[str, float]]:
    """Return benchmark -> item -> bits per byte of its right answer."""
    path = folder / "likelihoods.jsonl"
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for number, line in enumerate(read_jsonl(path) if path.exists() else [], start=1):
        try:
            likelihood = Likelihood(line["logprob"], line["num_tokens"], line["num_bytes"])
            found[line["benchmark"]][line["id"]] = likelihood.bits_per_byte
        except (KeyError, TypeError):
            raise UserError(f"{path}, line {number}: not a likelihood; delete that line and evaluate again") from None
    return found
