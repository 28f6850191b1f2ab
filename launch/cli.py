"""`whetstone ...`: the front door. Nothing heavy is imported until a command needs it."""

import argparse
import sys
from pathlib import Path

STAGE_COMMANDS = {
    "critique": "sample answers, label them, write critique rows",
    "mix": "build the mixture of the experiment's recipe",
    "sft": "multi-task supervised fine-tuning",
    "grpo": "reinforcement learning with the tasks' verifiers",
    "eval": "evaluate the baselines and the trained models",
    "leaderboard": "write the leaderboard: HTML, Markdown, CSV",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="whetstone",
        description="Fine-tune a language model on many tasks at once and teach it to critique answers.",
        epilog="Start with: whetstone run experiments/quickstart.yaml",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_experiment(name: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        command.add_argument("file", type=Path, help="the experiment file (YAML)")
        command.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a key of the file, such as sft.learning_rate=1e-4; may be repeated",
        )
        return command

    run = add_experiment("run", "run every stage of an experiment; finished ones are skipped")
    run.add_argument("--dry-run", action="store_true", help="print the resolved file and the plan, run nothing")
    for name, summary in STAGE_COMMANDS.items():
        add_experiment(name, summary)
    submit = add_experiment("submit", "run an experiment through Slurm")
    submit.add_argument("--dry-run", action="store_true", help="print the batch script, submit nothing")
    submit.add_argument("--nodes", type=int, help="Slurm nodes")
    submit.add_argument("--gpus-per-node", type=int, help="GPUs a node")
    submit.add_argument("--partition", help="Slurm partition")
    submit.add_argument("--time", help="time limit, hours:minutes:seconds")
    commands.add_parser("doctor", help="what is installed, what is missing, what to type")
    schema = commands.add_parser("schema", help="print the experiment file's JSON Schema, for editors")
    schema.add_argument("--markdown", action="store_true", help="print the reference page instead")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        _dispatch(arguments)
    except KeyboardInterrupt:
        print("\nwhetstone: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _dispatch(arguments: argparse.Namespace) -> None:
    from pipelines.alone import guarded

    if arguments.command == "doctor":
        from launch.doctor import examine

        guarded(examine)
    elif arguments.command == "schema":
        from launch.schema import print_schema

        guarded(lambda: print_schema(arguments.markdown))
    elif arguments.command == "submit":
        from launch.submit import submit

        guarded(lambda: submit(arguments))
    elif arguments.command == "run" and arguments.dry_run:
        from launch.plan import print_plan

        guarded(lambda: print_plan(arguments.file, arguments.overrides))
    else:
        from launch.run import run_experiment

        only = None if arguments.command == "run" else [arguments.command]
        guarded(lambda: run_experiment(arguments.file, arguments.overrides, only))


if __name__ == "__main__":
    main()
