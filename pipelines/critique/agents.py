"""Asking agents: every answer is kept, what doesn't fit its schema is asked again, budgets end it cleanly.

An answer is found again by what was asked and of whom, so a run that was killed asks only what was under way. Agents on
servers are asked at the same time; those of this process one after another, by one engine where weights fit.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from pydantic import BaseModel, ValidationError

from data_recipes.errors import UserError
from data_recipes.files import JsonlLog, fingerprint
from data_recipes.progress import track
from eval.engines import Engine, EngineSettings, Request, open_engine
from pipelines.critique.sections import AgentSection, BudgetSection
from pipelines.experiment import Experiment
from pipelines.one_engine import one_engine


@dataclass(frozen=True)
class Ask:
    """One thing that an agent is asked."""

    key: str
    """Names it among all of the run: step, item, agent, number."""
    agent: str
    prompt: str
    max_tokens: int
    answer: type[BaseModel] | None = None
    """What the answer has to be, as JSON; None: any text."""


class Agents:
    """The agents of a run, and all they have answered.

    Args:
        seed: of the run; every request and every further try has one of its own.
    """

    def __init__(
        self, agents: dict[str, AgentSection], experiment: Experiment, folder: Path, retries: int, budget: BudgetSection
    ) -> None:
        self._agents, self._experiment, self._retries = agents, experiment, retries
        self._log = JsonlLog(folder / "requests.jsonl")
        self._kept = {line["mark"]: line for line in self._log.rows}
        self._log.rows.clear()  # once is enough
        self.spent = Spent(budget, self._kept.values())
        self.answers: dict[str, dict[str, int]] = {}
        """By step: how many were asked, valid under their schema at the first try, and never valid."""
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._local: dict[str, Callable[[str, str | None], Engine]] = {}
        self._servers: dict[str, Engine] = {}

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def ask(self, asks: Sequence[Ask], what: str) -> dict[str, Any]:
        """Return {key: answer} of those that were answered: an instance of what was wanted, or a text.

        Raises:
            UserError: a budget is used up, or an agent cannot be asked; all answers until then are kept.
        """
        found: dict[str, Any] = {}
        waiting = list(asks)
        for attempt in range(self._retries + 1):
            requests = {one.key: self._request(one, attempt) for one in waiting}
            missing = [one for one in waiting if self._mark(one, requests[one.key]) not in self._kept]
            if missing:
                self._ask_missing(missing, requests, attempt, what if attempt == 0 else f"{what}, try {attempt + 1}")
            waiting = [
                one for one in waiting if not self._reads(one, self._kept[self._mark(one, requests[one.key])], found)
            ]
            if attempt == 0:
                self.answers[what] = {"asked": len(asks), "valid at first": len(asks) - len(waiting)}
        self.answers[what]["never valid"] = len(waiting)
        return found

    def _ask_missing(self, missing: Sequence[Ask], requests: dict[str, Request], attempt: int, label: str) -> None:
        self._stop.clear()
        if not self.spent.over:
            for one, request, line in track(self._answers(missing, requests), label, len(missing)):
                self._keep(one, request, attempt, line)
                if self.spent.over:
                    self._stop.set()  # nothing new is asked, but what is under way is worth keeping
        if self.spent.over and any(self._mark(one, requests[one.key]) not in self._kept for one in missing):
            raise UserError(self.spent.over)

    def _request(self, ask: Ask, attempt: int) -> Request:
        agent = self._agents[ask.agent]
        system = [{"role": "system", "content": agent.system}] if agent.system else []
        return Request(
            key=ask.key,
            messages=[*system, {"role": "user", "content": ask.prompt}],
            max_tokens=ask.max_tokens * (attempt + 1),
            temperature=agent.temperature if attempt == 0 else max(agent.temperature, 0.7),
            seed=int(fingerprint([self._experiment.seed, ask.key, attempt]), 16) % 2**31,
            json_schema=ask.answer.model_json_schema() if ask.answer else None,
            must_fit=False,
        )

    def _mark(self, ask: Ask, request: Request) -> str:
        """Return what is the same where the same was asked of the same agent."""
        agent = self._agents[ask.agent]
        engine = agent.engine or self._experiment.engine
        who = [agent.model or self._experiment.model, agent.adapter, engine.type, engine.base_url, engine.chat_template]
        asked = [request.messages, request.max_tokens, request.temperature, request.seed, request.json_schema]
        return fingerprint([who, asked])

    def _keep(self, ask: Ask, request: Request, attempt: int, line: dict[str, Any]) -> None:
        prices = self._agents[ask.agent].dollars_per_million_tokens
        dollars = (line["num_prompt_tokens"] * prices[0] + line["num_tokens"] * prices[1]) / 1e6
        line = {"key": ask.key, "agent": ask.agent, "attempt": attempt, **line, "dollars": dollars}
        line["mark"] = self._mark(ask, request)
        self._kept[line["mark"]] = line
        self._log.append(line)
        self._log.rows.clear()
        self.spent.add(line)

    @staticmethod
    def _reads(ask: Ask, line: dict[str, Any], found: dict[str, Any]) -> bool:
        """Put the answer into `found` and return whether there is one."""
        if line["finish_reason"] == "no_room":
            return False
        if ask.answer is None:
            found[ask.key] = line["text"]
            return True
        try:
            found[ask.key] = ask.answer.model_validate_json(line["text"])
        except ValidationError:
            return False
        return True

    def _answers(
        self, asks: Sequence[Ask], requests: dict[str, Request]
    ) -> Iterator[tuple[Ask, Request, dict[str, Any]]]:
        """Yield what was asked with the answer's line, those of servers as they come."""
        by_agent: dict[str, list[Ask]] = {}
        for one in asks:
            by_agent.setdefault(one.agent, []).append(one)
        remote = [name for name in by_agent if self._engine_of(name).type == "openai"]
        local = [name for name in by_agent if name not in remote]
        yield from self._from_servers({name: by_agent[name] for name in remote}, requests)
        for name in local:
            if self._stop.is_set():
                return
            yield from self._from(self._local_engine(name), by_agent[name], requests)

    def _from(
        self, engine: Engine, asks: Sequence[Ask], requests: dict[str, Request]
    ) -> Iterator[tuple[Ask, Request, dict[str, Any]]]:
        by_key = {one.key: one for one in asks}
        before = time.monotonic()
        for request, completion in engine.generate([requests[key] for key in by_key]):
            now = time.monotonic()
            yield (
                by_key[request.key],
                request,
                {
                    "text": completion.text.encode(errors="replace").decode(),
                    "num_tokens": completion.num_tokens,
                    "num_prompt_tokens": completion.num_prompt_tokens,
                    "finish_reason": completion.finish_reason,
                    "seconds": round(now - before, 4),
                },
            )
            if self._stop.is_set():
                return
            before = time.monotonic()

    def _from_servers(
        self, by_agent: dict[str, list[Ask]], requests: dict[str, Request]
    ) -> Iterator[tuple[Ask, Request, dict[str, Any]]]:
        """Ask every server from a thread of its own; what it says goes through one queue to whoever keeps it."""
        if not by_agent:
            return
        queue: Queue[Any] = Queue()

        def run(name: str) -> None:
            try:
                for answered in self._from(self._server(name), by_agent[name], requests):
                    queue.put(answered)
            except BaseException as error:  # for the main thread to raise
                queue.put(error)
                self._stop.set()
            queue.put(None)

        with ThreadPoolExecutor(len(by_agent)) as pool:
            for name in by_agent:
                pool.submit(run, name)
            running, failures = len(by_agent), []
            while running:
                answered = queue.get()
                if answered is None:
                    running -= 1
                elif isinstance(answered, BaseException):
                    failures.append(answered)  # what the others answer until they notice is still kept
                else:
                    yield answered
        if failures:
            raise failures[0]

    def _engine_of(self, name: str) -> EngineSettings:
        return self._agents[name].engine or self._experiment.engine

    def _server(self, name: str) -> Engine:
        with self._lock:
            if name not in self._servers:
                model = self._agents[name].adapter or self._agents[name].model or self._experiment.model
                self._servers[name] = open_engine(self._engine_of(name), model)
            return self._servers[name]

    def _local_engine(self, name: str) -> Engine:
        agent, settings = self._agents[name], self._engine_of(name)
        key = fingerprint(settings.model_dump())
        if key not in self._local:
            same = [one for other, one in self._agents.items() if self._engine_of(other) == settings]
            self._local[key] = one_engine(settings, [one.adapter for one in same if one.adapter])
        return self._local[key](agent.model or self._experiment.model, agent.adapter)


class Spent:
    """What the agents have used up over all sessions, against its limits."""

    def __init__(self, budget: BudgetSection, lines: Any) -> None:
        self._budget = budget
        self.tokens, self.dollars, self.seconds = 0, 0.0, 0.0
        for line in lines:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """Count an answer."""
        self.tokens += line["num_tokens"] + line["num_prompt_tokens"]
        self.dollars += line["dollars"]
        self.seconds += line["seconds"]

    @property
    def over(self) -> str:
        """The sentence that says which limit is reached; empty while none is."""
        used = {"tokens": self.tokens, "dollars": self.dollars, "minutes": self.seconds / 60}
        for name, value in used.items():
            limit = getattr(self._budget, name)
            if limit is not None and value >= limit:
                return (
                    f"multicritique.budget.{name}: {value:.6g} of {limit:.6g} are used up; what was answered is kept:"
                    " raise it and run the same command again"
                )
        return ""
