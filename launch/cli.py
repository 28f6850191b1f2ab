"""`whetstone ...`: the front door. Nothing heavy is imported until a command needs it."""

import argparse
import sys
from pathlib import Path

from launch import evaluation, power, routing, snr

STAGE_COMMANDS = {
    "critique": "sample answers, label them, write critique rows",
    "multicritique": "have several agents criticise responses and each other's critiques",
    "mix": "build the mixture of the experiment's recipe",
    "sft": "multi-task supervised fine-tuning",
    "reward_model": "learn to score answers from preference rows",
    "grpo": "reinforcement learning with the tasks' verifiers",
    "eval": "evaluate the baselines and the trained models",
}

MIX_COMMANDS = ("mix build", "mix show", "mix diff", "mix sample", "mix card")


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
    add_experiment("plan", "parameters, memory, tokens and steps of the sft stage, before anything starts")
    for name, summary in STAGE_COMMANDS.items():
        command = add_experiment(name, summary)
        if name == "eval":
            command.add_argument("--shard", metavar="K/N", help="ask only this part of the items, such as 3/8")
    evaluation.add_commands(commands)
    snr.add_snr_commands(commands)
    power.add_power_command(commands)
    routing.add_route_commands(commands)
    _add_mix_commands(commands)
    submit = add_experiment("submit", "run an experiment through Slurm, a job a stage")
    submit.add_argument("--dry-run", action="store_true", help="print the batch scripts, submit nothing")
    submit.add_argument("--nodes", type=int, help="nodes of a training stage")
    submit.add_argument("--gpus-per-node", type=int, help="GPUs a node, a process each")
    submit.add_argument("--partition", help="Slurm partition")
    submit.add_argument("--time", help="time limit of a job, hours:minutes:seconds")
    submit.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="run every value, each in a run folder of its own; repeated: every combination",
    )
    submit.add_argument("--eval-shards", type=int, metavar="N", help="ask the benchmarks in N parts at the same time")
    jobs = commands.add_parser("jobs", help="what became of the jobs that were submitted")
    jobs.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="a run folder (default: those at or below this folder)"
    )
    commands.add_parser("doctor", help="what is installed, what is missing, what to type")
    schema = commands.add_parser("schema", help="print the experiment file's JSON Schema, for editors")
    schema.add_argument("--markdown", action="store_true", help="print the reference page instead")
    return parser


def _add_mix_commands(commands: argparse._SubParsersAction) -> None:
    build = commands.add_parser("mix build", help="build a recipe's mixture without an experiment")
    build.add_argument("recipe", help="a shipped recipe's name or a path")
    build.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the mixture folder")
    build.add_argument("--seed", type=int, default=0, help="of the order in which training reads the rows (default 0)")
    build.add_argument("--workers", type=int, help="processes (default: as many as there are cores)")
    build.add_argument("--slurm", metavar="PARTITION", help="prepare the rows in a Slurm array on this partition")
    build.add_argument("--tasks", type=int, default=16, help="jobs of that array (default 16)")
    build.add_argument("--time", default="04:00:00", help="time limit of each job (default 04:00:00)")
    show = commands.add_parser("mix show", help="show a mixture: tasks, shares, epochs, lengths, what was removed")
    show.add_argument("folder", type=Path, help="a mixture folder, such as runs/mine/mixture")
    diff = commands.add_parser("mix diff", help="explain how two mixtures differ")
    diff.add_argument("before", type=Path)
    diff.add_argument("after", type=Path)
    sample = commands.add_parser("mix sample", help="print rows as the model will see them, untrained tokens dimmed")
    sample.add_argument("folder", type=Path, help="a mixture folder")
    sample.add_argument("--task", help="only rows of this task")
    sample.add_argument("-n", type=int, default=3, help="how many (default 3)")
    sample.add_argument("--start", type=int, default=0, help="position of training to begin at (default 0)")
    card = commands.add_parser("mix card", help="print a mixture's data card (Markdown)")
    card.add_argument("folder", type=Path, help="a mixture folder")
    for command in (build, sample):
        command.add_argument("--model", default="smollm2-135m-instruct", help="whose tokenizer the rows are for")


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if " ".join(words[:2]) in (*MIX_COMMANDS, *snr.SNR_COMMANDS, *routing.ROUTE_COMMANDS):
        words[:2] = [" ".join(words[:2])]
    elif words[:1] == ["mix"] and words[1:2] and words[1].isalpha() and not Path(words[1]).exists():
        from data_recipes.errors import nearest

        guess = nearest(f"mix {words[1]}", MIX_COMMANDS)
        print(f"whetstone: {words[1]}: neither a file nor a command of mix{guess}", file=sys.stderr)
        raise SystemExit(2)
    elif words[:1] == ["route"]:
        print(f"whetstone: route: give one of its commands: {', '.join(routing.ROUTE_COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    arguments = _parser().parse_args(words)
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
    elif arguments.command == "jobs":
        from launch.jobs import show_jobs

        guarded(lambda: show_jobs(arguments.run))
    elif arguments.command in MIX_COMMANDS:
        guarded(lambda: _mix(arguments))
    elif arguments.command == "snr" or arguments.command in snr.SNR_COMMANDS:
        guarded(lambda: snr.run_snr(arguments))
    elif arguments.command in routing.ROUTE_COMMANDS:
        guarded(lambda: routing.run_route(arguments))
    elif arguments.command == "power":
        guarded(lambda: power.run_power(arguments))
    elif arguments.command in evaluation.COMMANDS:
        guarded(lambda: evaluation.run(arguments))
    elif arguments.command == "plan":
        from launch.plan import print_memory_plan

        guarded(lambda: print_memory_plan(arguments.file, arguments.overrides))
    elif arguments.command == "run" and arguments.dry_run:
        from launch.dry_run import print_plan

        guarded(lambda: print_plan(arguments.file, arguments.overrides))
    else:
        from launch.run import run_experiment

        only = None if arguments.command == "run" else [arguments.command]
        shard = getattr(arguments, "shard", None)
        guarded(lambda: run_experiment(arguments.file, arguments.overrides, only, shard))


def _mix(arguments: argparse.Namespace) -> None:
    from pipelines import mix

    if arguments.command == "mix show":
        mix.show(arguments.folder)
    elif arguments.command == "mix card":
        from pipelines.cards import print_card

        print_card(arguments.folder)
    elif arguments.command == "mix diff":
        mix.diff(arguments.before, arguments.after)
    elif arguments.command == "mix sample":
        mix.sample(arguments.folder, arguments.model, arguments.task, arguments.n, arguments.start)
    else:
        slurm = {"partition": arguments.slurm, "tasks": arguments.tasks, "time": arguments.time}
        given = (arguments.recipe, arguments.output, arguments.model, arguments.seed, arguments.workers)
        mix.build_recipe(*given, slurm=slurm if arguments.slurm else None)


if __name__ == "__main__":
    main()
