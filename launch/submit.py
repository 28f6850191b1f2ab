"""`whetstone submit FILE`: renders a batch script one can read, and hands it to Slurm."""

import argparse
import shlex
import shutil
import subprocess
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_recipes.errors import UserError
from data_recipes.files import write_atomically
from data_recipes.progress import say
from pipelines.experiment import load_experiment


def submit(arguments: argparse.Namespace) -> None:
    """Print (``--dry-run``) or submit the batch script of an experiment.

    Raises:
        UserError: the file is wrong, or Slurm is not installed or refuses the job.
    """
    given = {name: getattr(arguments, name) for name in ("nodes", "gpus_per_node", "partition", "time")}
    overrides = arguments.overrides + [f"launch.{name}={value!r}" for name, value in given.items() if value is not None]
    script = render(arguments.file, overrides)
    if arguments.dry_run:
        say(script)
        return
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not on this machine's PATH; submit from a Slurm login node, or look with --dry-run")
    path = load_experiment(arguments.file, overrides, check_trl=False).run_dir / "job.sbatch"
    (path.parent / "logs").mkdir(parents=True, exist_ok=True)  # Slurm drops the output of a job whose folder is missing
    write_atomically(path, script)
    result = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    if result.returncode != 0:
        raise UserError(f"{path}: Slurm refuses the job: {result.stderr.strip()}")
    say(result.stdout.strip())


def render(file: Path, overrides: list[str]) -> str:
    """Return the batch script of the experiment at `file`."""
    experiment = load_experiment(file, overrides)
    # the job starts in the project's folder: what is relative to this one is made absolute
    overrides = [*overrides, f"output_dir={experiment.run_dir}"]
    if Path(experiment.model).is_dir():
        overrides.append(f"model={Path(experiment.model).resolve()}")
    templates = Environment(  # noqa: S701 - a shell script, quoted by the shell filter
        loader=FileSystemLoader(Path(__file__).parent / "slurm"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["shell"] = shlex.quote
    return templates.get_template("job.sbatch.j2").render(
        experiment=experiment,
        launch=experiment.launch,
        file=file.resolve(),
        overrides=overrides,
        project=Path(__file__).resolve().parent.parent,
    )
