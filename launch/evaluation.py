"""`whetstone score`, `inspect`, `import` and `leaderboard`: what is done with an evaluation once it has been run."""

import argparse
from pathlib import Path

COMMANDS = ("score", "inspect", "import", "leaderboard")
POLICIES = ("expected", "wrong", "guess", "guess-10")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the front door's."""
    score = commands.add_parser("score", help="score a saved run again, without a model")
    score.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    score.add_argument("--extraction", help="how answers are read, such as L1 or L2-last; '' for the verifier's own")
    score.add_argument("--on-failure", choices=POLICIES, help="what an answer that cannot be read counts for")
    score.add_argument("--strip-reasoning", action="store_true", default=None, help="leave out <think> ... </think>")
    score.add_argument("--benchmark", help="only this one (its name in the run)")
    inspect = commands.add_parser("inspect", help="page through prompts, completions, answers and verdicts")
    inspect.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    inspect.add_argument("--row", help="only this row of the leaderboard, such as SFT")
    inspect.add_argument("--benchmark", help="only this benchmark")
    inspect.add_argument("--task", help="only this task")
    for verdict in ("right", "wrong", "unparsed", "truncated"):
        inspect.add_argument(f"--{verdict}", action="store_true", help=f"only {verdict} answers (these add up)")
    inspect.add_argument("-n", type=int, help="how many (default: all on a terminal, else 10)")
    inspect.add_argument("--start", type=int, default=0, help="how many to pass over (default 0)")
    importer = commands.add_parser("import", help="make a run folder of somebody else's output files")
    importer.add_argument("format", choices=("lm-eval", "mmlu-pro"), help="who wrote them")
    importer.add_argument("files", type=Path, nargs="+", metavar="FILE", help="samples or output files, one a model")
    importer.add_argument("--output", type=Path, required=True, metavar="RUN", help="the run folder to write")
    importer.add_argument("--name", action="append", default=[], help="a row's name (default: the file's); repeat")
    board = commands.add_parser("leaderboard", help="write the leaderboard: HTML, Markdown, CSV")
    board.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="an experiment file, or run folders")
    board.add_argument("--output", type=Path, metavar="FOLDER", help="where it goes (default: RUN/leaderboard)")


def run(arguments: argparse.Namespace) -> None:
    """Carry out one of the commands."""
    if arguments.command == "score":
        from eval.rescoring import rescore

        wanted = {
            "extraction": arguments.extraction,
            "on_failure": arguments.on_failure,
            "strip_reasoning": arguments.strip_reasoning,
        }
        rescore(arguments.run, {k: v for k, v in wanted.items() if v is not None}, arguments.benchmark)
    elif arguments.command == "inspect":
        from eval.inspection import Wanted, inspect

        verdicts = tuple(v for v in ("right", "wrong", "unparsed", "truncated") if getattr(arguments, v))
        wanted = Wanted(arguments.row, arguments.benchmark, arguments.task, verdicts)
        inspect(arguments.run, wanted, arguments.n, arguments.start)
    elif arguments.command == "import":
        from eval.imported_run import import_files

        import_files(arguments.format, arguments.files, arguments.output, arguments.name)
    else:
        _leaderboard(arguments.paths, arguments.output)


def _leaderboard(paths: list[Path], output: Path | None) -> None:
    from data_recipes.errors import UserError
    from eval.leaderboard.build import build_leaderboard

    files = [path for path in paths if path.suffix in (".yaml", ".yml")]
    folders = [path for path in paths if path not in files]
    if files:
        from pipelines.experiment import load_experiment

        for path in files:
            experiment = load_experiment(path, check_trl=False)
            if experiment.eval is None:
                raise UserError(f"{path}: has no eval section; add it to the file")
            folders.append(experiment.run_dir)
    if len(folders) > 1 and output is None:
        raise UserError("leaderboard: several runs make one page; say where it goes with --output FOLDER")
    build_leaderboard(folders, output)
