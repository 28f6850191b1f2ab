"""The board as Markdown, as CSV and in the terminal."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from data_recipes.progress import console, say
from eval.leaderboard.board import Board
from eval.leaderboard.columns import Ability, Column, Entry
from eval.leaderboard.grid import Cell, grid, shows_tasks
from eval.statistics import Estimate

BOARD_COLUMNS = (
    *("run", "row", "benchmark", "task", "metric", "accuracy", "low", "high", "items", "standard_error", "by_subject"),
    *("micro", "macro", "headline", "best_rank", "worst_rank", "bits_per_byte", "unparsed", "truncated", "extraction"),
    *("on_failure", "tokens", "prompt_tokens", "seconds", "command"),
)
PAIR_COLUMNS = (
    *("benchmark", "row", "other", "difference", "low", "high", "standard_error", "items", "left_out", "won", "lost"),
    *("mcnemar_p", "mcnemar_p_holm", "bootstrap_p", "bootstrap_p_holm"),
)


def markdown(board: Board) -> str:
    """Return the table with a column a row of the board, what the columns can show, and the findings."""
    names = [_plain(line.name) for line in board.lines]
    out = [f"# {_plain(board.title)}", ""]
    out += [f"- `{_plain(command)}`" for command in dict.fromkeys(line.command for line in board.lines) if command]
    out += ["", f"| % | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for head in grid(board):
        bold = "**" if head.kind == "mean" else ""
        cells = [f"{bold}{_in_words(cell)}{bold}" for cell in head.cells]
        out.append(f"| {bold}{_plain(head.name)}{bold} | {' | '.join(cells)} |")
    out += ["", f"| what a column can show | {' | '.join(ABILITIES)} |", "|---|" + "---:|" * len(ABILITIES)]
    for label, column in board.columns.items():
        out.append(f"| {_plain(label)} | {' | '.join(ability_cells(column.ability))} |")
    return "\n".join([*out, "", *[f"- {_plain(sentence)}" for sentence in [*board.findings, *board.notes]], ""])


def _plain(text: str) -> str:
    """Keep a name from opening a table cell, a code span or a tag in Markdown."""
    return " ".join(text.replace("|", "/").replace("`", "'").replace("<", "&lt;").split())


def _in_words(cell: Cell, ranks: bool = True) -> str:
    interval = f" [{cell.interval[0]}, {cell.interval[1]}]" if cell.interval else ""
    return "".join([cell.text, interval, *(f", {note}" for note in cell.notes if ranks and note.startswith("rank"))])


ABILITIES = {
    "items": "questions of any row",
    "clusters": "groups of dependent questions; an independent one is a group of its own",
    "design effect": "variance with clusters over variance without",
    "smallest difference": "of two rows, in points: shows eight times in ten at 5 %, two-sided",
    "of all pairs": "the same where all pairs of rows are tested",
    "discordant, %": "items right in exactly one of two rows, median over pairs",
    "told apart": "pairs of rows whose corrected test supports a difference",
    "SNR": "spread of models over spread of one run's last checkpoints",
}
"""What a column can show -> what that means."""


def ability_cells(ability: Ability) -> list[str]:
    """Return a column's abilities as text, in the order of `ABILITIES`."""

    def points(value: float | None) -> str:
        return "–" if value is None else f"{'~' if ability.assumed else ''}{100 * value:.1f}"

    return [
        f"{ability.items:,}",
        f"{ability.clusters:,}",
        f"{ability.design_effect:.2f}",
        points(ability.smallest),
        points(ability.smallest_of_all),
        "–" if ability.discordant is None else f"{100 * ability.discordant:.1f}",
        f"{ability.told_apart} of {ability.pairs}",
        _snr(ability),
    ]


def _snr(ability: Ability) -> str:
    found = ability.snr
    if found is None:
        return "– (no row is one of several checkpoints)"
    if found.snr is None:
        return "– (one model)" if found.models < 2 else "– (no noise, or scores of 0)"
    return f"{found.snr:.1f} ({found.models} models, {found.checkpoints} checkpoints)"


def as_csv(board: Board) -> str:
    """Return one record a row, benchmark and task or metric (without either: the headline), shares in percent."""
    records = []
    for number, line in enumerate(board.lines):
        for label, column in board.columns.items():
            entry = line.entries.get(label)
            if entry is None:
                continue
            common = {"run": line.run, "row": line.name, "benchmark": label, "command": line.command}
            common |= {"extraction": entry.result.extraction, "on_failure": entry.result.on_failure}
            records += [common | record for record in _records(entry, column, number)]
    return _written(BOARD_COLUMNS, records)


def _records(entry: Entry, column: Column, number: int) -> Iterable[dict[str, Any]]:
    result = entry.result
    best, worst = column.ranks[number]
    yield {
        **_estimate(entry.headline),
        "by_subject": _number(entry.half_by_subject),
        "micro": _number(entry.micro),
        "macro": _number(entry.macro),
        "headline": column.headline,
        "best_rank": best,
        "worst_rank": worst,
        "bits_per_byte": f"{entry.bits.value:.4f}" if entry.bits else "",
        "unparsed": _number(result.share("unparsed")),
        "truncated": _number(result.share("truncated")),
        "tokens": result.num_tokens,
        "prompt_tokens": result.num_prompt_tokens,
        "seconds": result.seconds,
    }
    for task, estimate in entry.tasks.items():
        bits = result.bits_per_byte.get(task)
        yield {
            "task": task,
            **_estimate(estimate),
            "bits_per_byte": f"{sum(bits.values()) / len(bits):.4f}" if bits else "",
            "unparsed": _number(result.share("unparsed", task)),
            "truncated": _number(result.share("truncated", task)),
        }
    for name, figure in result.metrics.items():
        scale = 100 if figure.percent else 1
        values = {"accuracy": figure.value, "low": figure.low, "high": figure.high}
        shown = {key: "" if x is None else f"{scale * x:.{2 if figure.percent else 4}f}" for key, x in values.items()}
        yield {"metric": name, **shown, "items": figure.n}


def _estimate(one: Estimate) -> dict[str, Any]:
    values = {"accuracy": one.value, "low": one.low, "high": one.high, "standard_error": one.standard_error}
    return {**{key: _number(value) for key, value in values.items()}, "items": one.n}


def _number(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def pairs_csv(board: Board) -> str:
    """Return one record a benchmark and pair of rows: the paired tests, differences in points."""
    records = []
    for label, column in board.columns.items():
        for pair in column.pairs:
            values = (pair.difference, pair.low, pair.high, pair.standard_error)
            tests = (pair.mcnemar, pair.corrected_mcnemar, pair.p, pair.corrected)
            names = (board.lines[pair.ours].name, board.lines[pair.theirs].name)
            counts = (pair.items, pair.left_out, pair.won, pair.lost)
            record = (label, *names, *map(_number, values), *counts, *(f"{p:.3g}" for p in tests))
            records.append(dict(zip(PAIR_COLUMNS, record, strict=True)))
    return _written(PAIR_COLUMNS, records)


def _written(columns: Iterable[str], records: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def print_table(board: Board) -> None:
    """Print the table and the findings in the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{board.title}: accuracy in %, 95 % intervals"), title_justify="left")
    table.add_column("")
    for line in board.lines:
        table.add_column(Text(line.name), justify="right")
    for head in grid(board):
        if head.kind == "task" and not shows_tasks(board):
            continue
        cells = [Text(_in_words(cell, ranks=False)) for cell in head.cells]
        table.add_row(Text(head.name), *cells, style="bold" if head.kind == "mean" else None)
    console().print(table)
    for sentence in board.findings:
        say(f"  {sentence}")
