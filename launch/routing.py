"""`whetstone route ...`: which preference pairs people should label, their labels back, and whether it would help."""

import argparse
from pathlib import Path

ROUTE_COMMANDS = ("route choose", "route import", "route simulate")
PAIRS = "pairs, a JSON object a line: id, prompt, a, b, ai (a or b), human (a, b, tie or null)"


def add_route_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands, of two words each, to the command line."""
    summary = "choose the preference pairs whose human label would gain most, for Label Studio"
    choose = _command(commands, "route choose", summary)
    choose.add_argument("--budget", type=int, required=True, metavar="N", help="how many pairs people will label")
    choose.add_argument(
        "--model", choices=("linear", "quadratic"), default="linear", help="how a gain is predicted (default linear)"
    )
    choose.add_argument("--random", action="store_true", help="draw them: the first labels, to learn the gain from")
    choose.add_argument("--seed", type=int, default=0, help="of the mixtures tried, or of the draw (default 0)")
    summary = "put the labels of Label Studio's JSON exports to their pairs, and write preferences for a recipe"
    importer = _command(commands, "route import", summary)
    importer.add_argument("exports", type=Path, nargs="+", metavar="EXPORT", help="Label Studio's JSON exports")
    summary = "on pairs that people have labelled: routed against random, with paired intervals"
    simulate = _command(commands, "route simulate", summary)
    simulate.add_argument("--seeds", type=int, default=30, help="splits of the pairs (default 30)")
    simulate.add_argument(
        "--budgets", type=float, nargs="+", metavar="SHARE", help="of the pool, labelled (default 0.1 0.25 0.5 0.75)"
    )


def _command(commands: argparse._SubParsersAction, name: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument("file", type=Path, help=PAIRS)
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    return command


def run_route(arguments: argparse.Namespace) -> None:
    """Carry out one of the commands."""
    if arguments.command == "route choose":
        from pipelines.routing.choose import choose

        how = {"form": arguments.model, "at_random": arguments.random, "seed": arguments.seed}
        choose(arguments.file, arguments.budget, arguments.output, **how)
    elif arguments.command == "route import":
        from pipelines.routing.choose import import_labels

        import_labels(arguments.file, arguments.exports, arguments.output)
    else:
        from pipelines.routing.simulate import BUDGETS, simulate

        budgets = arguments.budgets or BUDGETS
        simulate(arguments.file, arguments.output, seeds=arguments.seeds, budgets=budgets)
