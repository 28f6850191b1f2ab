"""A readable trace of every response's critiques: one Markdown file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_recipes.files import folder_written_atomically
from pipelines.critique.agent_prompts import numbered
from pipelines.critique.units import AGGREGATE

if TYPE_CHECKING:  # whose items these are
    from pipelines.critique.from_agents import Item


def write_traces(folder: Path, items: list[Item]) -> None:
    """Write ``0001.md``, ... in the order of the items."""
    with folder_written_atomically(folder) as temporary:
        for number, item in enumerate(items, start=1):
            (temporary / f"{number:04}.md").write_text(trace(item), encoding="utf-8")


def trace(item: Item) -> str:
    """Return what was said of a response and of what was said; all that models wrote is quoted."""
    known = f" (known to be {item.row.answer})" if item.known else ""
    parts = [f"# {item.row.id}", "## Question", _quoted(item.question)]
    parts += [f"## Response{known}", _quoted(numbered(item.response, item.spans))]
    if item.information:
        criteria = "\n".join(f"- {name}" for name in item.information.criterion_names)
        parts += ["## Task", _quoted(item.information.task), "## Criteria", _quoted(criteria)]
        parts += ["## Reference", _quoted(item.information.reference)]
    for critic, critique in item.critiques.items():
        parts += [f"## {critic}: {critique.verdict}", *([] if critique.units else ["No flaw."])]
        for place, unit in enumerate(critique.units):
            parts.append(f"{place + 1}. sentences {unit.first_sentence} to {unit.last_sentence}, {unit.severity}")
            parts.append(_quoted(f"{unit.criterion}\n{unit.flaw}\n{unit.suggestion}"))
            judged = item.judgements.get((critic, place))
            parts.append(f"Meta-critic: {judged.category}" if judged else "Meta-critic: no valid judgement")
            parts += [_quoted(judged.reason)] if judged else []
    if item.final:
        parts += ["## Final critique", _quoted(item.written(AGGREGATE))]
    if item.pair:
        kept = {True: "kept", False: "dropped: revisions say otherwise", None: "dropped: nobody could judge"}
        parts += [f"## Pair: {item.pair.chosen} over {item.pair.rejected}, {kept[item.validated]}"]
        for critic, made in item.revisions.items():
            rewards = ", ".join("unparsed" if reward is None else f"{reward:g}" for _, reward in made)
            parts += [f"Rewards of revisions after {critic}: {rewards}"]
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())
