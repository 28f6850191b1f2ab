"""Engines that generate: vLLM in process, and transformers for machines without vLLM.

An engine is opened with `open_engine`, given requests, and yields completions as they finish, in no fixed order.
`load_weights` swaps another checkpoint of the same architecture into the running engine.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from eval.hardware import Dtype


class EngineSettings(BaseModel):
    """How completions are generated."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    type: Literal["vllm", "transformers"] = "vllm"
    """vllm generates in process; transformers serves machines without vLLM."""
    dtype: Dtype = "auto"
    """auto: bfloat16 where the hardware multiplies it, else float32."""
    max_model_len: int = Field(1024, ge=16)
    """Longest prompt and completion together, in tokens."""
    max_num_seqs: int = Field(128, ge=1)
    """Sequences generated at the same time."""
    kv_cache_gb: int = Field(1, ge=1)
    """CPU memory for the key-value cache, in GiB (on a GPU see gpu_memory_utilization)."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""


@dataclass(frozen=True)
class Request:
    """One prompt to complete."""

    key: str
    """Names the request in logs; unique within a call."""
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str
    num_tokens: int
    num_prompt_tokens: int
    finish_reason: str
    """``stop``, or ``length`` where the answer was cut off."""


class Engine(Protocol):
    """What every engine does."""

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as that is finished."""

    def load_weights(self, model: str) -> None:
        """Go on with the weights in the folder `model`, of the same architecture."""


def open_engine(settings: EngineSettings, model: str) -> Engine:
    """Start an engine on a model folder or hub id.

    Raises:
        UserError: the engine is not installed, or cannot load the model.
    """
    if settings.type == "vllm":
        from eval.engines.vllm import VLLMEngine

        return VLLMEngine(settings, model)
    from eval.engines.transformers import TransformersEngine

    return TransformersEngine(settings, model)


def chat_prompt(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Return the token ids of a chat up to where the assistant begins to write."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
