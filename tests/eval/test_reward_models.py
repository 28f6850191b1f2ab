"""The scorer on a tiny random classifier: padding changes nothing, long inputs are left out, other models refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_recipes.errors import UserError
from data_recipes.files import read_json, write_json
from eval.reward_models import RewardModel, conversation_tokens

ASKED = [
    ([{"role": "user", "content": "Name a colour."}], "Red."),
    ([{"role": "user", "content": "Name a colour, please, and say where it is found in nature."}], "Green: in leaves."),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], ""),
    ([{"role": "user", "content": "Count to five."}], "one two three four five " * 6),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model_folder):
    """Two layers of random weights with one label, and the real model's tokenizer."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("scorer")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    padding = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.from_pretrained(model_folder, num_hidden_layers=2, **shape, **padding)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_batch_scores_as_its_members_do_alone_and_in_any_order(folder):
    together = RewardModel(folder, dtype="float32").score(ASKED)
    assert len(set(together)) == len(ASKED) and together == RewardModel(folder, dtype="float32").score(ASKED)
    model = RewardModel(folder, dtype="float32", batch_tokens=1)
    alone = [model.score([one])[0] for one in ASKED]
    assert together == pytest.approx(alone, abs=1e-5) and model.score(ASKED) == pytest.approx(alone, abs=1e-5)
    assert RewardModel(folder, dtype="float32").score(ASKED[::-1]) == pytest.approx(alone[::-1], abs=1e-5)
    assert model.score([]) == []


def test_a_score_is_the_heads_answer_at_the_end_of_the_conversation(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    turns, completion = ASKED[1]
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [*turns, {"role": "assistant", "content": completion}], return_dict=False
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    (hidden,) = model.model(torch.tensor([ids])).last_hidden_state
    (score,) = RewardModel(folder, dtype="float32").score([ASKED[1]])
    assert score == pytest.approx((hidden[-1] @ model.score.weight[0]).item(), abs=1e-5)


def test_a_conversation_that_is_too_long_is_left_out_not_cut(folder):
    from transformers import AutoTokenizer

    whole = [[*turns, {"role": "assistant", "content": completion}] for turns, completion in ASKED]
    lengths = [len(ids) for ids in conversation_tokens(AutoTokenizer.from_pretrained(folder), whole)]
    limit = lengths[1]
    scores = RewardModel(folder, dtype="float32", max_length=limit).score(ASKED)
    assert [score is None for score in scores] == [length > limit for length in lengths] and None in scores
    assert RewardModel(folder).max_length == read_json(folder / "config.json")["max_position_embeddings"]


def test_what_is_no_reward_model_is_refused_in_one_sentence(folder, model_folder, tmp_path):
    with pytest.raises(UserError, match="no reward model .LlamaForCausalLM.; give"):
        RewardModel(model_folder)
    with pytest.raises(UserError, match="no such folder"):
        RewardModel(tmp_path / "nowhere")
    shutil.copytree(folder, tmp_path / "two")
    config = read_json(folder / "config.json")
    write_json(tmp_path / "two" / "config.json", {**config, "id2label": {"0": "a", "1": "b"}})
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "score.weight": weights["score.weight"].repeat(2, 1)}, tmp_path / "two" / "model.safetensors")
    with pytest.raises(UserError, match="it has 2 labels, and a reward is one number"):
        RewardModel(tmp_path / "two")
