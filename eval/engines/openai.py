"""A server that speaks OpenAI's protocol: many requests at once, tried again after passing failures."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from data_recipes.errors import UserError
from eval.engines import Completion, Continuation, EngineSettings, Likelihood, Request, prompt_text


class OpenAIEngine:
    """One served model; see `eval.engines.Engine`. Likelihoods are had of plain-text prompts, where it echoes them."""

    stops_after = False  # the protocol has but four stop strings, and leaves them out of the text

    def __init__(self, settings: EngineSettings, model: str) -> None:
        from openai import OpenAI

        key = os.environ.get(settings.api_key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            raise UserError(
                f"the environment variable {settings.api_key_env} holds no key (odd characters); set it anew"
            )
        self._settings = settings
        self._model = model
        self._client = OpenAI(
            base_url=settings.base_url,
            api_key=key or "none",  # a server of one's own often asks for none
            max_retries=settings.max_retries,  # waits twice as long each time, or as long as Retry-After says
            timeout=settings.timeout,
        )
        self._pace = _Pace(settings.requests_per_minute)

    def load_weights(self, model: str, adapter: str | None = None) -> None:
        """Go on with another model that the server has; an adapter is asked under the name it is served by."""
        self._model = adapter or model

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as the server has answered.

        Raises:
            UserError: the server cannot be reached, or refuses a request; what was answered before has been yielded.
        """
        return self._concurrently(self._complete, requests)

    def logprobs(self, continuations: Iterable[Continuation]) -> Iterator[tuple[Continuation, Likelihood]]:
        """Yield the plain-text continuations with their likelihoods, where the server echoes prompts."""
        plain = [one for one in continuations if not one.chat]
        answers = self._concurrently(self._likelihood, plain)
        yield from ((one, likelihood) for one, likelihood in answers if likelihood is not None)

    def _concurrently(self, call: Any, asked: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        waiting = iter(asked)
        with ThreadPoolExecutor(self._settings.max_num_seqs) as pool:
            under_way: dict[Future, Any] = {}
            failure: UserError | None = None
            try:
                while under_way or not failure:
                    for one in islice(waiting, 0 if failure else 2 * self._settings.max_num_seqs - len(under_way)):
                        under_way[pool.submit(self._paced, call, one)] = one
                    if not under_way:
                        break
                    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in finished:
                        one = under_way.pop(future)
                        error = future.exception()
                        if error is None:
                            yield one, future.result()
                        elif not isinstance(error, UserError):
                            raise error
                        elif failure is None:  # nothing new is asked, but what is under way is worth keeping
                            failure = error
                            for waits in [waits for waits in under_way if waits.cancel()]:
                                del under_way[waits]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            if failure:
                raise failure

    def _paced(self, call: Any, one: Any) -> Any:
        from openai import APIConnectionError, APIStatusError

        self._pace.wait()
        server = self._settings.base_url
        try:
            return call(one)
        except APIConnectionError as error:
            raise UserError(
                f"{server} cannot be reached ({error.__cause__ or error}); check engine.base_url and that the server"
                " runs, then run the same command again: what was answered is kept"
            ) from None
        except APIStatusError as error:
            if error.status_code == 400 and isinstance(one, Continuation):
                return None  # this server does not echo prompts
            too_long = isinstance(one, Request) and (one.json_schema is None or "context" in str(error.message))
            if error.status_code == 400 and too_long and not one.must_fit:  # (a schema may be refused as well)
                return Completion("", 0, 0, "no_room")
            mend = {
                401: f"put the key into the environment variable {self._settings.api_key_env}",
                404: "check the model's name and that engine.base_url ends as the server expects (often /v1)",
                429: "lower engine.max_num_seqs, or set engine.requests_per_minute",
            }.get(error.status_code, "check the server's log")
            said = " ".join(str(error.message).split())[:160]
            raise UserError(f"{server} refused {one.key!r} ({said}); {mend}") from None

    def _complete(self, request: Request) -> Completion:
        common: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stop": list(request.stop) or None,
        }
        if request.json_schema is not None:
            named = {"name": "answer", "schema": request.json_schema, "strict": True}
            common["response_format"] = {"type": "json_schema", "json_schema": named}
        if request.chat:
            answer = self._client.chat.completions.create(messages=request.messages, **common)
        else:
            answer = self._client.completions.create(prompt=prompt_text(request.messages), **common)
        if not getattr(answer, "choices", None):
            raise UserError(
                f"{self._settings.base_url} gave {request.key!r} no answer; check that engine.base_url ends as"
                " the server expects (often /v1)"
            )
        choice = answer.choices[0]
        text = (choice.message.content if request.chat else choice.text) or ""
        usage = answer.usage
        return Completion(
            text=text,
            num_tokens=usage.completion_tokens if usage else 0,
            num_prompt_tokens=usage.prompt_tokens if usage else 0,
            finish_reason="length" if choice.finish_reason == "length" else "stop",
        )

    def _likelihood(self, continuation: Continuation) -> Likelihood | None:
        prompt = prompt_text(continuation.messages)
        answer = self._client.completions.create(
            model=self._model, prompt=prompt + continuation.text, max_tokens=1, temperature=0, echo=True, logprobs=1
        )
        choice = answer.choices[0] if getattr(answer, "choices", None) else None
        scored = choice.logprobs if choice else None
        if scored is None or not scored.text_offset or not choice.text.startswith(prompt + continuation.text):
            return None  # it does not echo
        whole = len(prompt) + len(continuation.text)
        ends = [*scored.text_offset[1:], whole]
        inside = [
            logprob
            for start, end, logprob in zip(scored.text_offset, ends, scored.token_logprobs, strict=True)
            if end > len(prompt) and start < whole and logprob is not None
        ]
        return Likelihood(sum(inside), len(inside), len(continuation.text.encode()))


class _Pace:
    """Lets at most so many requests a minute begin, evenly spaced."""

    def __init__(self, per_minute: int) -> None:
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may begin."""
        if not self._seconds:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._seconds
        time.sleep(max(0.0, turn - time.monotonic()))
