"""Which tokens of a conversation are trained on: the last answer, or every assistant turn by the chat template."""

import json

import numpy as np
import pytest

from data_recipes.store import Mixture
from pipelines.experiment import load_experiment
from pipelines.mix import mix
from pipelines.multitask.batches import IGNORED, Batches, PackedOrder
from pipelines.sft import _arguments, _assistant_tokens, plan
from pipelines.tokens import ChatTokeniser

RECIPE = """
cleaning: {decontaminate: none}
tasks:
  chat:
    kind: instruction
    source: {type: files, path: "{FOLDER}/chat.jsonl"}
"""


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    said = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + said


CONVERSATIONS = [
    turns("What is 1 + 1?", "Two."),
    turns("Name a colour.", "Blue.", "And another one?", "Red, say."),
    turns("Hi.", "Hello!", "assistant", "Yes?", "user: again", "user: I see.", system="Be short."),
]
EVERY = [["Two."], ["Blue.", "Red, say."], ["Hello!", "Yes?", "user: I see."]]


@pytest.fixture
def chats(tmp_path, model_folder):
    """(experiment, its mixture) of the conversations above."""
    lines = [json.dumps({"messages": turns}) + "\n" for turns in CONVERSATIONS]
    (tmp_path / "chat.jsonl").write_text("".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("{FOLDER}", str(tmp_path)))
    file = tmp_path / "experiment.yaml"
    head = f"name: chats\nmodel: {model_folder}\nrecipe: recipe.yaml\noutput_dir: {tmp_path / 'run'}\n"
    file.write_text(f"{head}sft: {{max_length: 256, batch_size: 3, num_train_epochs: 1}}\n")
    experiment = load_experiment(file)
    mix(experiment)
    return experiment, Mixture(tmp_path / "run" / "mixture")


def trained_texts(batch: dict, tokenizer) -> list[list[str]]:
    """Return the runs of trained tokens of each line of a batch, decoded."""
    found = []
    for labels in batch["labels"].numpy():
        places = np.flatnonzero(labels != IGNORED)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        found.append([tokenizer.decode(labels[run]) for run in runs])
    return found


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("every_turn", [False, True])
def test_exactly_the_assistants_tokens_are_trained_on(chats, every_turn, packing):
    experiment, mixture = chats
    tokeniser = ChatTokeniser(experiment.model)
    trained = _assistant_tokens(mixture, tokeniser) if every_turn else None
    _, order = plan(mixture, _arguments(experiment, experiment.sft), 0, packing)
    sequences = order.sequences if isinstance(order, PackedOrder) else None
    collate = Batches(mixture, 256, tokeniser.tokenizer.pad_token_id, sequences, trained)
    expected = EVERY if every_turn else [texts[-1:] for texts in EVERY]
    expected = [[f"{text}<|im_end|>" for text in texts] for texts in expected]
    assert {row.messages[-1].content for row in mixture.rows()} == {texts[-1] for texts in EVERY}
    if packing:
        batch = collate([{"index": 0}])
        (found,) = trained_texts(batch, tokeniser.tokenizer)
        rows = [mixture.row(int(row)).messages[-1].content for row in sequences[0]]
        ends = {texts[-1]: texts for texts in expected}
        assert found == [text for last in rows for text in ends[f"{last}<|im_end|>"]]
    else:
        batch = collate([{"index": row} for row in range(3)])
        found = trained_texts(batch, tokeniser.tokenizer)
        assert sorted(found) == sorted(expected)
    assert (batch["labels"] == batch["input_ids"])[batch["labels"] != IGNORED].all()
    assert ((batch["task_ids"] == 0) == (batch["labels"] != IGNORED)).all()


def test_flags_end_where_a_row_is_cut(model_folder):
    from data_recipes.row import Message, Row

    tokeniser = ChatTokeniser(model_folder)
    messages = [Message(**turn) for turn in CONVERSATIONS[1]]
    row = Row(id="1", task="chat", kind="instruction", messages=messages)
    ((ids, start),) = tokeniser([row])
    flags = tokeniser.assistant_flags(row, len(ids))
    assert flags[start:] == [True] * (len(ids) - start)
    assert tokeniser.assistant_flags(row, start) == flags[:start] and any(flags[:start])
