"""lm-evaluation-harness's per-sample logs: ``samples_<task>_<date>.jsonl``, as ``--log_samples`` writes them.

A line is a document under one filter: its prompt and settings (``arguments``), what the model gave (``resps``), what
the filter made of it (``filtered_resps``) and a number for each of its ``metrics``. The layout is that of 0.4.13
(`loggers/evaluation_tracker.py`, `result_schema.py`); older logs without ``filter`` and ``metrics`` are read, too.
"""

import os.path
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json
from data_recipes.row import Message, Row
from eval.importers import read_entries
from eval.mmlu_pro import question_of, row_of

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")


@dataclass(frozen=True)
class Sample:
    """A completion of a document, and what lm-eval said of it."""

    row: Row
    """Its verifiers judge MMLU-Pro's letters; of other tasks there are none, and `scores` is the only verdict."""
    sample: int
    """Which of the document's repeats, from 0."""
    completion: str
    """The text, or the likeliest of the options."""
    scores: dict[str, float] = field(default_factory=dict)
    """"metric" -> value, or "filter/metric" where filters have names; of all repeats together."""


@dataclass(frozen=True)
class Imported:
    """A task's samples and what the results file beside them says of the run."""

    task: str
    samples: list[Sample]
    about: dict[str, Any]
    """``model``, ``task_version``, ``num_fewshot`` and ``lm_eval_version``, where that file is there."""
    passed_over: Counter[str]
    """Lines that hold no answer, by reason."""


def read_samples(path: Path) -> Imported:
    """Read the samples of a task that generates text or chooses between options.

    Raises:
        UserError: the file is no such log, or of a task that measures nothing but perplexity.
    """
    named = _NAME.fullmatch(path.name)
    task = named["task"] if named else path.stem
    samples: dict[tuple[int, int], Sample] = {}
    seen: set[tuple[int, str]] = set()
    passed_over: Counter[str] = Counter()
    for number, line in enumerate(read_entries(path), start=1):
        where = f"{path}, entry {number}"
        _check(line, where)
        name = str(line.get("filter", "none"))
        if (line["doc_id"], name) in seen:
            passed_over["a document's second line under one filter"] += 1
            continue
        seen.add((line["doc_id"], name))
        scores = {metric if name == "none" else f"{name}/{metric}": value for metric, value in _metrics(line).items()}
        made = _samples(line, task, where)
        if not made:
            passed_over["a document without an answer"] += 1
        for sample in made:
            samples.setdefault((line["doc_id"], sample.sample), sample).scores.update(scores)
    if not samples:
        raise UserError(f"{path}: none of its {len(seen)} documents has an answer; give a log of a finished run")
    about = _about(path.parent, named["date"], task) if named else {}
    return Imported(task, list(samples.values()), about, passed_over)


def _check(line: Any, where: str) -> None:
    shapes = {"doc_id": int, "doc": dict, "target": object, "arguments": dict | list, "resps": list}
    given = line if isinstance(line, dict) else {}
    for name, kind in shapes.items():
        if given.get(name) is None or not isinstance(given[name], kind):
            raise UserError(f"{where}: no usable {name!r}; give a file that lm-eval wrote with --log_samples")


def _metrics(line: dict[str, Any]) -> dict[str, float]:
    named = line.get("metrics")
    names = [name for name in line if (name in named if isinstance(named, list) else name != "doc_id")]
    return {
        name: float(line[name]) for name in names if isinstance(line[name], int | float) and abs(line[name]) < 1e300
    }


def _arguments(line: dict[str, Any]) -> list[list[Any]]:
    """Return the arguments of every request: ``{"gen_args_0": {"arg_0": ...}}``, or lists in old logs."""
    given = line["arguments"]
    requests = list(given.values()) if isinstance(given, dict) else given
    return [list(one.values()) if isinstance(one, dict) else one for one in requests if isinstance(one, dict | list)]


def _samples(line: dict[str, Any], task: str, where: str) -> list[Sample]:
    requests = _arguments(line)
    if not requests or any(len(one) < 1 for one in requests):
        raise UserError(f"{where}: no prompt in 'arguments'; give a file that lm-eval wrote with --log_samples")
    if all(len(one) > 1 and isinstance(one[1], str) for one in requests):
        return _chosen(line, task, requests, where)
    if len(requests[0]) < 2:
        raise UserError(f"{where}: a rolling likelihood, not an answer; give the log of a task that answers questions")
    prompt = requests[0][0]
    repeats = line["resps"][0] if line["resps"] and isinstance(line["resps"][0], list) else line["resps"]
    row = _row(line, task, prompt if isinstance(prompt, str) else str(prompt))
    return [Sample(row, number, text) for number, text in enumerate(repeats) if isinstance(text, str)]


def _chosen(line: dict[str, Any], task: str, requests: list[list[Any]], where: str) -> list[Sample]:
    """Return the option with the greatest log-likelihood, as the metric ``acc`` takes it.

    Where contexts differ instead of continuations (Winogrande), an option is all that follows their common beginning.
    """
    count = len(requests)
    if "acc_mutual_info" in line:  # every option is asked a second time, without the question
        count //= 2
    contexts = [str(one[0]) for one in requests[:count]]
    texts = [context + one[1] for context, one in zip(contexts, requests[:count], strict=True)]
    prompt = os.path.commonprefix(contexts)
    options = [text[len(prompt) :].strip() for text in texts]
    try:
        logprobs = [float(answer[0][0]) for answer in line["resps"][:count]]
    except (TypeError, ValueError, IndexError, KeyError):
        raise UserError(f"{where}: no log-likelihoods in 'resps'; give a file that lm-eval wrote") from None
    if len(logprobs) < count:
        return []
    target = str(line["target"])
    answer = options[int(target)] if target.isdecimal() and int(target) < count else target
    row = _row(line, task, prompt, answer)
    row.meta |= {"logprobs": logprobs} | ({"options": options} if count > 1 else {})
    return [Sample(row, 0, options[logprobs.index(max(logprobs))])]


def _row(line: dict[str, Any], task: str, prompt: str, answer: str | None = None) -> Row:
    doc = line["doc"]
    if answer is None and task.startswith("mmlu_pro"):
        try:
            question = question_of({"key": f"{task}-{line['doc_id']}", **doc}, task)
            return row_of(question.prepared("lm-eval"), prompt, doc_id=line["doc_id"])
        except UserError:
            pass  # its documents are not MMLU-Pro's: a task of that name by somebody else
    return Row(
        id=f"{task}/{line['doc_id']}",
        task=task,
        kind="domain",
        messages=[Message(role="user", content=prompt)],
        answer=str(line["target"]) if answer is None else answer,
        meta={"doc_id": line["doc_id"], "doc_hash": line.get("doc_hash"), "prompt_hash": line.get("prompt_hash")},
    )


def _about(folder: Path, date: str, task: str) -> dict[str, Any]:
    """Return what the results file of the same date says; it is named ``results_<date>.json`` or as --output_path."""
    for path in sorted(folder.glob(f"*_{date}.json")):
        results = read_json(path)
        if isinstance(results, dict) and "results" in results:
            found = {"model": results.get("model_name"), "lm_eval_version": results.get("lm_eval_version")}
            for name, column in (("task_version", "versions"), ("num_fewshot", "n-shot")):
                of_tasks = results.get(column)
                found[name] = of_tasks.get(task) if isinstance(of_tasks, dict) else None
            return {name: value for name, value in found.items() if value is not None}
    return {}
