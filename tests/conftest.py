"""Shared fixtures. Nothing here reaches a network; the embedded model comes from the environment's own package."""

import os
import shutil
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

MODEL = "smollm2-135m-instruct"
SMALL_RECIPE = """
cleaning: {decontaminate: exact, protect: heldout}
tasks:
  chain_sum:
    kind: domain
    source: {type: reasoning_gym, dataset: chain_sum, seed: 1, config: {min_terms: 2, max_terms: 2, max_digits: 1}}
    prompt: "What is {{ metadata.expression }}? Answer with the number only."
    working: "{{ metadata.expression }} = {{ answer }}"
    verifiers: [number]
    train_rows: 40
    heldout_rows: 6
  word_sequence_reversal:
    kind: instruction
    source: {type: reasoning_gym, dataset: word_sequence_reversal, seed: 2, config: {min_words: 3, max_words: 3}}
    prompt: "Reverse this list of words: {{ metadata.words | join(', ') }}"
    verifiers: [sequence]
    train_rows: 40
    heldout_rows: 6
"""


class Words:
    """A tokenizer for tests: a token a word, hashed; the target is trained on."""

    name, vocabulary = "words", 50_000

    def __call__(self, rows):
        def ids(turns):
            return [zlib.crc32(word.encode()) % 50_000 for turn in turns for word in turn.content.split()]

        made = []
        for row in rows:
            whole = ids(row.messages)
            made.append((whole, len(ids(row.messages[:-1])) if row.target is not None else len(whole)))
        return made


@pytest.fixture(scope="session")
def model_folder() -> str:
    """The embedded model, converted once to the user's cache."""
    from eval.models import resolve_model

    return resolve_model(MODEL)


def write_experiment(folder: Path, sections: str, recipe: str = SMALL_RECIPE, model: str = MODEL) -> Path:
    """Write a recipe and an experiment around it, whose run folder is ``run`` beside them; return the file."""
    (folder / "recipe.yaml").write_text(recipe)
    file = folder / "experiment.yaml"
    head = f"name: small\nmodel: {model}\nrecipe: recipe.yaml\noutput_dir: {folder / 'run'}\nseed: 3\n"
    file.write_text(head + sections)
    return file


@pytest.fixture
def small_experiment(tmp_path: Path):
    """`write_experiment` in the test's own folder."""
    return partial(write_experiment, tmp_path)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A headless Chromium of the system; without one the test fails under CI and is skipped elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        told = f"no browser: install chromium (looked for {', '.join(names)})"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def open_file(browser):
    """Open a file in the browser; alerts, errors and requests that leave the disk fail the test."""
    faults = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})

    def opened(path: Path, address: str = "", **media):
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("request", lambda request: request.url.startswith("file://") or faults.append(request.url))
        if media:
            page.emulate_media(**media)
        page.goto(path.as_uri() + address)
        return page

    yield opened
    context.close()
    assert not faults
