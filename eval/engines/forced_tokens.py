"""A logits processor for vLLM that lets a request write only the tokens it was given.

The log-probabilities vLLM returns are those before any processor, so a text's likelihood is had by "generating" it.
Unlike vLLM's prompt log-probabilities this reads the prompt from the prefix cache, and multiplies by the vocabulary
only where the text stands: with long prompts, which take a CPU seconds, that spares most of the work.
"""

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from eval.engines.vllm import FORCED_TOKENS


class ForcedTokens(AdapterLogitsProcessor):
    """Applies to requests whose ``extra_args`` hold `FORCED_TOKENS`, alone."""

    def is_argmax_invariant(self) -> bool:
        """Return False: the likeliest token changes, so greedy requests need it, too."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """Return the request's own processor, or None."""
        forced = (params.extra_args or {}).get(FORCED_TOKENS)
        return None if forced is None else _Forced(forced)


class _Forced:
    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def __call__(self, output_ids: list[int], logits: Any) -> Any:
        token = self._tokens[min(len(output_ids), len(self._tokens) - 1)]
        kept = logits[token].clone()
        logits.fill_(float("-inf"))
        logits[token] = kept
        return logits
