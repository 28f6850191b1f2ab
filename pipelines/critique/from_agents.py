"""Critiques by several agents, the MultiCritique pipeline (arXiv 2410.15287), from responses to rows to train on.

What is asked, step by step: the task, its criteria and a reference of every question once; critics' units; a verdict
of the meta-critic on each unit alone, the other critics' units beside it; one final critique of the good units; and
revisions after the best and the worst critique (MARV). `agents` keeps every answer, so running again goes on where a
kill came. Ground truth, where it is known, is never shown to an agent: final critiques that contradict it are dropped,
it judges the revisions, and it tells how good the critics are (`known_truth`).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_recipes.errors import UserError
from data_recipes.files import fingerprint, write_atomically, write_json
from data_recipes.progress import console, say
from data_recipes.reading import question_of, task_rows
from data_recipes.row import Message, Row
from eval.critique import CORRECT, critique_prompt, judging_row, spread
from eval.verifiers import verify
from pipelines.critique import agent_prompts as prompts
from pipelines.critique.agents import Agents, Ask
from pipelines.critique.known_truth import Known, accuracy, quality
from pipelines.critique.sections import MultiCritiqueSection
from pipelines.critique.traces import write_traces
from pipelines.critique.units import (
    AGGREGATE,
    MOST_PENALTY_KEPT,
    Critique,
    Information,
    Judgement,
    Pair,
    Unit,
    critique_model,
    critique_score,
    information_model,
    judgement_model,
    preference,
    sentence_of_step,
    sentences,
    validated_by_revisions,
)
from pipelines.experiment import Experiment


@dataclass
class Item:
    """A response and what the agents made of it."""

    row: Row
    information: Information | None = None
    critiques: dict[str, Critique] = field(default_factory=dict)
    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    """By critic and number of the unit."""
    final: Critique | None = None
    pair: Pair | None = None
    revisions: dict[str, list[tuple[str, float | None]]] = field(default_factory=dict)
    """By the critic whose critique was followed: texts and rewards."""
    validated: bool | None = None

    @property
    def question(self) -> str:
        """The question that the response answers."""
        return question_of(self.row)

    @property
    def response(self) -> str:
        """The response."""
        return self.row.meta["response"]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The characters of each sentence of the response."""
        return sentences(self.response)

    @property
    def known(self) -> Known | None:
        """What is known of the response, if anything is."""
        if self.row.answer not in ("correct", "incorrect"):
            return None
        step = self.row.meta.get("first_wrong_step")
        place = sentence_of_step(self.response, self.spans, int(step)) if step else None
        return Known(self.row.answer == "correct", place, self.question)

    def judged(self, critic: str) -> list[tuple[Unit, Judgement]]:
        """Return a critic's units that were judged, with what was said of them."""
        units = self.critiques[critic].units if critic in self.critiques else []
        return [(u, self.judgements[critic, n]) for n, u in enumerate(units) if (critic, n) in self.judgements]

    def kept(self, critic: str) -> list[Unit]:
        """Return a critic's units that the meta-critic lets stand."""
        return [unit for unit, judged in self.judged(critic) if judged.penalty <= MOST_PENALTY_KEPT]

    def written(self, critic: str) -> str:
        """Return a critic's critique as a text."""
        critique = self.final if critic == AGGREGATE else self.critiques[critic]
        assert critique is not None
        return prompts.written_out(critique.units, critique.verdict, self.response, self.spans)


def make_critiques_of_agents(experiment: Experiment) -> None:
    """Run or resume the multicritique stage: writes ``train.jsonl``, ``pairs.jsonl``, ``results.json`` and ``traces``.

    Raises:
        UserError: the tasks' rows hold no responses, an agent cannot be asked, or a budget is used up.
    """
    section = experiment.multicritique
    if section is None:
        raise UserError(f"{experiment.name}: the file has no multicritique section")
    folder = experiment.run_dir / "multicritique"
    items = _items(experiment, section)
    agents = Agents(section.agents, experiment, folder, section.retries, section.budget)
    try:
        run = _Run(section, agents, items)
        run.inform()
        run.criticise()
        run.judge()
        run.aggregate()
        run.revise(_rewarder(section, experiment))
    finally:
        agents.close()
    rows, pairs = [run_row for item in items if (run_row := _row(item))], [p for item in items if (p := _pair(item))]
    _write(folder / "train.jsonl", rows)
    _write(folder / "pairs.jsonl", pairs)
    write_traces(folder / "traces", items)
    results = _account(run, rows, pairs)
    write_json(folder / "results.json", results)
    _show(results)


def _items(experiment: Experiment, section: MultiCritiqueSection) -> list[Item]:
    recipe, path = experiment.mixture_recipe
    items = []
    for task in section.tasks:
        rows, _ = task_rows(recipe, task, experiment.run_dir)
        rows = [row for row in rows if row.meta.get("response") and row.kind == "critique"]
        if not rows:
            raise UserError(
                f"multicritique.tasks: no row of {task} holds a response to criticise; give the task kind: critique and"
                f" meta: {{response: ...}} in {path}"
            )
        items += [Item(row) for row in spread(rows, section.num_items, lambda row: row.id)]
    return items


class _Run:
    """The steps; each asks for all items at once."""

    def __init__(self, section: MultiCritiqueSection, agents: Agents, items: list[Item]) -> None:
        first = next(iter(section.agents))
        self.section, self.agents, self.items = section, agents, items
        self._longest = section.max_characters
        self.critics = section.critics or list(section.agents)
        self.informant, self.meta_critic = section.informant or first, section.judge or first
        self.aggregator, self.revisers = section.aggregator or first, section.revisers or list(section.agents)

    def inform(self) -> None:
        """Have task, criteria and reference written once a question."""
        asks = {}
        for item in self.items:
            key = f"information/{fingerprint(item.question)}"
            prompt = prompts.INFORM.format(question=item.question)
            asks[key] = Ask(key, self.informant, prompt, self.section.max_tokens, information_model(self._longest))
        found = self.agents.ask(list(asks.values()), "information")
        for item in self.items:
            item.information = found.get(f"information/{fingerprint(item.question)}")

    def criticise(self) -> None:
        """Have every critic write its units."""
        asks, places = [], {}
        for item in self._with_information():
            answer = self._critique_model(item)
            prompt = prompts.CRITICISE.format(**self._told(item))
            for critic in self.critics:
                key = f"critique/{item.row.id}/{critic}"
                asks.append(Ask(key, critic, prompt, self.section.max_tokens, answer))
                places[key] = (item, critic)
        for key, answered in self.agents.ask(asks, "critiques").items():
            item, critic = places[key]
            item.critiques[critic] = Critique.model_validate(answered.model_dump())

    def judge(self) -> None:
        """Have the meta-critic judge each unit by itself, the other critics' units beside it."""
        asks, places = [], {}
        answer = judgement_model(self._longest)
        for item in self._with_information():
            for critic, critique in item.critiques.items():
                others = [unit for name, other in item.critiques.items() if name != critic for unit in other.units]
                for number, unit in enumerate(critique.units):
                    key = f"judgement/{item.row.id}/{critic}/{number}"
                    prompt = prompts.JUDGE.format(
                        **self._told(item),
                        others=prompts.listed(others),
                        unit=prompts.shown(unit),
                        categories=prompts.categories(),
                    )
                    asks.append(Ask(key, self.meta_critic, prompt, self.section.max_tokens, answer))
                    places[key] = (item, critic, number)
        for key, judgement in self.agents.ask(asks, "judgements").items():
            item, critic, number = places[key]
            item.judgements[critic, number] = judgement

    def aggregate(self) -> None:
        """Have one final critique written of the units that stand, and choose the pair."""
        asks, places = [], {}
        for item in self._with_information():
            if not item.critiques:
                continue
            kept = [unit for critic in item.critiques for unit in item.kept(critic)]
            judged = [one for critic in item.critiques for one in item.judged(critic)]
            flagged = [one for one in judged if one[1].penalty > MOST_PENALTY_KEPT]
            answer = self._critique_model(item)
            prompt = prompts.AGGREGATE.format(
                **self._told(item), kept=prompts.listed(kept), flagged=prompts.refuted(flagged)
            )
            key = f"aggregate/{item.row.id}"
            asks.append(Ask(key, self.aggregator, prompt, self.section.max_tokens, answer))
            places[key] = item
            item.pair = preference(self.scores(item))
        for key, answered in self.agents.ask(asks, "final critiques").items():
            places[key].final = Critique.model_validate(answered.model_dump())

    @staticmethod
    def scores(item: Item) -> dict[str, float]:
        """Return what each critique is worth whose units were all judged."""
        found = {critic: item.judged(critic) for critic in item.critiques}
        whole = {c: judged for c, judged in found.items() if len(judged) == len(item.critiques[c].units)}
        return {c: critique_score([u for u, _ in judged], [j for _, j in judged]) for c, judged in whole.items()}

    def revise(self, rewarder: "Rewarder") -> None:
        """Have the responses of pairs revised after each of the two critiques, and see which helps more (MARV)."""
        asks, places = [], {}
        for item in self.items:
            if item.pair is None or not rewarder.can_judge(item):
                continue
            for critic in (item.pair.chosen, item.pair.rejected):
                prompt = CORRECT.format(question=item.question, response=item.response, critique=item.written(critic))
                for reviser in self.revisers:
                    for number in range(self.section.revisions):
                        key = f"revision/{item.row.id}/{critic}/{reviser}/{number}"
                        asks.append(Ask(key, reviser, prompt, self.section.revision_tokens))
                        places[key] = (item, critic)
        found = self.agents.ask(asks, "revisions")
        written = [(*places[one.key], found[one.key]) for one in asks if one.key in found]
        rewards = rewarder.rewards([(item, text) for item, _, text in written])
        for (item, critic, text), reward in zip(written, rewards, strict=True):
            item.revisions.setdefault(critic, []).append((text, reward))
        for item in self.items:
            if item.pair and item.revisions:
                rewards_of = {critic: [reward for _, reward in made] for critic, made in item.revisions.items()}
                item.validated = validated_by_revisions(
                    rewards_of.get(item.pair.chosen, []), rewards_of.get(item.pair.rejected, [])
                )

    def _with_information(self) -> Iterable[Item]:
        return (item for item in self.items if item.information is not None)

    def _critique_model(self, item: Item) -> type[BaseModel]:
        names = item.information.criterion_names
        return critique_model(len(item.spans), names, self.section.max_units, self._longest)

    def _told(self, item: Item) -> dict[str, str]:
        numbered = prompts.numbered(item.response, item.spans)
        return {**prompts.told(item.information), "question": item.question, "numbered": numbered}


@dataclass(frozen=True)
class Rewarder:
    """What a revision is worth: the question's verifiers say, else a reward model, else nobody does."""

    reward_model: Callable[[list[tuple[list[dict[str, str]], str]]], list[float | None]] | None

    def can_judge(self, item: Item) -> bool:
        """Tell whether revisions of this response can be judged."""
        return self.reward_model is not None or judging_row(item.row) is not None

    def rewards(self, written: list[tuple[Item, str]]) -> list[float | None]:
        """Return the reward of each revision; None: it could not be read."""
        rows = [judging_row(item.row) for item, _ in written]
        found = [verify(row, text).score if row else None for row, (_, text) in zip(rows, written, strict=True)]
        open_ones = [number for number, row in enumerate(rows) if row is None]
        if open_ones and self.reward_model:
            asked = [([{"role": "user", "content": item.question}], text) for item, text in written]
            scored = self.reward_model([asked[number] for number in open_ones])
            for number, score in zip(open_ones, scored, strict=True):
                found[number] = score
        return found


def _rewarder(section: MultiCritiqueSection, experiment: Experiment) -> Rewarder:
    if section.reward_model is None:
        return Rewarder(None)
    from eval.reward_models import RewardModel

    return Rewarder(RewardModel(section.reward_model, experiment.engine.dtype).score)


def _row(item: Item) -> Row | None:
    """Return the row to train on; None without a final critique, or where its verdict is known to be wrong."""
    if item.final is None or (item.known and (item.final.verdict == "correct") != item.known.right):
        return None
    return _row_like(
        item,
        "multicritique",
        messages=[*_prompt(item), Message(role="assistant", content=item.written(AGGREGATE))],
        answer=item.row.answer if item.known else None,
        verifiers=["verdict"] if item.known else [],
        meta={**item.row.meta, "question": item.question, "units": [unit.model_dump() for unit in item.final.units]},
    )


def _pair(item: Item) -> Row | None:
    if not item.validated or item.pair is None:
        return None
    texts = [item.written(critic) for critic in (item.pair.chosen, item.pair.rejected)]
    return _row_like(
        item,
        "multicritique_pairs",
        messages=_prompt(item),
        chosen=[Message(role="assistant", content=texts[0])],
        rejected=[Message(role="assistant", content=texts[1])],
        meta={**item.row.meta, "question": item.question, "written_by": [item.pair.chosen, item.pair.rejected]},
    )


def _row_like(item: Item, name: str, **parts: Any) -> Row:
    task = item.row.task.removeprefix("critique/")
    return Row(id=f"{name}/{item.row.id}", task=f"{name}/{task}", kind="critique", **parts)


def _prompt(item: Item) -> list[Message]:
    return [Message(role="user", content=critique_prompt(item.question, item.response))]


def _write(path: Path, rows: list[Row]) -> None:
    write_atomically(path, "".join(row.model_dump_json() + "\n" for row in rows))


def _account(run: _Run, rows: list[Row], pairs: list[Row]) -> dict[str, Any]:
    """Return the run's figures: yields, the share of real places, and how good critics are where truth is known."""
    items, spent = run.items, run.agents.spent
    units = [(item, unit) for item in items for critique in item.critiques.values() for unit in critique.units]
    real = sum(unit.place(item.spans) is not None for item, unit in units)
    by_critic: dict[str, Any] = {}
    known = [item for item in items if item.known]
    for critic in [*run.critics, AGGREGATE]:
        written = [(i, i.final if critic == AGGREGATE else i.critiques.get(critic)) for i in known]
        there = [(item, critique) for item, critique in written if critique]
        if not there:
            continue
        by_critic[critic] = {
            "critiques": len(there),
            "verdicts": accuracy([(item.known, critique.verdict) for item, critique in there]),
            "units": quality([(item.known, critique.units) for item, critique in there]),
        }
        if critic != AGGREGATE:
            judged = quality([(item.known, item.kept(critic)) for item, _ in there])
            by_critic[critic]["units after the meta-critic"] = judged
    categories = Counter(judgement.category for item in items for judgement in item.judgements.values())
    validated = Counter(str(item.validated) for item in items if item.pair)
    return {
        "items": len(items),
        "critiques": sum(len(item.critiques) for item in items),
        "units": len(units),
        "units whose place is real": real / len(units) if units else None,
        "judgements": dict(categories),
        "final critiques": sum(item.final is not None for item in items),
        "rows": len(rows),
        "pairs before revisions": sum(item.pair is not None for item in items),
        "pairs kept by revisions": len(pairs),
        "pairs revisions speak against": validated["False"],
        "pairs nobody could judge": validated["None"],
        "answers": run.agents.answers,
        "known truth": by_critic,
        "tokens": spent.tokens,
        "dollars": spent.dollars,
        "seconds": round(spent.seconds, 1),
    }


def _show(results: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title="who judges the judge: units on responses of known truth, percent", title_justify="left")
    for name in ("critic", "verdicts right", "precision", "recall", "precision after", "recall after"):
        table.add_column(name)
    for critic, found in results["known truth"].items():
        after = found.get("units after the meta-critic", {})
        cells = [found["verdicts"], *(found["units"].get(k) for k in ("precision", "recall"))]
        cells += [after.get(k) for k in ("precision", "recall")]
        table.add_row(critic, *(_cell(cell) for cell in cells))
    console().print(table)
    say(
        f"  {results['items']} responses, {results['units']} units, {results['rows']} rows,"
        f" {results['pairs kept by revisions']} of {results['pairs before revisions']} pairs kept;"
        f" {results['tokens']} tokens, {results['seconds']:.0f} s"
    )


def _cell(found: dict[str, Any] | None) -> str:
    if not found:
        return "-"
    return f"{100 * found['value']:.0f} [{100 * found['low']:.0f}, {100 * found['high']:.0f}] of {found['n']}"
