"""Generation with transformers alone: slower, for machines without vLLM."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from eval.engines import Completion, EngineSettings, Request, chat_prompt
from eval.hardware import concrete_dtype


class TransformersEngine:
    """One transformers model; see `eval.engines.Engine`."""

    def __init__(self, settings: EngineSettings, model: str) -> None:
        from transformers import AutoTokenizer

        self._settings = settings
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.load_weights(model)

    def load_weights(self, model: str) -> None:
        """Go on with the weights in the folder `model`."""
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = (
            AutoModelForCausalLM.from_pretrained(model, dtype=concrete_dtype(self._settings.dtype)).to(device).eval()
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion, batch after batch of alike requests."""

        def alike(request: Request) -> tuple[float, int]:
            return (request.temperature, request.max_tokens)

        for _, group in groupby(sorted(requests, key=alike), key=alike):
            while batch := list(islice(group, min(self._settings.max_num_seqs, 32))):
                yield from zip(batch, self._complete(batch), strict=True)

    def _complete(self, batch: list[Request]) -> list[Completion]:
        import torch

        prompts = [chat_prompt(self._tokenizer, request.messages) for request in batch]
        inputs = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self._model.device)
        torch.manual_seed(batch[0].seed)
        sampling = {"do_sample": False}
        if batch[0].temperature > 0:
            sampling = {"do_sample": True, "temperature": batch[0].temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            outputs = self._model.generate(
                **inputs,
                **sampling,
                max_new_tokens=batch[0].max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        completions = []
        for prompt, output in zip(prompts, outputs, strict=True):
            written = output[inputs["input_ids"].shape[1] :].tolist()
            ends = self._model.generation_config.eos_token_id
            ends = set(ends) if isinstance(ends, list) else {ends}
            length = next((i for i, token in enumerate(written) if token in ends), None)
            completions.append(
                Completion(
                    text=self._tokenizer.decode(written[:length], skip_special_tokens=True),
                    num_tokens=len(written) if length is None else length + 1,
                    num_prompt_tokens=len(prompt),
                    finish_reason="length" if length is None else "stop",
                )
            )
        return completions
