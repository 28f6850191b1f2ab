"""`python -m pipelines.generation_worker FOLDER`: weights of a training run answer benchmarks, in a process of its own.

`pipelines.generation` starts it with the trained weights in FOLDER beside a `job.json`. The engine's memory is given
back when it ends, and nothing it draws at random or sets in the environment reaches the training.
"""

import os
import sys
from pathlib import Path
from typing import Any

from data_recipes.files import read_json
from eval.engines import Engine, EngineSettings, open_engine
from eval.harness import Contestant, Helpers, evaluate, open_benchmark
from eval.processes import die_with_parent
from pipelines.alone import guarded

JOB, ADAPTER, WEIGHTS, TOKENIZER = "job.json", "adapter", "weights.safetensors", "tokenizer"
"""What is in FOLDER; an adapter, or whole weights where there is none."""


def answer(folder: Path) -> None:
    """Generate what is missing of the job in `folder` and score it.

    Raises:
        UserError: the engine refuses the settings or a prompt.
    """
    job = read_json(folder / JOB)
    settings = EngineSettings.model_validate(job["engine"])
    contestant = Contestant(job["row"], job["model"])
    benchmarks = [open_benchmark(one, Path(job["mixture"]), "sft.generate_benchmarks") for one in job["benchmarks"]]
    running: list[Engine] = []

    def engine_for(_: Contestant) -> Engine:
        if not running:
            running.append(open_engine(settings, str(_whole_model(folder, job))))
        return running[0]

    provenance = {"engine": settings.model_dump(exclude_defaults=True)}
    evaluate(
        [contestant], benchmarks, Path(job["answers"]), Helpers(engine_for), seed=job["seed"], provenance=provenance
    )


def _whole_model(folder: Path, job: dict[str, Any]) -> Path:
    """Write the weights as any engine loads them, and return where."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from pipelines.training import merged_model

    adapter = folder / ADAPTER
    trained = adapter if adapter.exists() else load_file(folder / WEIGHTS)
    merged_model(job["base"], job["dtype"], trained).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / TOKENIZER).save_pretrained(folder / "model")
    return folder / "model"


if __name__ == "__main__":
    die_with_parent()
    given = Path(sys.argv[1])
    if os.getppid() == read_json(given / JOB)["parent"]:  # else it died before this one could ask to die with it
        guarded(lambda: answer(given))
