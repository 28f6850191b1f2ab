"""A row as the model sees it: chat template, with the loss on the last assistant turn alone."""

from typing import Any

from data_recipes.errors import UserError
from data_recipes.row import Row

IGNORED = -100


def tokenise(row: Row, tokenizer: Any) -> dict[str, list[int]]:
    """Return ``input_ids`` and ``labels`` of equal length; labels are `IGNORED` outside the target.

    The target ends with the end-of-turn token, which is trained on; what a template writes after it is dropped.

    Raises:
        UserError: the chat template changes the prompt once the answer is there, so no clean cut exists.
    """
    prompt = tokenizer.apply_chat_template(row.prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    turns = [turn.model_dump() for turn in row.messages]
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    if whole[: len(prompt)] != prompt:
        raise UserError(f"row {row.id}: the tokenizer's chat template rewrites the prompt once the answer follows")
    end = max((i for i, token in enumerate(whole) if token == tokenizer.eos_token_id), default=len(whole) - 1) + 1
    end = max(end, len(prompt) + 1)
    return {"input_ids": whole[:end], "labels": [IGNORED] * len(prompt) + whole[len(prompt) : end]}
