"""Rows as the model sees them: chat template, with the loss on the last assistant turn alone."""

from typing import Any

from data_recipes.errors import UserError
from data_recipes.row import Row


class ChatTokeniser:
    """Tokenises rows by a model's chat template, many at once; the tokenizer is loaded where and when it is needed.

    The target ends with the end-of-turn token, which is trained on; what a template writes after it is dropped.
    """

    def __init__(self, model: str) -> None:
        from data_recipes.files import fingerprint

        self.model = model
        self._tokenizer: Any = None
        tokenizer = self.tokenizer
        self.vocabulary = len(tokenizer)
        # the name of what it does, not of where it lies: the same tokenizer gives the same mixture anywhere
        identity = [tokenizer.chat_template, tokenizer.backend_tokenizer.to_str(), tokenizer.eos_token]
        self.name = f"{tokenizer.__class__.__name__} {fingerprint(identity)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokenizer": None}

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self.model)
        return self._tokenizer

    def __call__(self, rows: list[Row]) -> list[tuple[list[int], int]]:
        """Return each row's token ids and the place of the first trained one.

        A row without a target (a prompt, a preference) is tokenised up to where an answer would begin, and nothing
        of it is trained on.

        Raises:
            UserError: the chat template refuses a row, or changes the prompt once the answer is there, so that no clean
                cut exists.
        """
        if not rows:
            return []
        prompts, wholes = [], []
        for row in rows:
            turns = [turn.model_dump() for turn in row.messages]
            prompts.append(self._text(row, row.prompt if turns else [], True))
            wholes.append(self._text(row, turns, False) if row.target is not None else prompts[-1])
        heads = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        bodies = self.tokenizer(wholes, add_special_tokens=False)["input_ids"]
        return [self._cut(row, head, body) for row, head, body in zip(rows, heads, bodies, strict=True)]

    def _text(self, row: Row, turns: list[dict[str, str]], prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=False)
        except TemplateError as error:
            raise UserError(f"row {row.id}: the model's chat template refuses it ({error}); mend its turns") from None

    def _cut(self, row: Row, head: list[int], body: list[int]) -> tuple[list[int], int]:
        if row.target is None:
            return head, len(head)
        if body[: len(head)] != head:
            raise UserError(f"row {row.id}: the tokenizer's chat template rewrites the prompt once the answer follows")
        end = next((i for i in range(len(body), 0, -1) if body[i - 1] == self.tokenizer.eos_token_id), len(body))
        return body[: max(end, len(head) + 1)], len(head)

    def assistant_flags(self, row: Row, length: int) -> list[bool]:
        """Return which of the row's first `length` tokens an assistant wrote, in any turn, each with its end of turn.

        Raises:
            UserError: the chat template rewrites earlier turns once later ones follow, so that no clean cut exists.
        """
        turns = [turn.model_dump() for turn in row.messages]
        flags = [False] * length
        whole = self.tokenizer(self._text(row, turns, False), add_special_tokens=False)["input_ids"]
        for number, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            texts = self._text(row, turns[:number], True), self._text(row, turns[: number + 1], False)
            head, body = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            if whole[: len(body)] != body or body[: len(head)] != head:
                raise UserError(
                    f"row {row.id}: the tokenizer's chat template rewrites earlier turns; leave out assistant_only_loss"
                )
            end = next((i for i in range(len(body), 0, -1) if body[i - 1] == self.tokenizer.eos_token_id), len(body))
            flags[len(head) : end] = [True] * (end - len(head))
        return flags[:length]
