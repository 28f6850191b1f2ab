"""A run folder becomes ``leaderboard/index.html`` (self-contained), ``leaderboard.md`` and ``leaderboard.csv``."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl, write_atomically, write_json
from data_recipes.progress import console, say
from data_recipes.validation import read_yaml
from eval.leaderboard.curves import Panel, panels
from eval.statistics import Scores, mean_over_tasks, paired_difference, wilson


@dataclass
class Cell:
    """A share with its 95 % interval, all in percent."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


@dataclass
class Line:
    """One row of the leaderboard."""

    name: str
    description: str
    is_baseline: bool
    scores: Scores
    means: dict[str, Cell]
    """benchmark -> mean over its tasks"""
    tasks: dict[str, Cell]
    unparsed: float
    truncated: float
    num_tokens: int
    seconds: float
    sessions: int


@dataclass
class Board:
    """Everything the page, the Markdown and the CSV are drawn from."""

    title: str
    command: str
    versions: dict[str, str]
    benchmarks: dict[str, list[str]]
    """benchmark -> its tasks"""
    lines: list[Line]
    differences: dict[str, dict[tuple[str, str], tuple[float, float]]]
    """benchmark -> (row, other row) -> paired difference and half-width, in points"""
    findings: list[str]
    notes: list[str]
    loss: list[Panel] = field(default_factory=list)
    reward: list[Panel] = field(default_factory=list)


def build_leaderboard(run_dir: Path) -> Board:
    """Read a run folder, write its leaderboard and print the table.

    Raises:
        UserError: the folder holds no evaluated model.
    """
    board = read_board(run_dir)
    folder = run_dir / "leaderboard"
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_atomically(folder / "index.html", templates.get_template("page.html.j2").render(board=board))
    write_atomically(folder / "leaderboard.md", markdown(board))
    write_atomically(folder / "leaderboard.csv", as_csv(board))
    write_json(folder / "findings.json", {"findings": board.findings, "notes": board.notes})
    print_table(board)
    say(f"  page: {folder / 'index.html'}")
    return board


def read_board(run_dir: Path) -> Board:
    """Compute the leaderboard of a run folder.

    Raises:
        UserError: the folder holds no evaluated model.
    """
    results = [read_json(path) for path in sorted((run_dir / "eval").glob("*/results.json"))]
    if not results:
        raise UserError(f"{run_dir}: nothing has been evaluated here; run 'whetstone eval FILE' first")
    experiment = read_yaml(run_dir / "experiment.yaml")
    environment = read_json(run_dir / "environment.json")
    order = [*experiment["eval"]["baselines"], "SFT", "GRPO"]
    results = sorted((r for r in results if r["name"] in order), key=lambda r: order.index(r["name"]))
    benchmarks: dict[str, list[str]] = {}
    for setting in experiment["eval"]["benchmarks"]:
        tasks = [task for task, name in results[0]["benchmarks"].items() if name == setting["type"]]
        if tasks:
            benchmarks[setting["type"]] = sorted(tasks)
    lines = [_line(result, benchmarks, experiment["eval"]["baselines"]) for result in results]
    differences = {
        name: {
            (ours.name, theirs.name): tuple(100 * x for x in paired_difference(_of(ours, tasks), _of(theirs, tasks)))
            for ours in lines
            for theirs in lines
            if ours is not theirs
        }
        for name, tasks in benchmarks.items()
    }
    return Board(
        title=experiment["name"],
        command=environment["command"],
        versions={**environment["versions"], "python": environment["python"]},
        benchmarks=benchmarks,
        lines=lines,
        differences=differences,
        findings=findings(lines, benchmarks, differences),
        notes=_notes(run_dir, lines),
        loss=panels(_metrics(run_dir / "sft"), "loss/"),
        reward=panels(_metrics(run_dir / "grpo"), "reward/"),
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return read_jsonl(path) if path.exists() else []


def _of(line: Line, tasks: list[str]) -> Scores:
    return {task: line.scores[task] for task in tasks}


def _line(result: dict[str, Any], benchmarks: dict[str, list[str]], baselines: dict[str, Any]) -> Line:
    scores: Scores = result["scores"]
    means, cells = {}, {}
    for name, tasks in benchmarks.items():
        mean, half = mean_over_tasks({task: scores[task] for task in tasks})
        n = sum(len(scores[task]) for task in tasks)
        means[name] = Cell(100 * mean, 100 * max(0.0, mean - half), 100 * min(1.0, mean + half), n)
        for task in tasks:
            values = scores[task].values()
            low, high = wilson(sum(values), len(values))
            cells[task] = Cell(100 * sum(values) / len(values), 100 * low, 100 * high, len(values))
    items = sum(len(of_task) for of_task in scores.values())
    settings = result["settings"]
    if settings["constant"]:
        description = "each task's most frequent training answer; no model"
    else:
        examples = (
            f", {settings['num_examples']} worked examples before the question" if settings["num_examples"] else ""
        )
        description = settings["model"].replace("{run}/", "") + examples
    return Line(
        name=result["name"],
        description=description,
        is_baseline=result["name"] in baselines,
        scores=scores,
        means=means,
        tasks=cells,
        unparsed=100 * sum(result["unparsed"].values()) / items,
        truncated=100 * sum(result["truncated"].values()) / items,
        num_tokens=result["num_tokens"],
        seconds=result["seconds"],
        sessions=result["sessions"],
    )


def findings(
    lines: list[Line],
    benchmarks: dict[str, list[str]],
    differences: dict[str, dict[tuple[str, str], tuple[float, float]]],
) -> list[str]:
    """Say in words what the paired intervals support: SFT against the best baseline, GRPO against SFT."""
    sentences = []
    names = [line.name for line in lines]
    for benchmark, tasks in benchmarks.items():
        what = f"{benchmark} (mean over {len(tasks)} tasks)"
        baselines = [line for line in lines if line.is_baseline]
        if baselines and "SFT" in names:
            best = max(baselines, key=lambda line: line.means[benchmark].value)
            sentences.append(_compare("SFT", best.name, "the best baseline", what, differences[benchmark]))
        if "SFT" in names and "GRPO" in names:
            sentences.append(_compare("GRPO", "SFT", "the model it started from", what, differences[benchmark]))
    return sentences


def _compare(
    ours: str, theirs: str, role: str, what: str, differences: dict[tuple[str, str], tuple[float, float]]
) -> str:
    gain, half = differences[(ours, theirs)]
    if gain > half:
        verdict = "is better than"
    elif gain < -half:
        verdict = "is worse than"
    else:
        verdict = "is not distinguishable from"
    return f"On {what}, {ours} {verdict} “{theirs}”, {role}: {gain:+.1f} ± {half:.1f} points (paired 95 % interval)."


def _notes(run_dir: Path, lines: list[Line]) -> list[str]:
    notes = ["An answer that could not be read (unparsed) counts as wrong.", "Means give every task the same weight."]
    if (run_dir / "mixture" / "manifest.json").exists():  # the eval stage refuses to start otherwise
        notes.append("None of the questions asked occurs word for word in a training row.")
    resumed = [line.name for line in lines if line.sessions > 1]
    if resumed:
        notes.append(f"Rests on resumed generation (all stored completions were kept): {', '.join(resumed)}.")
    if any("stale_rollouts" in line for line in _metrics(run_dir / "grpo")):
        notes.append("ALARM: some GRPO rollouts came from stale weights; see grpo/metrics.jsonl.")
    return notes


def markdown(board: Board) -> str:
    """Return the table with a column a model, and the findings."""
    names = [_plain(line.name) for line in board.lines]
    out = [
        f"# {_plain(board.title)}",
        "",
        f"`{_plain(board.command)}`",
        "",
        f"| % | {' | '.join(names)} |",
        "|---|" + "---:|" * len(names),
    ]
    for label, cells in _table(board):
        out.append(f"| {_plain(label)} | {' | '.join(cells)} |")
    return "\n".join([*out, "", *[f"- {_plain(sentence)}" for sentence in [*board.findings, *board.notes]], ""])


def _plain(text: str) -> str:
    """Keep a name from opening a table cell, a code span or a tag in Markdown."""
    return text.replace("|", "/").replace("`", "'").replace("<", "&lt;")


def _table(board: Board) -> list[tuple[str, list[str]]]:
    rows = []
    for benchmark, tasks in board.benchmarks.items():
        cells = [line.means[benchmark] for line in board.lines]
        rows.append((f"**{benchmark}: mean of {len(tasks)}**", [f"**{c.value:.1f} ± {c.half:.1f}**" for c in cells]))
        for task in tasks:
            cells = [line.tasks[task] for line in board.lines]
            rows.append((task, [f"{c.value:.0f} [{c.low:.0f}, {c.high:.0f}]" for c in cells]))
    rows.append(("unparsed", [f"{line.unparsed:.1f}" for line in board.lines]))
    rows.append(("truncated", [f"{line.truncated:.1f}" for line in board.lines]))
    return rows


def as_csv(board: Board) -> str:
    """Return one record a row, benchmark and task (task empty: the mean), with interval bounds in percent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["row", "benchmark", "task", "accuracy", "low", "high", "items", "unparsed", "truncated", "command"]
    )
    for line in board.lines:
        for benchmark, tasks in board.benchmarks.items():
            for task, cell in [("", line.means[benchmark]), *[(task, line.tasks[task]) for task in tasks]]:
                numbers = [f"{x:.2f}" for x in (cell.value, cell.low, cell.high)]
                shares = [f"{line.unparsed:.2f}", f"{line.truncated:.2f}"]
                writer.writerow([line.name, benchmark, task, *numbers, cell.n, *shares, board.command])
    return out.getvalue()


def print_table(board: Board) -> None:
    """Print the table and the findings in the terminal."""
    from rich.table import Table

    table = Table(title=f"{board.title}: accuracy in %, 95 % intervals", title_justify="left")
    table.add_column("")
    for line in board.lines:
        table.add_column(line.name, justify="right")
    for label, cells in _table(board):
        bold = label.startswith("**")
        table.add_row(
            *[cell.strip("*").replace("[", r"\[") for cell in [label, *cells]], style="bold" if bold else None
        )
    console().print(table)
    for sentence in board.findings:
        say(f"  {sentence}")
