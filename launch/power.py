"""`whetstone power`: how many items tell two rows apart, for a plan or for the columns of a run."""

import argparse
from pathlib import Path

EPILOG = """examples:
  whetstone power --items 500 --accuracy 0.6                      what 500 items can show
  whetstone power --accuracy 0.6 --difference 0.03                items that a difference of 3 points takes
  whetstone power --items 500 --accuracy 0.6 --discordant 0.2     where the rows differ on a fifth of the items
  whetstone power runs/mine --difference 0.03                     what each benchmark of a run can show"""


def add_power_command(commands: argparse._SubParsersAction) -> None:
    """Add the command to the front door's."""
    command = commands.add_parser(
        "power",
        help="the smallest difference a benchmark can show, or the items it takes",
        description="The smallest difference of two rows that a number of items can show, or the items it takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders whose columns are examined")
    command.add_argument("--items", type=int, help="how many items")
    command.add_argument("--accuracy", type=float, help="share of right answers of the weaker row, such as 0.6")
    command.add_argument("--difference", type=float, help="the difference wanted, such as 0.03 for three points")
    command.add_argument("--discordant", type=float, help="share of items on which exactly one of the two is right")
    command.add_argument("--correlation", type=float, help="of the two rows' scores (default 0.5)")
    command.add_argument("--design-effect", type=float, help="variance with clusters over that without (default 1)")
    command.add_argument("--rows", type=int, help="rows on the board; the level is divided by their pairs (default 2)")
    command.add_argument("--power", type=float, default=0.8, help="chance of seeing the difference (default 0.8)")
    command.add_argument("--level", type=float, default=0.05, help="two-sided level of the test (default 0.05)")


def run_power(arguments: argparse.Namespace) -> None:
    """Print what the plan, or each column of the runs, can show.

    Raises:
        UserError: a number is missing or out of its range, or a run cannot be read.
    """
    from data_recipes.errors import UserError

    plan_only = ("items", "accuracy", "discordant", "correlation", "design_effect", "rows")
    given = {name: getattr(arguments, name) for name in plan_only if getattr(arguments, name) is not None}
    if arguments.runs and given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise UserError(f"power: {flag} is for a plan, and a run has its own; leave out the one or the other")
    if arguments.runs:
        _of_runs(arguments)
        return
    given.pop("items", None)
    if arguments.accuracy is None or (arguments.items is None and arguments.difference is None):
        raise UserError("power: give --accuracy and --items or --difference, or a run folder; --help has examples")
    _of_plan(arguments, given)


def _of_plan(arguments: argparse.Namespace, given: dict[str, float]) -> None:
    from data_recipes.progress import say
    from eval.power import Plan

    plan = Plan(**given, level=arguments.level, power=arguments.power)
    items, wanted = arguments.items, arguments.difference
    smallest = None if items is None else plan.smallest_difference(items)
    shown = smallest if wanted is None else wanted
    if shown is not None:
        differ = plan.discordance(shown)
        how = "given" if plan.discordant is not None else f"at a correlation of {plan.correlation:g}"
        needed = plan.items_needed(shown)
        say(f"{100 * plan.accuracy:.1f} % and {100 * (plan.accuracy + shown):.1f} % right, {100 * differ:.1f} % in one")
        say(f"row only ({how}); level {plan.level:g} two-sided{_among(plan.rows)}, power {plan.power:g}")
    if items is not None and smallest is None:
        say(f"{items:,} items: too few to show any difference")
    elif items is not None:
        say(f"{items:,} items: the smallest difference that shows is {100 * smallest:.2f} points")
    if wanted is not None:
        say(f"{100 * wanted:g} points: take {needed:,} items")
    if wanted is not None and items is not None:
        say(f"{100 * wanted:g} points on {items:,} items: show with a power of {plan.chance(items, wanted):.2f}")


def _among(rows: int) -> str:
    return f" among the {rows * (rows - 1) // 2} pairs of {rows} rows" if rows > 2 else ""


def _of_runs(arguments: argparse.Namespace) -> None:
    from math import ceil

    from rich.table import Table
    from rich.text import Text

    from data_recipes.progress import console, say
    from eval.leaderboard.board import columns_of
    from eval.leaderboard.reading import read_runs
    from eval.power import CORRELATION, check_shares, detectable

    check_shares(level=arguments.level, power=arguments.power, difference=arguments.difference)
    columns = columns_of(read_runs(arguments.runs))
    how = {"level": arguments.level, "power": arguments.power}
    table = Table(title="smallest differences in points", title_justify="left")
    heads = ["items", "clusters", "design effect", "discordant, %", "two rows", "all pairs"]
    heads += [f"items for {100 * arguments.difference:g}"] if arguments.difference else []
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    for label, column in columns.items():
        ability = column.ability
        error = ability.standard_error
        cells = [f"{ability.items:,}", f"{ability.clusters:,}", f"{ability.design_effect:.2f}"]
        cells.append("–" if ability.discordant is None else f"{100 * ability.discordant:.1f}")
        for pairs in (1, max(1, ability.pairs)):
            cells.append(f"{100 * detectable(error, pairs=pairs, **how):.1f}" if error else "–")
        if arguments.difference:
            needed = ability.items * (detectable(error, **how) / arguments.difference) ** 2 if error else None
            cells.append("–" if needed is None else f"{ceil(needed):,}")
        table.add_row(Text(label), *cells)
    console().print(table)
    say(
        f"  level {arguments.level:g} two-sided, power {arguments.power:g}; median standard error of paired differences"
    )
    if any(column.ability.assumed for column in columns.values()):
        say(f"  one row alone: another as good is assumed, whose scores correlate with its own at {CORRELATION:g}")
