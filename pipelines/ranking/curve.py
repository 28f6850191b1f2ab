"""A reward model's results.json as what its page draws: a line a task, and the calibration curve."""

from pathlib import Path
from typing import Any

from data_recipes.files import read_json
from eval.leaderboard.reading import visible
from pipelines.training_plot import place

UNIT = (0, 1), (0.0, 1.0)


def ranked(path: Path) -> dict[str, Any] | None:
    """Return the table's rows and the curve's points in `training_plot`'s coordinates; None without results.

    Raises:
        UserError: the file is damaged.
    """
    results = read_json(path) if path.exists() else None
    if not results or not results["all"]:
        return None
    every = {"train_pairs": results["train_pairs"], "heldout_pairs": results["heldout_pairs"], **results["all"]}
    tasks = results["tasks"] | ({"mean of the tasks": every} if len(results["tasks"]) > 1 else {})
    bins = [_point(one) for one in results["calibration"]]
    return {
        "rows": [_row(task, found) for task, found in tasks.items()],
        "bins": bins,
        "line": "M" + "L".join(f"{one['x']} {one['y']}" for one in bins),
    }


def _row(task: str, found: dict[str, Any]) -> dict[str, Any]:
    accuracy = found.get("accuracy")
    return {
        "task": visible(task),
        "train": found["train_pairs"],
        "heldout": found["heldout_pairs"],
        "accuracy": accuracy and f"{100 * accuracy['value']:.1f} %",
        "interval": accuracy and f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}",
        "margin": found.get("margin"),
        "error": found.get("expected_calibration_error"),
    }


def _point(one: dict[str, Any]) -> dict[str, Any]:
    x, y = place(one["predicted"], one["actual"], *UNIT)
    low, high = (place(one["predicted"], bound, *UNIT)[1] for bound in one["interval"])
    words = f"predicted {100 * one['predicted']:.0f} %, actual {100 * one['actual']:.0f} % of {one['n']:,}"
    return {"x": x, "y": y, "low": low, "high": high, "words": words}
