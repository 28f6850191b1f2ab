"""The reward_model stage on the tiny model, over two tasks of preferences that can be learnt."""

import json
from pathlib import Path

import pytest

from tests.conftest import write_experiment
from tests.pipelines.sft_runs import run_here

SOURCE = '''
"""Pairs: the longer of two lists of words is chosen, or the answer that names the colour asked for."""

import random

WORDS = "river stone cloud candle window garden silver button".split()
COLOURS = "red blue green yellow".split()


def longer(size, seed):
    chance = random.Random(seed)
    for key in range(size):
        lengths = chance.randint(8, 11), chance.randint(1, 4)
        one, two = (" ".join(chance.choices(WORDS, k=length)) for length in lengths)
        yield {"key": key, "prompt": f"List some words, number {key}.", "chosen": one, "rejected": two}


def colours(size, seed):
    chance = random.Random(seed)
    for key in range(size):
        asked = chance.choice(COLOURS)
        other = chance.choice([colour for colour in COLOURS if colour != asked])
        prompt = f"Paint the {chance.choice(WORDS)} {key} {asked}."
        yield {"key": key, "prompt": prompt, "chosen": f"It is {asked}, yes", "rejected": f"It is {other}, no"}
'''
RECIPE = """
cleaning: {decontaminate: exact, protect: heldout}
tasks:
  chain_sum:
    kind: domain
    source: {type: reasoning_gym, dataset: chain_sum, seed: 1, config: {min_terms: 2, max_terms: 2, max_digits: 1}}
    prompt: "What is {{ metadata.expression }}? Answer with the number only."
    verifiers: [number]
    train_rows: 20
    heldout_rows: 4
  longer:
    kind: instruction
    source: {type: python, function: "pairs_of_ours.source:longer", arguments: {size: 160, seed: 5}}
    train_rows: 100
    heldout_rows: 40
  colours:
    kind: instruction
    source: {type: python, function: "pairs_of_ours.source:colours", arguments: {size: 160, seed: 6}}
    train_rows: 100
    heldout_rows: 40
"""
TINY = {
    **{"dtype": "float32", "bf16": False, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    **{"learning_rate": 3e-3, "logging_steps": 2, "max_length": 128},
}


@pytest.fixture(scope="module")
def pairs_mixed(tmp_path_factory, tiny_model):
    """A function (keys of the reward_model section, more sections) -> (file, run folder with its mixture)."""
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    own = tmp_path_factory.mktemp("own")
    (own / "pairs_of_ours").mkdir()
    (own / "pairs_of_ours" / "source.py").write_text(SOURCE)

    def write(keys: dict, more: str = "") -> tuple[Path, Path]:
        section = f"reward_model: {json.dumps({**TINY, **keys})}\n{more}"  # which is YAML
        file = write_experiment(tmp_path_factory.mktemp("reward"), section, RECIPE, tiny_model)
        experiment = load_experiment(file)
        mix(experiment)
        return file, experiment.run_dir

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(own))
        patch.setenv("PYTHONPATH", str(own))
        yield write


def train_here(file: Path, *overrides: str) -> None:
    """Run the reward_model stage in this process."""
    from pipelines.reward_model import train

    run_here(train, file, *overrides)


def logged(run: Path) -> list[dict]:
    """Return every line of the stage's metrics but the summary at its end, without the times."""
    lines = [json.loads(line) for line in (run / "reward_model" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if "train_runtime" not in line]
