"""`python -m launch.stage STAGE FILE`: one stage in a process of its own, so that its memory is given back."""

import sys
from typing import Any

from pipelines.alone import run_alone
from pipelines.experiment import STAGES, Experiment


def _run(stage: str, experiment: Experiment, **options: Any) -> None:
    if stage == "critique":
        from pipelines.critique.from_verifiers import make_critiques as run
    elif stage == "multicritique":
        from pipelines.critique.from_agents import make_critiques_of_agents as run
    elif stage == "mix":
        from pipelines.mix import mix as run
    elif stage == "eval":
        from pipelines.evaluate import run_eval as run
    elif stage == "sft":
        from pipelines.sft import train as run
    elif stage == "reward_model":
        from pipelines.reward_model import train as run
    else:
        from pipelines.grpo import train as run
    run(experiment, **options)


if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in STAGES else sys.exit(f"one of {', '.join(STAGES)}")
    run_alone(name, lambda experiment, **options: _run(name, experiment, **options))
