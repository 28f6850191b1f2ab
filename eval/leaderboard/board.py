"""Run folders -> the board: rows, columns, findings and notes, from which page, Markdown and CSV are drawn."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_jsonl
from eval.leaderboard.columns import Column, Entry
from eval.leaderboard.curves import Panel, panels
from eval.leaderboard.findings import findings
from eval.leaderboard.reading import Run, RunRow, read_runs, visible


@dataclass
class Line:
    """One row of the leaderboard."""

    name: str
    description: str
    is_baseline: bool
    run: str
    command: str
    versions: dict[str, Any]
    settings: dict[str, Any]
    entries: dict[str, Entry]
    """benchmark -> what the row reached on it, for those it answered"""
    unparsed: float | None
    """Share of all answers."""
    truncated: float | None
    num_tokens: int
    num_prompt_tokens: int
    seconds: float
    sessions: int
    source: RunRow


@dataclass
class Board:
    """Everything the page, the Markdown and the CSV are drawn from."""

    title: str
    runs: list[Run]
    columns: dict[str, Column]
    """benchmark -> its scores over all rows"""
    lines: list[Line]
    findings: list[str]
    notes: list[str]
    loss: list[Panel] = field(default_factory=list)
    reward: list[Panel] = field(default_factory=list)


def read_board(run_dirs: list[Path]) -> Board:
    """Compute the leaderboard of run folders.

    Raises:
        UserError: a folder holds no evaluated model, or one of its files is damaged.
    """
    runs = read_runs(run_dirs)
    columns = columns_of(runs)
    lines = [
        _line(row, visible(run.about.name), columns, number)
        for number, (run, row) in enumerate((run, row) for run in runs for row in run.rows)
    ]
    loss: list[Panel] = []
    reward: list[Panel] = []
    stale = False
    for run in runs:
        prefix = f"{visible(run.about.name)}: " if len(runs) > 1 else ""
        loss += panels(_metrics(run.folder / "sft"), "loss/", prefix)
        rewards = _metrics(run.folder / "grpo")
        reward += panels(rewards, "reward/", prefix)
        stale = stale or any("stale_rollouts" in line for line in rewards)
    return Board(
        title=" + ".join(visible(run.about.name) for run in runs),
        runs=runs,
        columns=columns,
        lines=lines,
        findings=findings(columns, [line.name for line in lines], [line.is_baseline for line in lines]),
        notes=_notes(runs, lines, columns, stale),
        loss=loss,
        reward=reward,
    )


def columns_of(runs: list[Run]) -> dict[str, Column]:
    """Return benchmark -> its scores over the rows of all runs, for those that were answered.

    Raises:
        UserError: no row has a score.
    """
    rows = [row for run in runs for row in run.rows]
    labels = dict.fromkeys(label for row in rows for label in row.result.benchmarks)
    columns = {visible(label): Column(label, rows) for label in labels}
    columns = {label: column for label, column in columns.items() if column.results}
    if not columns:
        raise UserError(f"{runs[0].folder}: no row has a score; run 'whetstone eval FILE' again")
    return columns


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return read_jsonl(path) if path.exists() else []


def _line(row: RunRow, run: str, columns: dict[str, Column], number: int) -> Line:
    result = row.result
    entries = {label: column.entries[number] for label, column in columns.items() if number in column.results}
    counts = {
        name: sum(sum(getattr(one, name).values()) for one in result.benchmarks.values())
        for name in ("answers", "unparsed", "truncated")
    }
    return Line(
        name=row.name,
        description=visible(_description(row.name, result.settings)),
        is_baseline=row.is_baseline,
        run=run,
        command=result.command,
        versions=result.versions,
        settings={k: v for k, v in result.settings.items() if k not in ("name", "command", "versions", "benchmarks")},
        entries=entries,
        unparsed=counts["unparsed"] / counts["answers"] if counts["answers"] else None,
        truncated=counts["truncated"] / counts["answers"] if counts["answers"] else None,
        num_tokens=result.num_tokens,
        num_prompt_tokens=result.num_prompt_tokens,
        seconds=result.seconds,
        sessions=result.sessions,
        source=row,
    )


def _description(name: str, settings: dict[str, Any]) -> str:
    if settings.get("constant"):
        return "each task's most frequent training answer; no model"
    parts = [str(settings.get("model") or "").replace("{run}/", "")]
    if settings.get("adapter"):
        parts.append(f"adapter {settings['adapter']}")
    if settings.get("num_examples"):
        parts.append(f"{settings['num_examples']} worked examples before the question")
    return ", ".join(part for part in parts if part not in ("", name))


def _notes(runs: list[Run], lines: list[Line], columns: dict[str, Column], stale: bool) -> list[str]:
    notes = [note for run in runs for note in run.notes]
    for label, column in columns.items():
        for name, what in (("on_failure", "unparsed answers count as"), ("extraction", "answers are read by")):
            used = {getattr(result, name) or "the verifier's own rule" for result in column.results.values()}
            if len(used) > 1:
                listed = ", ".join(sorted(used))
                notes.append(f"CAUTION: rows of {label} are scored unlike one another: {what} {listed}.")
        counts = {entry.headline.n for entry in column.entries.values()}
        if len(counts) > 1:
            notes.append(
                f"CAUTION: rows of {label} answered {min(counts):,} to {max(counts):,} items; their means are not of"
                " the same questions, the paired comparisons are."
            )
    checked = [visible(run.about.name) for run in runs if (run.folder / "mixture" / "manifest.json").exists()]
    if checked:  # the eval stage refuses to start otherwise
        of = f" of {', '.join(checked)}" if len(runs) > 1 else ""
        notes.append(f"None of the questions asked occurs word for word in a training row{of}.")
    resumed = [line.name for line in lines if line.sessions > 1]
    if resumed:
        notes.append(f"Rests on resumed generation (all stored completions were kept): {', '.join(resumed)}.")
    if stale:
        notes.append("ALARM: some GRPO rollouts came from stale weights; see grpo/metrics.jsonl.")
    return notes
