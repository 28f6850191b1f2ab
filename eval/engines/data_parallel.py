"""Several vLLM engines in processes of their own, each on its own GPUs, that share the requests.

Every engine gets every n-th request and sends each completion as soon as it is finished. The processes die with this
one, and one that fails ends the call with its own words: nobody waits for an answer that cannot come.
"""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from data_recipes.errors import UserError
from eval.engines import Completion, Continuation, EngineSettings, Likelihood, Request
from eval.processes import die_with_parent


class DataParallelEngine:
    """``data_parallel_size`` copies of one model; see `eval.engines.Engine`."""

    stops_after = True

    def __init__(
        self, settings: EngineSettings, model: str, adapter: str | None = None, lora_ranks: list[int] | None = None
    ) -> None:
        copies = settings.data_parallel_size
        single = settings.model_copy(update={"data_parallel_size": 1})
        context = multiprocessing.get_context("spawn")
        self._workers: list[Connection] = []
        self._processes = []
        for number in range(copies):
            ours, theirs = context.Pipe()
            arguments = (theirs, single, model, adapter, lora_ranks or [], _environment(number, settings))
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._workers.append(ours)
            self._processes.append(process)
        self._all_say("ready")

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Yield each request with its completion as soon as that is finished."""
        return self._shared("generate", list(requests))

    def logprobs(self, continuations: Iterable[Continuation]) -> Iterator[tuple[Continuation, Likelihood]]:
        """Yield the continuations that fit the model's length with their likelihoods."""
        return self._shared("logprobs", list(continuations))

    def load_weights(self, model: str, adapter: str | None = None) -> None:
        """Go on with other weights in every copy."""
        for worker in self._workers:
            worker.send(("load_weights", (model, adapter)))
        self._all_say("done")

    def _shared(self, what: str, asked: list[Any]) -> Iterator[tuple[Any, Any]]:
        copies = len(self._workers)
        for number, worker in enumerate(self._workers):
            worker.send((what, asked[number::copies]))
        busy = set(self._workers)
        while busy:
            for worker in wait(list(busy)):
                kind, value = self._received(worker)
                if kind == "done":
                    busy.discard(worker)
                else:
                    yield value

    def _all_say(self, word: str) -> None:
        for worker in self._workers:
            kind, _ = self._received(worker)
            assert kind == word, kind

    def _received(self, worker: Connection) -> tuple[str, Any]:
        try:
            kind, value = worker.recv()
        except EOFError:
            number = self._workers.index(worker)
            self._processes[number].join(5)
            code = self._processes[number].exitcode
            raise UserError(
                f"engine: copy {number + 1} of data_parallel_size {len(self._workers)} died (exit code {code}: out of"
                " memory?); lower gpu_memory_utilization, kv_cache_gb or data_parallel_size and run the same command"
                " again: finished work is kept"
            ) from None
        if kind == "refused":
            raise UserError(value)
        return kind, value


def _environment(number: int, settings: EngineSettings) -> dict[str, str]:
    """Return what tells copy `number` which GPUs, or how many of the CPU's threads, are its own."""
    each = settings.tensor_parallel_size
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(each * settings.data_parallel_size)]
    threads = max(1, (os.cpu_count() or 1) // settings.data_parallel_size)
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(devices[number * each : (number + 1) * each]),
        "OMP_NUM_THREADS": str(threads),
    }


def _serve(
    pipe: Connection,
    settings: EngineSettings,
    model: str,
    adapter: str | None,
    lora_ranks: list[int],
    environment: dict[str, str],
) -> None:
    die_with_parent()
    os.environ.update(environment)
    try:
        from eval.engines.vllm import VLLMEngine

        engine = VLLMEngine(settings, model, adapter, max(lora_ranks, default=0))
        pipe.send(("ready", None))
        while True:
            what, asked = pipe.recv()
            if what == "load_weights":
                engine.load_weights(*asked)
            else:
                for answer in getattr(engine, what)(asked):
                    pipe.send(("answer", answer))
            pipe.send(("done", None))
    except UserError as error:
        pipe.send(("refused", str(error)))
    except EOFError:
        pass  # the run is over
