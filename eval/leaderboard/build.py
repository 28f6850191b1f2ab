"""Run folders become ``index.html`` and its samples, ``leaderboard.md``, ``leaderboard.csv`` and ``pairs.csv``."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_recipes.errors import UserError
from data_recipes.files import folder_written_atomically, write_atomically, write_json
from data_recipes.progress import say
from eval.comparison import LEVEL, Pair
from eval.leaderboard import grid, tables
from eval.leaderboard.board import Board, read_board
from eval.leaderboard.columns import Column
from eval.leaderboard.reading import visible
from eval.leaderboard.samples import write_samples

POLICIES = {"expected": "the expected guess", "wrong": "wrong", "guess": "a seeded guess", "guess-10": "a guess of ten"}


def build_leaderboard(run_dirs: list[Path], output: Path | None = None) -> Board:
    """Read run folders, write their leaderboard and print the table.

    Args:
        output: the folder to write; absent: ``leaderboard`` in the one run folder.

    Raises:
        UserError: a folder holds no evaluated model, a file is damaged, or several runs are given without `output`.
    """
    if output is None and len(run_dirs) > 1:
        raise UserError("leaderboard: several runs make one page; say where it goes with --output FOLDER")
    folder = output or run_dirs[0] / "leaderboard"
    theirs = next((one for one in (folder / "samples", folder / "index.html") if one.exists()), None)
    if theirs is not None and not (folder / "findings.json").exists():  # (written first, so ours is known by it)
        raise UserError(f"{theirs}: not a leaderboard's; say where the page goes with --output FOLDER")
    board = read_board(run_dirs)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_json(folder / "findings.json", {"findings": board.findings, "notes": board.notes})
    with folder_written_atomically(folder / "samples") as samples:
        template = templates.get_template("samples.html.j2")
        links = write_samples([line.source for line in board.lines], samples, template)
    page = templates.get_template("page.html.j2").render(board=board, **_shown(board), links=_linked(links))
    # what is not a character (half a surrogate pair in a name) is written as a question mark
    for name, text in (
        ("index.html", page),
        ("leaderboard.md", tables.markdown(board)),
        ("leaderboard.csv", tables.as_csv(board)),
        ("pairs.csv", tables.pairs_csv(board)),
    ):
        write_atomically(folder / name, text.encode("utf-8", "replace"))
    tables.print_table(board)
    say(f"  page: {folder / 'index.html'}")
    return board


def _linked(links: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{visible(label): f"samples/{page}" for label, page in of_row.items()} for of_row in links]


def _shown(board: Board) -> dict[str, Any]:
    """Return what the page's template needs beside the board."""
    commands = list(dict.fromkeys(line.command for line in board.lines))
    pairs = {label: _both_ways(column.pairs) for label, column in board.columns.items()}
    return {
        "commands": [command for command in commands if command],
        "heads": grid.grid(board),
        "kinds": {kind: name for kind, name in grid.KINDS.items() if any(h.kind == kind for h in grid.grid(board))},
        "shows_tasks": grid.shows_tasks(board),
        "explained": {label: grid.explained(column) for label, column in board.columns.items()},
        "abilities": tables.ABILITIES,
        "ability_cells": tables.ability_cells,
        "policies": {label: _policies(column) for label, column in board.columns.items()},
        "pairs": pairs,
        "tests": _tests(board),
        "chosen": _chosen(board),
    }


def _both_ways(pairs: list[Pair]) -> dict[tuple[int, int], tuple[Pair, int]]:
    """Return (row, other row) -> their pair and its sign."""
    ours = {(pair.ours, pair.theirs): (pair, 1) for pair in pairs}
    return ours | {(pair.theirs, pair.ours): (pair, -1) for pair in pairs}


def _policies(column: Column) -> str:
    return ", ".join(sorted({POLICIES.get(one.on_failure, one.on_failure) for one in column.results.values()}))


def _chosen(board: Board) -> tuple[int, int]:
    """Return the two rows that are compared when the page opens: the best two of the first benchmark."""
    first = next(iter(board.columns.values()))
    best = sorted(first.entries, key=lambda row: -first.entries[row].headline.value)[:2]
    return (best[0], best[1]) if len(best) == 2 else (0, len(board.lines) - 1)


def _tests(board: Board) -> dict[str, Any]:
    """Return the paired tests as the page's script reads them."""
    return {
        "level": LEVEL,
        "columns": list(board.columns),
        "pairs": [{f"{p.ours}-{p.theirs}": _numbers(p) for p in column.pairs} for column in board.columns.values()],
    }


def _numbers(pair: Pair) -> list[float]:
    tests = (pair.mcnemar, pair.corrected_mcnemar, pair.p, pair.corrected)
    return [
        *(round(x, 5) for x in (pair.difference, pair.low, pair.high)),
        *(pair.won, pair.lost),
        *(float(f"{p:.3g}") for p in tests),
        *(pair.items, pair.left_out),
    ]
