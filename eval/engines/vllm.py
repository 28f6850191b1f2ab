"""vLLM in this process, on the CPU or on GPUs."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from data_recipes.errors import UserError
from eval.engines import Completion, Continuation, EngineSettings, Likelihood, Request, split_tokens, with_room
from eval.hardware import concrete_dtype
from eval.models import local_folder, merged


def prepare_environment(kv_cache_gb: int) -> None:
    """Set what vLLM reads from the environment; has to run before vLLM is imported."""
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: weights can be handed over, a kill leaves no orphan
        "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gb),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding both cores starves the trainer that shares them
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for our progress lines
        "VLLM_NO_USAGE_STATS": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def platform_arguments(max_model_len: int) -> dict[str, Any]:
    """Return the engine arguments that differ on the CPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    return {
        "enforce_eager": True,  # compiling takes longer than it saves on small runs
        "block_size": 32,  # the smallest there is; with the default of 128 short prompts share no prefix
        # vLLM rewinds a request's generator after a partial prefill, which a seeded CPU generator cannot do
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_model_len, 2048),
    }


FORCED_TOKENS = "whetstone_forced_tokens"
"""The key of ``SamplingParams.extra_args`` that `eval.engines.forced_tokens` reads."""


class VLLMEngine:
    """One vLLM engine; see `eval.engines.Engine`."""

    stops_after = True

    def __init__(
        self, settings: EngineSettings, model: str, adapter: str | None = None, max_lora_rank: int = 0
    ) -> None:
        prepare_environment(settings.kv_cache_gb)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError:
            raise UserError("vLLM is not installed; type 'make setup', or set engine.type to transformers") from None
        self._settings = settings
        self._forces = current_platform.is_cpu()
        """Likelihoods by forced tokens; on GPUs vLLM's runner for them is the slower one, and prompts are cheap."""
        self._merges = settings.lora == "merge" or (settings.lora == "auto" and current_platform.is_cpu())
        lora = {}
        if max_lora_rank and not self._merges:
            lora = {"enable_lora": True, "max_lora_rank": _rank_allowed(max_lora_rank)}
        self.llm = LLM(
            model,
            dtype=concrete_dtype(settings.dtype),
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            tensor_parallel_size=settings.tensor_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            disable_log_stats=True,
            # white space between tokens of JSON is where small models get lost
            structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
            **platform_arguments(settings.max_model_len),
            **({"logits_processors": ["eval.engines.forced_tokens:ForcedTokens"]} if self._forces else {}),
            **lora,
        )
        self._tokenizer = self.llm.get_tokenizer()
        self._loaded, self._adapter, self._adapters = model, None, {}
        if adapter:
            self.load_weights(model, adapter)

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as that is finished.

        Raises:
            UserError: a prompt leaves no room for its completion.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        prompts, others = with_room(requests, self._tokenizer, self._settings)
        yield from others
        pending = {}
        for request, prompt in prompts:
            pending[request.key] = request
            sampling = SamplingParams(
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                seed=request.seed,
                stop=[*request.stop, *request.stop_after],
                include_stop_str_in_output=bool(request.stop_after),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            if request.json_schema is not None:
                sampling.structured_outputs = StructuredOutputsParams(json=request.json_schema)
            self._add(request.key, prompt, sampling)
        for output in self._finished():
            request, written = pending.pop(output.request_id), output.outputs[0]
            text = written.text
            if request.stop_after and isinstance(written.stop_reason, str) and written.stop_reason in request.stop:
                text = text.removesuffix(written.stop_reason)  # vLLM keeps all stop strings or none
            yield (
                request,
                Completion(text, len(written.token_ids), len(output.prompt_token_ids), written.finish_reason),
            )

    def logprobs(self, continuations: Iterable[Continuation]) -> Iterator[tuple[Continuation, Likelihood]]:
        """Yield the continuations that fit the model's length with their likelihoods, in no fixed order."""
        pending = {}
        for continuation in continuations:
            prompt, text = split_tokens(self._tokenizer, continuation, self._settings.chat_template)
            if prompt and text and len(prompt) + len(text) < self._settings.max_model_len:
                pending[continuation.key] = (continuation, text)
                prefix = prompt if self._forces else prompt + text
                self._add(continuation.key, prefix, self._measuring(text))
        for output in self._finished():
            continuation, tokens = pending.pop(output.request_id)
            found = output.outputs[0].logprobs if self._forces else output.prompt_logprobs[-len(tokens) :]
            logprob = sum(position[token].logprob for position, token in zip(found, tokens, strict=True))
            yield continuation, Likelihood(logprob, len(tokens), len(continuation.text.encode()))

    def _measuring(self, text: list[int]) -> Any:
        """Return the sampling parameters that bring the log-probabilities of a text's tokens."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        final = {"temperature": 0, "output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
        if not self._forces:
            return SamplingParams(max_tokens=1, prompt_logprobs=0, **final)
        forced = {FORCED_TOKENS: text}
        return SamplingParams(max_tokens=len(text), logprobs=0, ignore_eos=True, extra_args=forced, **final)

    def _add(self, key: str, prompt: list[int], sampling: Any) -> None:
        self.llm.llm_engine.add_request(key, {"prompt_token_ids": prompt}, sampling, lora_request=self._adapter)

    def _finished(self) -> Iterator[Any]:
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            yield from (output for output in engine.step() if output.finished)

    def load_weights(self, model: str, adapter: str | None = None) -> None:
        """Go on with the weights in the folder `model`, of the same architecture, with a LoRA adapter on top if any."""
        self._adapter = None
        if adapter and self._merges:
            with merged(model, adapter, concrete_dtype(self._settings.dtype)) as folder:
                self._reload(folder)
            self._loaded = None  # the base's weights are gone
            return
        if model != self._loaded:
            self._reload(model)
            self._loaded = model
        if adapter:
            from vllm.lora.request import LoRARequest

            number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
            self._adapter = LoRARequest(f"adapter-{number}", number, adapter)

    def _reload(self, model: str) -> None:
        from transformers import AutoTokenizer

        folder = local_folder(model)
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        self.llm.reset_prefix_cache()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)  # a fine-tune may have a chat template of its own


def _rank_allowed(rank: int) -> int:
    """Return the smallest rank vLLM makes room for that holds adapters of `rank`."""
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if allowed >= rank), rank)
