"""Reward models: a language model's body with one number as its head, which says how good a completion is."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.files import read_json
from data_recipes.row import Row
from eval.hardware import Dtype, concrete_dtype
from eval.judges import Judged, Judges
from eval.models import local_folder, resolve_model
from eval.verifiers import Verdict

Turns = Sequence[Mapping[str, str]]


def conversation_tokens(tokenizer: Any, conversations: Sequence[Turns]) -> list[list[int]]:
    """Return the token ids of whole conversations by the tokenizer's chat template: what a reward model reads.

    Raises:
        UserError: the chat template refuses one.
    """
    from jinja2 import TemplateError

    try:
        texts = [tokenizer.apply_chat_template(list(turns), tokenize=False) for turns in conversations]
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses a conversation ({error}); mend its turns") from None
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


class RewardModel:
    """Scores completions with a sequence classifier of one label, as the reward_model stage leaves in
    ``reward_model/model``.

    The scores of a batch do not depend on what else is in it, but for rounding; the same calls give the same scores.
    """

    def __init__(
        self,
        folder: Path | str,
        dtype: Dtype = "auto",
        batch_tokens: int = 8192,
        max_length: int | None = None,
        device: str | None = None,
    ) -> None:
        """Load weights and tokenizer.

        Args:
            folder: of the model, or its hub id.
            dtype: of the weights.
            batch_tokens: most tokens of a forward pass, padding included; a longer conversation goes alone.
            max_length: longest conversation, in tokens; absent: what the model's positions allow.
            device: absent: the first GPU, where there is one.

        Raises:
            UserError: there is no such model, or it gives no scalar reward.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        name = resolve_model(str(folder))
        config = read_json(Path(local_folder(name)) / "config.json")
        kinds = config.get("architectures") or []
        if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise UserError(
                f"{folder}: no reward model ({', '.join(kinds)}); give the reward_model stage's model folder"
            )
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = AutoModelForSequenceClassification.from_pretrained(name, dtype=concrete_dtype(dtype))
        if self._model.config.num_labels != 1:
            raise UserError(f"{folder}: it has {self._model.config.num_labels} labels, and a reward is one number")
        self._model.to(self._device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        if self._tokenizer.chat_template is None:
            raise UserError(f"{folder}: its tokenizer has no chat template; add chat_template.jinja to the folder")
        text = self._model.config.get_text_config()
        if text.pad_token_id is None:  # the model looks for the last token that is no padding
            text.pad_token_id = self._tokenizer.pad_token_id or self._tokenizer.eos_token_id
        self._padding, self._batch_tokens = text.pad_token_id, batch_tokens
        self.max_length = max_length or text.max_position_embeddings
        """Longest conversation that is scored, in tokens."""

    def score(self, asked: Sequence[tuple[Turns, str]]) -> list[float | None]:
        """Return the reward of each (messages, completion) in their order, higher is better.

        A conversation longer than `max_length` is not cut: it gets None. A reward may be no finite number where the
        model's weights are broken.

        Args:
            asked: turns with ``role`` and ``content``, and the assistant's turn that follows them.
        """
        whole = [[*turns, {"role": "assistant", "content": completion}] for turns, completion in asked]
        tokens = conversation_tokens(self._tokenizer, whole)
        found: list[float | None] = [None] * len(tokens)
        fitting = sorted(
            (place for place, ids in enumerate(tokens) if len(ids) <= self.max_length), key=lambda at: len(tokens[at])
        )
        for places in self._batches(fitting, [len(ids) for ids in tokens]):
            for place, reward in zip(places, self._rewards([tokens[place] for place in places]), strict=True):
                found[place] = reward
        return found

    def _batches(self, places: list[int], lengths: list[int]) -> list[list[int]]:
        """Return `places`, which come shortest first, in batches."""
        batches: list[list[int]] = []
        for place in places:
            if not batches or (len(batches[-1]) + 1) * lengths[place] > self._batch_tokens:
                batches.append([])
            batches[-1].append(place)
        return batches

    def _rewards(self, tokens: list[list[int]]) -> list[float]:
        import torch

        width = max(map(len, tokens))
        ids = torch.tensor([one + [self._padding] * (width - len(one)) for one in tokens], device=self._device)
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in tokens], device=self._device)
        with torch.inference_mode():
            return self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()


def judge_rows(judges: Judges, model: RewardModel | None, asked: Sequence[tuple[Row, str]]) -> list[Judged]:
    """Return what each (row, completion) is worth, in their order: by the row's verifiers, or where it names none by
    the reward model. A reward that could not be had is a problem, never a low reward."""
    by_verifiers = [place for place, (row, _) in enumerate(asked) if row.verifiers or model is None]
    others = [place for place, (row, _) in enumerate(asked) if not row.verifiers and model is not None]
    found = dict(zip(by_verifiers, judges.judge([asked[place] for place in by_verifiers]), strict=True))
    if model is not None:
        rewards = model.score([(asked[place][0].prompt, asked[place][1]) for place in others])
        found |= {place: _judged(model, reward) for place, reward in zip(others, rewards, strict=True)}
    return [found[place] for place in range(len(asked))]


def _judged(model: RewardModel, reward: float | None) -> Judged:
    if reward is None:
        return Judged(Verdict(None, None), f"longer than the {model.max_length} tokens that the reward model reads")
    if not isfinite(reward):
        return Judged(Verdict(None, None), f"the reward model gave {reward}, which is no finite number")
    return Judged(Verdict(reward, None))
