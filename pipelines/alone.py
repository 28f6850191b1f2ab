"""`python -m pipelines.STAGE FILE [--set key=value]`: a stage by itself, under accelerate launch too."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from data_recipes.errors import UserError
from eval.harness import Shard
from eval.processes import die_with_parent
from pipelines.experiment import load_experiment
from pipelines.record import LOCK_HELD, locked, stage_record

PREEMPTED = 75
"""Exit code of a stage that SIGTERM made save and leave (EX_TEMPFAIL of sysexits.h): the same command goes on."""


class Preempted(Exception):
    """SIGTERM came, and a checkpoint was saved."""


def run_alone(stage: str, run: Callable[..., None]) -> None:
    """Parse the command line and run the stage, recording that it finished; a stage already finished is skipped."""
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{stage}", description=f"Run the {stage} stage of an experiment file."
    )
    parser.add_argument("file", type=Path, help="the experiment file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a key"
    )
    if stage == "eval":
        parser.add_argument("--shard", type=Shard.parsed, help="ask only this part of the items, such as 3/8")
    arguments = parser.parse_args()

    def run_recorded() -> None:
        experiment = load_experiment(arguments.file, arguments.overrides)
        shard = getattr(arguments, "shard", None)
        if "LOCAL_RANK" in os.environ:
            die_with_parent()  # a worker of a launcher that was killed would go on writing
        first = int(os.environ.get("RANK", "0")) == 0
        lock = locked(experiment.run_dir, shard) if first and LOCK_HELD not in os.environ else nullcontext()
        if shard:  # a part of the stage, so nothing to record
            with lock:
                run(experiment, shard=shard)
            return
        with lock, stage_record(experiment, stage) as finished:
            if not finished:
                run(experiment)

    guarded(run_recorded)


DISK_FULL = "the disk is full; free some space and run the same command again: finished work is kept"
MENDS = {
    errno.ENOSPC: DISK_FULL,
    errno.EFBIG: "files may not grow so large here; raise ulimit -f and run the same command again: work is kept",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again: finished work is kept",
    errno.EACCES: "permission denied; choose a place you may write to",
    errno.EROFS: "the file system is read-only; choose another output_dir",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another output_dir",
    errno.EADDRINUSE: "the port is in use; stop what uses it or choose another one",
}


def guarded(action: Callable[[], None]) -> None:
    """Run `action`; a `UserError` or an operating system's refusal ends in one sentence and exit code 2."""
    try:
        action()
    except UserError as error:
        sentence = str(error)
    except Preempted as error:
        print(f"whetstone: {error}", file=sys.stderr)
        raise SystemExit(PREEMPTED) from None
    except OSError as error:
        if error.errno in MENDS:
            sentence = f"{error.filename or 'output'}: {MENDS[error.errno]}"
        elif error.errno is None and ("huggingface.co" in str(error) or "local folder" in str(error)):
            first = " ".join(str(error).split())[:160]
            sentence = f"the model or data set cannot be had from the hub ({first}); check its name and the network"
        else:
            raise
    except Exception as error:
        # safetensors and torch.save wrap the system's refusal in errors of their own
        if "No space left" not in str(error) and "PytorchStreamWriter failed" not in str(error):
            raise
        sentence = DISK_FULL
    else:
        return
    print(f"whetstone: {sentence}", file=sys.stderr)
    raise SystemExit(2)
