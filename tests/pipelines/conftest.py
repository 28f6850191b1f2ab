"""Experiments whose mixtures are built."""

from collections.abc import Callable
from pathlib import Path

import pytest


def _run_folders(file: Path) -> Callable[[str], Path]:
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    def run_folder(name: str) -> Path:
        folder = file.parent / name
        mix(load_experiment(file, [f"output_dir={folder}"], check_trl=False))
        return folder

    return run_folder


@pytest.fixture
def mixed(small_experiment, model_folder):
    """A function (sections) -> (file of an experiment, function (name) -> run folder with its mixture)."""

    def write(sections: str) -> tuple[Path, Callable[[str], Path]]:
        file = small_experiment(sections)
        return file, _run_folders(file)

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, model_folder) -> str:
    """Two layers of random weights with the real model's tokenizer: a fraction of a second a step."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.from_pretrained(model_folder, num_hidden_layers=2, **shape)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny_mixed(small_experiment, tiny_model):
    """As `mixed`, with the tiny model."""

    def write(sections: str) -> tuple[Path, Callable[[str], Path]]:
        file = small_experiment(sections, model=tiny_model)
        return file, _run_folders(file)

    return write
