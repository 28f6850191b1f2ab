"""`whetstone snr ...`: which benchmarks can tell models apart, and what makes them better at it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.score_table import ScoreTable
    from eval.snr_report import Choice, Report

SNR_COMMANDS = ("snr compare", "snr subset", "snr average", "snr ladder")
"""Commands of two words; ``snr`` followed by anything else reads a table."""


def add_snr_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``snr`` and its two-word commands to the command line."""
    summary = "signal, noise and decision accuracy of every task in a table of scores or in run folders"
    _add_choice(commands.add_parser("snr", help=summary, description=summary.capitalize() + "."))
    summary = "compare metrics, such as accuracy and bits per byte, by their signal-to-noise ratio"
    compare = _add_choice(commands.add_parser("snr compare", help=summary, description=summary.capitalize() + "."))
    compare.add_argument(
        "--metrics",
        nargs="+",
        default=["accuracy", "bits_per_byte"],
        help="two or more; each has to foretell the first one's last ranking (default accuracy bits_per_byte)",
    )
    summary = "sort subtasks by signal-to-noise ratio and find the best set of them"
    _add_choice(commands.add_parser("snr subset", help=summary, description=summary.capitalize() + "."))
    summary = "average the last checkpoints: what it does to noise and decision accuracy"
    average = _add_choice(commands.add_parser("snr average", help=summary, description=summary.capitalize() + "."))
    average.add_argument(
        "-k", type=int, nargs="+", default=[1, 2, 4, 8], help="how many to average; the first is compared with"
    )
    summary = "predict large models' scores from small models' curves, and check the fits"
    ladder = commands.add_parser("snr ladder", help=summary, description=summary.capitalize() + ".")
    _add_source(ladder)
    ladder.add_argument("--target", nargs="+", default=[], help="models to predict (default: the configuration's)")
    ladder.add_argument("--metric", help="the accuracy (default: accuracy)", default="accuracy")
    ladder.add_argument("--loss-metric", help="the loss (default: bits_per_byte)", default="bits_per_byte")
    ladder.add_argument("--moving-avg", type=int, default=5, help="checkpoints that are averaged (default 5)")
    ladder.add_argument(
        "--skip-perc", type=float, default=0.1, help="share of a run's first checkpoints left out (default 0.1)"
    )


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        type=Path,
        nargs="+",
        help="tables (CSV, JSON, JSON Lines, Parquet) with columns model, step, task, metric, score; or run folders",
    )
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="the source is a folder of ladder runs, described by this JSON file"
    )
    command.add_argument("--tasks", nargs="+", default=[], help="only these tasks; * and ? stand for any letters")
    command.add_argument("--models", nargs="+", default=[], help="only these models, likewise")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="write snr.csv, snr.md and snr.json there")


def _add_choice(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _add_source(command)
    command.add_argument("--metric", help="the metric (default: the only one, or accuracy)")
    command.add_argument(
        "--last",
        type=int,
        help="checkpoints at a run's end whose spread is noise (default: 30, but none of the run's first half)",
    )
    command.add_argument(
        "--averaged", type=int, help="checkpoints at a run's end whose mean is its score (default: as many as --last)"
    )
    command.add_argument(
        "--signal", default="dispersion", help="how spread is measured (default dispersion: range / mean)"
    )
    command.add_argument(
        "--ddof", type=int, choices=(0, 1), default=0, help="noise divides by n - ddof (default 0, as published)"
    )
    command.add_argument("--noise-from", nargs="+", default=[], metavar="MODEL", help="only these runs' noise counts")
    command.add_argument(
        "--early",
        type=float,
        default=0.5,
        help="the step of the early ranking, or below 1 a share of each run (default 0.5)",
    )
    command.add_argument("--small", metavar="SIZE", help="rank the models of this size instead of early checkpoints")
    command.add_argument("--target", metavar="SIZE", help="and compare with this size, paired by the column recipe")
    command.add_argument("--lower", nargs="+", default=[], metavar="METRIC", help="metrics of which less is better")
    command.add_argument(
        "--compat", action="store_true", help="show the pooled ratio too, and use the published tie rule"
    )
    return command


def run_snr(arguments: argparse.Namespace) -> None:
    """Run one of the snr commands: print its table and findings, write them where --output says.

    Raises:
        UserError: the source cannot be read, a name is unknown, or the scores say nothing.
    """
    from eval.snr_report import print_report, write_report

    report = _report(arguments)
    print_report(report)
    if arguments.output:
        settings = {name: value for name, value in vars(arguments).items() if name != "output"}
        write_report(report, arguments.output, settings)


def _report(arguments: argparse.Namespace) -> "Report":
    from eval import interventions
    from eval.snr_report import snr_report

    table, targets = _read(arguments)
    if arguments.command == "snr ladder":
        return _ladder(table, targets, arguments)
    if arguments.command == "snr compare":
        metrics = [table.metric(metric) for metric in dict.fromkeys(arguments.metrics)]
        return interventions.compare_report(table, _choice(table, arguments, metrics[0]), metrics)
    choice = _choice(table, arguments, table.metric(arguments.metric))
    if arguments.command == "snr subset":
        return interventions.subset_report(table, choice)
    if arguments.command == "snr average":
        return interventions.average_report(table, choice, _counts(arguments.k))
    return snr_report(table, choice)


def _read(arguments: argparse.Namespace) -> tuple["ScoreTable", list[str]]:
    from data_recipes.errors import UserError, nearest
    from eval.score_table import read_ladder, read_scores

    for source in arguments.source:
        if not source.exists() and not any(sign in str(source) for sign in "*?["):
            guess = nearest(f"snr {source}", SNR_COMMANDS) if str(source).isalpha() else ""
            what = "neither a file nor a command of snr" if guess else "no such file or folder; mend the path"
            raise UserError(f"{source}: {what}{guess}")
    if arguments.config is None:
        return read_scores(arguments.source), []
    if len(arguments.source) > 1 or not arguments.source[0].is_dir():
        raise UserError(f"{arguments.source[-1]}: --config describes one folder of runs; give that folder alone")
    return read_ladder(arguments.source[0], arguments.config)


def _choice(table: "ScoreTable", arguments: argparse.Namespace, metric: str) -> "Choice":
    from data_recipes.errors import UserError, nearest
    from eval.signal_noise import SIGNALS
    from eval.snr_report import Choice

    if arguments.signal not in SIGNALS:
        raise UserError(f"--signal: no signal {arguments.signal!r}{nearest(arguments.signal, SIGNALS)}")
    if arguments.last is not None and arguments.last < 2:
        raise UserError(f"--last: {arguments.last} checkpoint has no spread; give 2 or more")
    if arguments.averaged is not None and arguments.averaged < 1:
        raise UserError(f"--averaged: {arguments.averaged} checkpoints have no mean; give 1 or more")
    if not arguments.early > 0:
        raise UserError(f"--early: {arguments.early:g} is before the first step; give a step, or a share such as 0.5")
    for lower in arguments.lower:
        table.metric(lower)
    of_metric = [task for task in table.tasks if (task, metric) in table.scores]
    return Choice(
        metric=metric,
        tasks=table.matching("task", arguments.tasks, of_metric),
        models=table.matching("model", arguments.models, table.models),
        last=arguments.last,
        averaged=arguments.averaged,
        signal=arguments.signal,
        ddof=arguments.ddof,
        noise_from=tuple(table.matching("model", arguments.noise_from, table.models) if arguments.noise_from else ()),
        early=arguments.early,
        small=arguments.small,
        target=arguments.target,
        lower=tuple(arguments.lower),
        compat=arguments.compat,
    )


def _counts(given: list[int]) -> list[int]:
    from data_recipes.errors import UserError

    counts = list(dict.fromkeys(given))
    if len(counts) < 2 or min(counts) < 1:
        raise UserError(f"-k: {' '.join(map(str, given))} is nothing to compare; give two counts, 1 or more each")
    return counts


def _ladder(table: "ScoreTable", held_back: list[str], arguments: argparse.Namespace) -> "Report":
    from data_recipes.errors import UserError
    from eval.scaling_laws import predict_task
    from eval.snr_report import ladder_report

    if arguments.moving_avg < 1 or not 0 <= arguments.skip_perc < 1:
        raise UserError("--moving-avg, --skip-perc: give at least 1, and a share from 0 up to but not including 1")
    targets = table.matching("model", arguments.target, table.models) if arguments.target else held_back
    if not targets:
        raise UserError(f"{table.where}: no model to predict is named; give one with --target")
    metrics = {table.metric(arguments.loss_metric), table.metric(arguments.metric)}
    both = [task for task in table.tasks if all((task, metric) in table.scores for metric in metrics)]
    if not both:
        raise UserError(f"{table.where}: no task has both {' and '.join(sorted(metrics))}; add the other")
    models = table.matching("model", arguments.models, table.models)
    train = [model for model in models if model not in {*targets, *held_back}]
    results = []
    for task in table.matching("task", arguments.tasks, both):
        results += predict_task(
            table,
            task,
            targets,
            train=train,
            loss_metric=arguments.loss_metric,
            accuracy_metric=arguments.metric,
            averaged=arguments.moving_avg,
            skipped=arguments.skip_perc,
        )
    return ladder_report(results)
