"""`whetstone score RUN`: score stored completions again, under another extraction or policy, without a model."""

from pathlib import Path
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_json
from data_recipes.progress import console, track
from eval.inspection import plain
from eval.run_folder import RunFolder, open_run
from eval.scoring import score_contestant
from eval.verifiers import extractions_of


def rescore(path: Path, changes: dict[str, Any], only: str | None = None) -> None:
    """Score every row of a run again, keep the results in it and print what they come to.

    Args:
        changes: settings to score under: ``extraction``, ``on_failure``, ``strip_reasoning``; none: as it was scored.
        only: the label of the one benchmark they are for.

    Raises:
        UserError: there is no such run, benchmark or extraction, or completions were cut too early for it.
    """
    run = open_run(path)
    labels = list(run.benchmarks())
    if only is not None and only not in labels:
        raise UserError(f"{run.path}: no benchmark {only!r}{nearest(only, labels)}")
    _check_extraction(run, changes.get("extraction"))
    folders = run.contestants()
    print_scores([score_contestant(run, folder, changes, only) for folder in track(folders, "score", len(folders))])


def _check_extraction(run: RunFolder, extraction: str | None) -> None:
    if not extraction:
        return
    rows = (row for folder in run.contestants() for _, _, row in run.asked(folder))
    names = sorted({name for row in rows for name in row.verifiers})
    known = sorted({one for name in names for one in extractions_of(name)})
    if extraction not in known:
        hint = nearest(extraction, known) if known else f" ({', '.join(names)} read answers in one way only)"
        raise UserError(f"--extraction {extraction!r}: no verifier of {run.path} reads answers so{hint}")


def print_scores(results: list[dict[str, Any]]) -> None:
    """Print a line a row and benchmark: micro and macro accuracy, and the shares of unparsed and truncated answers."""
    from rich.table import Table

    table = Table("row", "benchmark", "extraction", "on failure", "items", "micro %", "macro %", "unparsed %", "cut %")
    for result in results:
        for label, b in result["benchmarks"].items():
            tasks = [list(items.values()) for items in b["scores"].values() if items]
            scores = [score for of_task in tasks for score in of_task]
            answers = max(1, sum(b["answers"].values()))
            cells = (
                sum(scores) / max(1, len(scores)),
                sum(sum(of_task) / len(of_task) for of_task in tasks) / max(1, len(tasks)),
                sum(b["unparsed"].values()) / answers,
                sum(b["truncated"].values()) / answers,
            )
            shown = [f"{100 * cell:.2f}" for cell in cells]
            extraction = b["extraction"] or "default"
            table.add_row(plain(result["name"]), plain(label), extraction, b["on_failure"], str(len(scores)), *shown)
    console().print(table)


def results_of(run: RunFolder) -> list[dict[str, Any]]:
    """Return the results of every row of a run, in its display order."""
    order = read_json(run.path / "run.json")["order"] if (run.path / "run.json").exists() else []
    found = [read_json(folder / "results.json") for folder in run.contestants() if (folder / "results.json").exists()]
    return sorted(found, key=lambda r: (order.index(r["name"]) if r["name"] in order else len(order), r["name"]))
