"""Generation with transformers alone: slower, for machines without vLLM."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from data_recipes.errors import UserError
from eval.engines import (
    Completion,
    Continuation,
    EngineSettings,
    Likelihood,
    Request,
    cut_at_stop,
    split_tokens,
    with_room,
)
from eval.hardware import concrete_dtype
from eval.models import merged

LARGEST_BATCH = 32


class TransformersEngine:
    """One transformers model; see `eval.engines.Engine`."""

    stops_after = True

    def __init__(self, settings: EngineSettings, model: str, adapter: str | None = None) -> None:
        self._settings = settings
        self.load_weights(model, adapter)

    def load_weights(self, model: str, adapter: str | None = None) -> None:
        """Go on with the weights in the folder `model`, with a LoRA adapter merged into them if any."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = concrete_dtype(self._settings.dtype)
        if adapter:
            with merged(model, adapter, dtype) as folder:
                self.load_weights(folder)
            return
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion, batch after batch of alike requests.

        Raises:
            UserError: a prompt leaves no room for its completion, or a completion has to follow a JSON schema.
        """

        def alike(one: tuple[Request, list[int]]) -> tuple:
            return (one[0].temperature, one[0].max_tokens, one[0].stop, one[0].stop_after)

        requests = list(requests)
        if any(request.json_schema is not None for request in requests):
            raise UserError("engine.type transformers cannot hold a model to a JSON schema; set it to vllm or openai")
        prompts, others = with_room(requests, self._tokenizer, self._settings)
        yield from others
        for _, group in groupby(sorted(prompts, key=alike), key=alike):
            while batch := list(islice(group, min(self._settings.max_num_seqs, LARGEST_BATCH))):
                completions = self._complete([request for request, _ in batch], [prompt for _, prompt in batch])
                yield from zip([request for request, _ in batch], completions, strict=True)

    def _complete(self, batch: list[Request], prompts: list[list[int]]) -> list[Completion]:
        import torch

        inputs = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self._model.device)
        torch.manual_seed(batch[0].seed)
        sampling: dict[str, Any] = {"do_sample": False}
        if batch[0].temperature > 0:
            sampling = {"do_sample": True, "temperature": batch[0].temperature, "top_k": 0, "top_p": 1.0}
        stops = [*batch[0].stop, *batch[0].stop_after]
        if stops:
            sampling |= {"stop_strings": stops, "tokenizer": self._tokenizer}
        with torch.inference_mode():
            outputs = self._model.generate(
                **inputs,
                **sampling,
                max_new_tokens=batch[0].max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        return [
            self._completion(request, prompt, output[inputs["input_ids"].shape[1] :].tolist())
            for request, prompt, output in zip(batch, prompts, outputs, strict=True)
        ]

    def _completion(self, request: Request, prompt: list[int], written: list[int]) -> Completion:
        ends = self._model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        length = next((i for i, token in enumerate(written) if token in ends), None)
        text = self._tokenizer.decode(written[:length], skip_special_tokens=True)
        kept = cut_at_stop(text, request.stop, request.stop_after)
        stopped = length is not None or any(one in text for one in (*request.stop, *request.stop_after))
        if length is None and stopped:  # what a batch pads after a stop string is not the model's
            while len(written) > 1 and written[-1] == self._tokenizer.pad_token_id:
                written.pop()
        return Completion(
            text=kept,
            num_tokens=len(written) if length is None else length + 1,
            num_prompt_tokens=len(prompt),
            finish_reason="stop" if stopped else "length",
        )

    def logprobs(self, continuations: Iterable[Continuation]) -> Iterator[tuple[Continuation, Likelihood]]:
        """Yield the continuations that fit the model's length with their likelihoods, in order."""
        import torch

        for continuation in continuations:
            prompt, text = split_tokens(self._tokenizer, continuation, self._settings.chat_template)
            if not prompt or not text or len(prompt) + len(text) > self._settings.max_model_len:
                continue
            tokens = torch.tensor([prompt + text], device=self._model.device)
            with torch.inference_mode():
                logits = self._model(tokens, logits_to_keep=len(text) + 1).logits[0, :-1].float()
            scored = torch.log_softmax(logits, -1).gather(1, tokens[0, -len(text) :, None])
            yield continuation, Likelihood(scored.sum().item(), len(text), len(continuation.text.encode()))
