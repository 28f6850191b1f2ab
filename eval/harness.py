"""Benchmarks x models -> a run folder: every completion is on disk as soon as it is finished, and scored afterwards.

A benchmark is asked in rounds: its items, then whatever it asks after the answers. Running again keeps every stored
completion and generates only the missing ones; shards of one run store theirs side by side and are scored together.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint, read_json, write_json
from data_recipes.progress import say, track
from data_recipes.row import Row
from data_recipes.validation import validated
from eval.benchmarks import SCORE_ONLY, BenchmarkSettings, Item, load_benchmark
from eval.engines import Continuation, Engine, Request
from eval.run_folder import Asked, RunFolder, distinct_slugs, read_samples, slug, write_items
from eval.scoring import answered, check_extraction, score_contestant
from eval.verifiers import load_verifier


@dataclass(frozen=True)
class Contestant:
    """One row of the leaderboard: a model, asked in a certain way."""

    name: str
    model: str | None
    """Folder or hub id; None: no model writes, `constant` answers."""
    adapter: str | None = None
    """Folder of a LoRA adapter on top of the model."""
    num_examples: int = 0
    """Worked examples before the question; tasks that have none to show are then left out."""
    constant: bool = False
    """Answers every question of a task with that task's most frequent training answer."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's settings, its code and its items."""

    settings: BenchmarkSettings
    module: ModuleType
    items: list[Item]

    @property
    def label(self) -> str:
        """What it is called in the run."""
        return self.settings.label

    @property
    def fingerprint(self) -> str:
        """What changes when anything that decides about generation does."""
        settings = self.settings.model_dump(exclude={*SCORE_ONLY, "bits_per_byte"})
        asked = [
            (i.row.id, i.row.prompt, i.max_tokens, i.temperature, i.num_samples, i.chat, i.stop) for i in self.items
        ]
        return fingerprint([settings, asked])


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `total` parts of the items, counted from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @classmethod
    def parsed(cls, text: str) -> "Shard":
        """Read ``3/8``.

        Raises:
            UserError: it is not written so.
        """
        number, _, total = text.partition("/")
        if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise UserError(f"--shard {text!r}: write it as 3/8, the third of eight")
        return cls(int(number), int(total))


@dataclass(frozen=True)
class Helpers:
    """What the harness needs from whoever runs it."""

    engine_for: Callable[[Contestant], Engine]
    """Returns an engine that holds the contestant's weights; called only where something is missing."""
    examples: Callable[[str, int], list[Row] | None] = lambda task, k: None
    """(task, k) -> k training rows with targets; None: the task has no training rows."""
    constants: dict[str, str] | None = None
    """task -> its most frequent training answer."""


def open_benchmark(given: dict[str, Any], mixture: Path | None, where: str) -> Benchmark:
    """Load a benchmark and its items.

    Raises:
        UserError: there is no such benchmark, its settings do not fit, or its items cannot be had.
    """
    module = load_benchmark(str(given.get("type")))
    settings = validated(module.Settings, given, where)
    where = f"{where}: {settings.label}"
    items = [item if isinstance(item, Item) else Item(item) for item in module.items(settings, mixture)]
    if not items:
        raise UserError(f"{where}: no items; widen its settings, or give the recipe's tasks heldout_rows")
    seen: set[str] = set()
    for item in items:
        if item.row.id in seen:
            raise UserError(f"{where}: two items are called {item.row.id!r}; mend the benchmark's source")
        seen.add(item.row.id)
    check_extraction(settings, [item.row for item in items], where)
    return Benchmark(settings, module, items)


def evaluate(
    contestants: list[Contestant],
    benchmarks: list[Benchmark],
    folder: Path,
    helpers: Helpers,
    *,
    seed: int = 0,
    shard: Shard | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Generate what is missing for every contestant, then score all of it.

    Args:
        folder: the ``eval`` folder of the run.
        shard: ask only this part of the items, in their first round, and leave the scoring to a run without a shard.
        provenance: ``command`` and ``versions`` to record.

    Raises:
        UserError: the folder holds completions to other questions or settings, or two benchmarks have one label.
    """
    labels = [one.label for one in benchmarks]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise UserError(f"eval.benchmarks: two are called {twice!r}; give one of them another 'name'")
    distinct_slugs(one.name for one in contestants)
    run = RunFolder(folder)
    for contestant in contestants:
        check_settings(run.path / slug(contestant.name), contestant, benchmarks, seed)
    write_json(folder / "benchmarks.json", [one.settings.model_dump() for one in benchmarks])
    write_items(folder / "items.jsonl", [(one.label, 0, item.row) for one in benchmarks for item in one.items])
    for contestant in contestants:
        answers = _Answers(run, contestant, benchmarks, helpers, seed, shard, provenance or {})
        answers.complete()
        if shard is None:
            score_contestant(run, answers.folder)


def check_settings(folder: Path, contestant: Contestant, benchmarks: list[Benchmark], seed: int) -> dict[str, Any]:
    """Return the settings a contestant's folder will have, where they agree with those of its stored completions.

    Raises:
        UserError: they do not.
    """
    path = folder / "settings.json"
    now = {**asdict(contestant), "seed": seed}
    before = read_json(path) if path.exists() else {**now, "benchmarks": {}}
    labels = {one.label: one.fingerprint for one in benchmarks}
    changed = [label for label, mark in labels.items() if before["benchmarks"].get(label, mark) != mark]
    if changed or any(before.get(key) != value for key, value in now.items()):
        what = f"{', '.join(changed)}: " if changed else ""
        raise UserError(
            f"{folder}: {what}holds completions to other questions or settings; move it away or name another output_dir"
        )
    return {**before, **now, "benchmarks": {**before["benchmarks"], **labels}}


class _Answers:
    """The completions of one contestant: the stored ones, and the making of the missing ones."""

    def __init__(
        self,
        run: RunFolder,
        contestant: Contestant,
        benchmarks: list[Benchmark],
        helpers: Helpers,
        seed: int,
        shard: Shard | None,
        provenance: dict[str, Any],
    ) -> None:
        self.folder = run.path / slug(contestant.name)
        self._contestant, self._helpers, self._seed, self._shard = contestant, helpers, seed, shard
        self._benchmarks = benchmarks
        given = check_settings(self.folder, contestant, benchmarks, seed)
        suffix = f"-{shard.number}-of-{shard.total}" if shard else ""
        self._log = JsonlLog(self.folder / f"samples{suffix}.jsonl")
        self._session = 1 + max((sample["session"] for sample in self._log.rows), default=0)
        self._stored = {_key(sample): sample for sample in read_samples(self.folder)}
        # a later session may run on another machine, so each has what it was made by
        made_by = {f"{shard or 'whole'}, session {self._session}": provenance} if provenance else {}
        settings = {**given, **provenance, "sessions": {**given.get("sessions", {}), **made_by}}
        write_json(self.folder / "settings.json", settings)

    def complete(self) -> None:
        """Generate what is missing, round after round, then the likelihoods of right answers."""
        later: list[Asked] = []
        for benchmark in self._benchmarks:
            items = [item for item in benchmark.items if self._is_asked(item.row)]
            if self._shard:
                items = items[self._shard.number - 1 :: self._shard.total]
            asked: dict[str, int] = {}
            number = 0
            while items:
                self._ask(benchmark, items, number)
                asked |= {item.row.id: number for item in items}
                follow_up = getattr(benchmark.module, "follow_up", None)
                if follow_up is None or self._shard or self._contestant.constant:
                    break
                number += 1
                rows = {item.row.id: item.row for item in benchmark.items}
                rows |= {row.id: row for label, _, row in later if label == benchmark.label}
                items = self._next_items(benchmark, asked, rows)
                later += [(benchmark.label, number, item.row) for item in items]
                if items:
                    write_items(self.folder / "items.jsonl", later)
        if not self._shard and not self._contestant.constant:
            self._measure()
        self._log.close()

    def _is_asked(self, row: Row) -> bool:
        """Return whether there is something to show, or to answer with, for this row's task."""
        if self._contestant.constant:
            return row.task in (self._helpers.constants or {})
        shots = self._contestant.num_examples
        return not shots or self._helpers.examples(row.task, shots) is not None

    def _next_items(self, benchmark: Benchmark, asked: dict[str, int], rows: dict[str, Row]) -> list[Item]:
        answers = [
            answered(sample, rows[sample["id"]], benchmark.settings, self._seed)
            for sample in self._stored.values()
            if sample["benchmark"] == benchmark.label and sample["id"] in asked
        ]
        answers.sort(key=lambda one: (one.round, one.row.id, one.sample))
        made: list[Row | Item] = benchmark.module.follow_up(benchmark.settings, answers)
        items = [one if isinstance(one, Item) else Item(one) for one in made]
        return [item for item in items if item.row.id not in asked]

    def _ask(self, benchmark: Benchmark, items: list[Item], number: int) -> None:
        """Generate and store what is missing of one round."""
        wanted = list(self._requests(benchmark, items, number))
        missing = [one for one in wanted if not self._is_stored(benchmark.label, *one)]
        if not missing:
            return
        if self._contestant.constant:
            for row, sample, _ in missing:
                written = {"completion": (self._helpers.constants or {})[row.task], "finish_reason": "stop"}
                self._record(benchmark, row, number, sample, row.prompt, {**written, "num_tokens": 0, "seconds": 0})
            return
        title = f"{self._contestant.name}: {benchmark.label}" + (f", round {number + 1}" if number else "")
        if len(missing) < len(wanted):
            say(f"  {title}: {len(wanted) - len(missing)} completions kept, {len(missing)} to go")
        asked_of = {item.row.id: item.asked_of for item in items}
        for other in dict.fromkeys(asked_of[row.id] for row, _, _ in missing):
            part = [one for one in missing if asked_of[one[0].id] == other]
            whom, label = self._contestant, title
            if other is not None:
                whom, label = replace(whom, model=other.model, adapter=other.adapter), f"{title}, {other.model}"
            self._generate(benchmark, part, number, self._helpers.engine_for(whom), label)

    def _generate(
        self, benchmark: Benchmark, missing: list[tuple[Row, int, Request]], number: int, engine: Engine, title: str
    ) -> None:
        if benchmark.settings.stop_early and not engine.stops_after:
            raise UserError(
                f"{benchmark.label}: this engine takes no such number of stop strings; set stop_early: false"
            )
        by_key = {request.key: (row, sample, request) for row, sample, request in missing}
        start = time.monotonic()
        requests = [request for _, _, request in missing]
        for request, completion in track(engine.generate(requests), title, len(requests)):
            row, sample, _ = by_key[request.key]
            written = {
                "completion": completion.text.encode(errors="replace").decode(),  # a server may send half a character
                "num_tokens": completion.num_tokens,
                "num_prompt_tokens": completion.num_prompt_tokens,
                "finish_reason": completion.finish_reason,
                "seconds": round(time.monotonic() - start, 3),
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "seed": request.seed,
                "chat": request.chat,
                "stop": [*request.stop, *request.stop_after],
            }
            self._record(benchmark, row, number, sample, request.messages, written)

    def _is_stored(self, label: str, row: Row, sample: int, request: Request) -> bool:
        """Return whether there is a completion of this prompt: a later round's changes with the answers it follows."""
        stored = self._stored.get((label, row.id, sample))
        return stored is not None and (stored["round"] == 0 or stored["prompt"] == request.messages)

    def _requests(self, benchmark: Benchmark, items: list[Item], number: int) -> Iterator[tuple[Row, int, Request]]:
        settings = benchmark.settings
        endings: tuple[str, ...] = ()
        for item in items:
            row = item.row
            if settings.stop_early:
                endings = tuple(one for name in row.verifiers for one in getattr(load_verifier(name), "STOPS", ()))
            temperature = settings.temperature if item.temperature is None else item.temperature
            common = Request(
                key="",
                messages=self._with_examples(row),
                max_tokens=item.max_tokens or settings.max_tokens,
                temperature=temperature,
                chat=settings.chat if item.chat is None else item.chat,
                stop=item.stop,
                stop_after=endings,
                must_fit=number == 0,
            )
            for sample in range(item.num_samples or settings.num_samples):
                key = f"{settings.label}\t{row.id}\t{sample}"
                seed = int(fingerprint([self._seed, key]), 16) % 2**31 if temperature else self._seed
                yield row, sample, replace(common, key=key, seed=seed)

    def _with_examples(self, row: Row) -> list[dict[str, str]]:
        shots = self._contestant.num_examples
        examples = (self._helpers.examples(row.task, shots) or []) if shots else []
        return [*(turn.model_dump() for example in examples for turn in example.messages), *row.prompt]

    def _record(
        self, benchmark: Benchmark, row: Row, number: int, sample: int, prompt: list[dict], written: dict[str, Any]
    ) -> None:
        line = {"benchmark": benchmark.label, "id": row.id, "task": row.task, "round": number, "sample": sample}
        line |= {"prompt": prompt, **written, "session": self._session}
        if self._shard:
            line["shard"] = str(self._shard)
        self._log.append(line)
        self._stored[_key(line)] = line

    def _measure(self) -> None:
        """Store the likelihood of every right answer that has a text."""
        wanted = []
        for benchmark in self._benchmarks:
            if not benchmark.settings.bits_per_byte:
                continue
            for item in benchmark.items:
                text = right_text(item.row)
                if text and self._is_asked(item.row):
                    chat = benchmark.settings.chat if item.chat is None else item.chat
                    prompt = "" if chat else "".join(turn["content"] for turn in item.row.prompt)
                    lead = "" if chat or text[0].isspace() or prompt[-1:].isspace() else " "
                    key = f"{benchmark.label}\t{item.row.id}"
                    wanted.append(Continuation(key, self._with_examples(item.row), lead + text, chat))
        log = JsonlLog(self.folder / "likelihoods.jsonl") if wanted else None
        if log is None:
            return
        done = {f"{line['benchmark']}\t{line['id']}" for line in log.rows}
        missing = [one for one in wanted if one.key not in done]
        if missing:
            engine = self._helpers.engine_for(self._contestant)
            title = f"{self._contestant.name}: bits per byte"
            for one, likelihood in track(engine.logprobs(missing), title, len(missing)):
                label, _, item = one.key.partition("\t")
                log.append({"benchmark": label, "id": item, **asdict(likelihood)})
        log.close()


def right_text(row: Row) -> str:
    """Return the text whose bits per byte are measured: the right option's, else the target, else the answer."""
    if not row.verifiers or row.kind == "critique":
        return ""
    text = str(row.meta.get("gold_text", row.target or row.answer) or "").rstrip()
    return text if text.strip() else ""


def _key(sample: dict[str, Any]) -> tuple[str, str, int]:
    return sample["benchmark"], sample["id"], sample["sample"]
