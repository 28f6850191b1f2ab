"""The GRPO stage on the tiny model, with verifiers of the tests' own."""

import json
from pathlib import Path

import pytest

from data_recipes.files import read_jsonl
from pipelines.rl.rollouts import FILE
from tests.conftest import SMALL_RECIPE, write_experiment
from tests.pipelines.sft_runs import run_here

SUMS = """
cleaning: {decontaminate: exact, protect: heldout}
tasks:
  chain_sum:
    kind: domain
    source: {type: reasoning_gym, dataset: chain_sum, seed: 1, config: {min_terms: 2, max_terms: 2, max_digits: 2}}
    prompt: "What is {{ metadata.expression }}? Answer with the number only."
    verifiers: [number]
    train_rows: 300
    heldout_rows: 200
"""
VOWELS = '''
"""The share of vowels in a completion: any text has a score, and most have their own."""


def read(completion, row):
    return completion


def score(answer, row):
    return sum(letter in "aeiou" for letter in answer) / max(len(answer), 1)
'''
MOODY = '''
"""As `vowels`, but judging a quarter of the texts hangs, raises or gives NaN, and an eighth cannot be read."""

import time
import zlib

from judges_of_ours.vowels import score as share


def read(completion, row):
    return None if zlib.crc32(completion.encode()) % 8 == 7 else completion


def score(answer, row):
    mood = zlib.crc32(answer.encode()) % 12
    if mood == 0:
        time.sleep(3600)
    if mood == 1:
        raise RuntimeError("not today")
    return float("nan") if mood == 2 else share(answer, row)
'''
TINY = {
    **{"dtype": "float32", "bf16": False, "use_vllm": False, "num_generations": 4, "max_completion_length": 12},
    **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 1},
    **{"lr_scheduler_type": "constant", "warmup_steps": 0},
}


@pytest.fixture(scope="module")
def mixed_with(tmp_path_factory, tiny_model):
    """A function (verifier, more of the recipe, keys of the grpo section) -> (file, run folder with its mixture).

    The model is the tiny one; the tasks are judged by ``judges_of_ours.vowels`` or ``judges_of_ours.moody``.
    """
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    own = tmp_path_factory.mktemp("own")
    (own / "judges_of_ours").mkdir()
    (own / "judges_of_ours" / "vowels.py").write_text(VOWELS)
    (own / "judges_of_ours" / "moody.py").write_text(MOODY)

    def write(verifier: str, more: str = "", **keys) -> tuple[Path, Path]:
        recipe = SMALL_RECIPE.replace("[number]", f"[judges_of_ours.{verifier}]").replace(
            "[sequence]", f"[judges_of_ours.{verifier}]"
        )
        section = f"grpo: {json.dumps({**TINY, **keys})}\n"  # which is YAML
        file = write_experiment(tmp_path_factory.mktemp("grpo"), section, recipe + more, tiny_model)
        experiment = load_experiment(file)
        mix(experiment)
        return file, experiment.run_dir

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(own))
        patch.setenv("PYTHONPATH", str(own))
        yield write


def train_here(file: Path, *overrides: str) -> None:
    """Run the GRPO stage in this process."""
    from pipelines.grpo import train

    run_here(train, file, *overrides)


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "grpo" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def rollouts(run: Path) -> list[dict]:
    return read_jsonl(run / "grpo" / FILE)
