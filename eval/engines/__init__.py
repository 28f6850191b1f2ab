"""Engines that generate: vLLM in process, any OpenAI-compatible server, and transformers for machines without vLLM.

An engine is opened with `open_engine`, given requests, and yields completions as they finish, in no fixed order.
`load_weights` swaps another checkpoint, or the base with an adapter, into the running engine.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_recipes.errors import UserError
from eval.hardware import Dtype


class EngineSettings(BaseModel):
    """How completions are generated."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    type: Literal["vllm", "transformers", "openai"] = "vllm"
    """vllm generates in process; openai asks a server that speaks OpenAI's protocol; transformers serves machines
    without vLLM."""
    dtype: Dtype = "auto"
    """auto: bfloat16 where the hardware multiplies it, else float32."""
    max_model_len: int = Field(1024, ge=16)
    """Longest prompt and completion together, in tokens."""
    max_num_seqs: int = Field(128, ge=1)
    """Sequences generated at the same time; of a server: requests under way at once."""
    kv_cache_gb: int = Field(1, ge=1)
    """CPU memory for the key-value cache, in GiB (on a GPU see gpu_memory_utilization)."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    data_parallel_size: int = Field(1, ge=1)
    """Copies of the model in processes of their own, each on tensor_parallel_size GPUs, that share the requests."""
    chat_template: str | None = None
    """A Jinja file to use instead of the model's own chat template."""
    lora: Literal["auto", "merge", "request"] = "auto"
    """How an adapter is asked: merged into the weights, or as vLLM LoRA requests; auto: requests on GPUs, merged on
    CPUs, where requests are several times slower."""
    base_url: str | None = None
    """Of an OpenAI-compatible server, such as http://localhost:8000/v1; needed by type openai."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; the key itself is never written anywhere."""
    requests_per_minute: int = Field(0, ge=0)
    """Most requests sent to a server in a minute; 0: no limit."""
    max_retries: int = Field(6, ge=0)
    """Tries after a server's passing failure (429, 5xx, a lost connection), each waiting longer than the one before."""
    timeout: float = Field(600.0, gt=0)
    """Longest wait for one answer of a server, in seconds."""

    @model_validator(mode="after")
    def _fits_the_type(self) -> "EngineSettings":
        if self.type == "openai" and not self.base_url:
            raise ValueError("base_url is missing; type openai needs the server's address")
        if self.base_url and "@" in self.base_url:
            raise ValueError("base_url holds a user or password, which would be written down; put it into api_key_env")
        if self.type != "openai" and self.base_url:
            raise ValueError("base_url is only for type openai; set type: openai or remove it")
        if self.type != "vllm" and (self.tensor_parallel_size > 1 or self.data_parallel_size > 1):
            raise ValueError("tensor_parallel_size and data_parallel_size are vllm's; set type: vllm or remove them")
        return self


@dataclass(frozen=True)
class Request:
    """One prompt to complete."""

    key: str
    """Names the request in logs; unique within a call."""
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    chat: bool = True
    """Ask through the chat template; false: the messages' texts are the prompt as it stands."""
    stop: tuple[str, ...] = ()
    """Generation ends before any of these."""
    stop_after: tuple[str, ...] = ()
    """Generation ends after any of these, which stays in the text."""
    json_schema: dict[str, Any] | None = None
    """The completion is JSON of this schema: guided decoding allows no other token."""
    must_fit: bool = True
    """A prompt too long for the model is the user's error; false: its completion is empty and says ``no_room``."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str
    num_tokens: int
    num_prompt_tokens: int
    finish_reason: str
    """``stop``, ``length`` where the answer was cut off, ``no_room`` where the prompt left none."""


@dataclass(frozen=True)
class Continuation:
    """A text whose probability after a prompt is asked for."""

    key: str
    messages: list[dict[str, str]]
    text: str
    chat: bool = True


@dataclass(frozen=True)
class Likelihood:
    """How probable a model finds a continuation."""

    logprob: float
    """Of the whole text, in nats."""
    num_tokens: int
    num_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """-log2 of the text's probability, a byte of its UTF-8 form."""
        return -self.logprob / log(2) / max(self.num_bytes, 1)


class Engine(Protocol):
    """What every engine does."""

    stops_after: bool
    """Whether it can end generation after any number of strings (a request's ``stop_after``)."""

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as that is finished."""

    def logprobs(self, continuations: Iterable[Continuation]) -> Iterator[tuple[Continuation, Likelihood]]:
        """Yield the continuations it can judge with their likelihoods, in no fixed order."""

    def load_weights(self, model: str, adapter: str | None = None) -> None:
        """Go on with the weights in the folder `model`, of the same architecture, with a LoRA adapter on top if any."""


def open_engine(
    settings: EngineSettings, model: str, adapter: str | None = None, lora_ranks: Iterable[int] = ()
) -> Engine:
    """Start an engine on a model folder or hub id.

    Args:
        adapter: folder of a LoRA adapter to begin with.
        lora_ranks: of all adapters the engine will be given, for vLLM to make room for.

    Raises:
        UserError: the engine is not installed, or cannot load the model.
    """
    if settings.type == "openai":
        from eval.engines.openai import OpenAIEngine

        return OpenAIEngine(settings, model)
    if settings.type == "vllm" and settings.data_parallel_size > 1:
        from eval.engines.data_parallel import DataParallelEngine

        return DataParallelEngine(settings, model, adapter, list(lora_ranks))
    if settings.type == "vllm":
        from eval.engines.vllm import VLLMEngine

        return VLLMEngine(settings, model, adapter, max(lora_ranks, default=0))
    from eval.engines.transformers import TransformersEngine

    return TransformersEngine(settings, model, adapter)


@cache
def _template(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"engine.chat_template: {path} is no readable text file; mend the path") from None


def prompt_text(messages: list[dict[str, str]]) -> str:
    """Return the plain prompt of a request that goes without a chat template."""
    return "".join(message["content"] for message in messages)


def prompt_tokens(tokenizer: Any, messages: list[dict[str, str]], chat: bool, template: str | None = None) -> list[int]:
    """Return the token ids of a prompt: of a chat up to where the assistant begins to write.

    A chat that ends with an assistant turn is continued in that turn.

    Args:
        template: path of a Jinja chat template to use instead of the tokenizer's.

    Raises:
        UserError: the model has no chat template, or it refuses these messages.
    """
    if not chat:
        return tokenizer.encode(prompt_text(messages))
    custom = _template(template)
    if custom is None and tokenizer.chat_template is None:
        raise UserError("the model has no chat template; set the benchmark's chat: false, or engine.chat_template")
    begun = messages[-1]["role"] == "assistant"
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=custom,
            add_generation_prompt=not begun,
            continue_final_message=begun,
            tokenize=True,
            return_dict=False,
        )
    except Exception as error:  # Jinja's own errors, and what templates raise themselves
        if type(error).__module__.split(".")[0] != "jinja2":
            raise
        raise UserError(f"the chat template cannot render a prompt ({str(error)[:120]}); mend it") from None


def with_room(
    requests: Iterable[Request], tokenizer: Any, settings: EngineSettings
) -> tuple[list[tuple[Request, list[int]]], list[tuple[Request, Completion]]]:
    """Return the requests that fit the model's length with their prompts' token ids, and empty answers to the others.

    Raises:
        UserError: one that must fit does not.
    """
    fitting, others = [], []
    for request in requests:
        prompt = prompt_tokens(tokenizer, request.messages, request.chat, settings.chat_template)
        if len(prompt) + request.max_tokens <= settings.max_model_len:
            fitting.append((request, prompt))
        elif request.must_fit:
            raise UserError(
                f"prompt {request.key!r} has {len(prompt)} tokens: with max_tokens {request.max_tokens} more than"
                f" engine.max_model_len {settings.max_model_len}; raise it"
            )
        else:
            others.append((request, Completion("", 0, len(prompt), "no_room")))
    return fitting, others


def split_tokens(
    tokenizer: Any, continuation: Continuation, template: str | None = None
) -> tuple[list[int], list[int]]:
    """Return the token ids of a continuation's prompt and of its text.

    In plain text both are tokenised together, since a token may reach across the border; it then counts to the text.
    """
    prompt = prompt_tokens(tokenizer, continuation.messages, continuation.chat, template)
    if continuation.chat:
        return prompt, tokenizer.encode(continuation.text, add_special_tokens=False)
    whole = tokenizer.encode(prompt_text(continuation.messages) + continuation.text)
    shared = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole))
    )
    return whole[:shared], whole[shared:]


def cut_at_stop(text: str, stop: Iterable[str], stop_after: Iterable[str]) -> str:
    """Return the text up to its first stop string, which stays where it is of `stop_after`."""
    ends = [place for one in stop if (place := text.find(one)) >= 0]
    ends += [place + len(one) for one in stop_after if (place := text.find(one)) >= 0]
    return text[: min(ends)] if ends else text
