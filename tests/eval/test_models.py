import pytest

from data_recipes.errors import UserError
from eval import models
from eval.hardware import concrete_dtype


def test_the_embedded_model_is_converted_once_and_ends_its_turns(model_folder):
    from transformers import AutoTokenizer

    assert models.resolve_model("smollm2-135m-instruct") == model_folder
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokenizer.eos_token_id in tokenizer.apply_chat_template(chat, return_dict=False)
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_damaged_package_is_refused_by_its_checksum(tmp_path, monkeypatch):
    damaged = tmp_path / "model.gguf"
    damaged.write_bytes(b"GGUF, but cut off")
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_packaged_file", lambda spec: damaged)
    with pytest.raises(UserError, match="damaged .wrong checksum.; type: pip install"):
        models.resolve_model("smollm2-135m-instruct")
    assert not (tmp_path / "cache" / "models").exists()


@pytest.mark.parametrize("name", ["./missing", "/nowhere/model", "smollm2", "a/b/c"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(UserError, match="no such folder; give an existing one, a hub id"):
        models.resolve_model(name)


def test_a_folder_without_a_model_is_refused_and_hub_ids_pass(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        models.resolve_model(str(tmp_path))
    assert models.resolve_model("owner/name") == "owner/name"


def test_dtype_auto_is_decided_and_others_stand():
    assert concrete_dtype("auto") in ("bfloat16", "float16", "float32")
    assert concrete_dtype("float16") == "float16"
