"""vLLM in this process, on the CPU or on GPUs."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from data_recipes.errors import UserError
from eval.engines import Completion, EngineSettings, Request, chat_prompt
from eval.hardware import concrete_dtype


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


class VLLMEngine:
    """One vLLM engine; see `eval.engines.Engine`."""

    def __init__(self, settings: EngineSettings, model: str) -> None:
        prepare_environment(settings.kv_cache_gb)
        try:
            from vllm import LLM
        except ImportError:
            raise UserError("vLLM is not installed; type 'make setup', or set engine.type to transformers") from None
        self._max_model_len = settings.max_model_len
        self.llm = LLM(
            model,
            dtype=concrete_dtype(settings.dtype),
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            tensor_parallel_size=settings.tensor_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            disable_log_stats=True,
            **platform_arguments(settings.max_model_len),
        )
        self._tokenizer = self.llm.get_tokenizer()

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as that is finished.

        Raises:
            UserError: a prompt leaves no room for its completion.
        """
        from vllm import SamplingParams

        engine = self.llm.llm_engine
        pending = {}
        for request in requests:
            prompt = chat_prompt(self._tokenizer, request.messages)
            if len(prompt) + request.max_tokens > self._max_model_len:
                raise UserError(
                    f"prompt {request.key!r} has {len(prompt)} tokens: with max_tokens {request.max_tokens} more"
                    f" than engine.max_model_len {self._max_model_len}; raise it"
                )
            pending[request.key] = request
            sampling = SamplingParams(temperature=request.temperature, max_tokens=request.max_tokens, seed=request.seed)
            engine.add_request(request.key, {"prompt_token_ids": prompt}, sampling)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    written = output.outputs[0]
                    yield (
                        pending.pop(output.request_id),
                        Completion(
                            text=written.text,
                            num_tokens=len(written.token_ids),
                            num_prompt_tokens=len(output.prompt_token_ids),
                            finish_reason=written.finish_reason,
                        ),
                    )

    def load_weights(self, model: str) -> None:
        """Go on with the weights in the folder `model`, of the same architecture."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": model})
        self.llm.reset_prefix_cache()
