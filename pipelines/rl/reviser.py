"""A frozen reviser beside the training: a model in a process of its own that writes responses anew as critiques say.

The process (`pipelines.rl.reviser_worker`) starts at the first critique, serves the whole run and dies with the one
that started it. It generates at temperature 0, so what was asked before is answered from memory.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from eval.engines import EngineSettings
from eval.processes import die_with_parent
from pipelines.generation import environment_of_one_process

WHERE = "grpo.critique_reward.reviser"


class Reviser:
    """A running reviser, or one that will run when it is first needed.

    Args:
        max_tokens: longest revision.
        log: file for what the process prints.
    """

    def __init__(self, settings: EngineSettings, model: str, adapter: str | None, max_tokens: int, log: Path) -> None:
        self._job = {"engine": settings.model_dump(), "model": model, "adapter": adapter, "max_tokens": max_tokens}
        self._log = log
        self._process: subprocess.Popen | None = None
        self._known: dict[str, str] = {}

    def revise(self, prompts: Sequence[str]) -> list[str | None]:
        """Return what it answers to each prompt, in their order; None where the prompt leaves it no room.

        Raises:
            UserError: its engine refuses, or died.
        """
        asked = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        answers = dict(zip(asked, self._ask(asked), strict=True)) if asked else {}
        self._known |= {prompt: text for prompt, text in answers.items() if text is not None}
        return [self._known.get(prompt) for prompt in prompts]

    def remember(self, prompt: str, revision: str) -> None:
        """Take in an answer it gave in an earlier session of the run."""
        self._known[prompt] = revision

    def close(self) -> None:
        """End the process."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _ask(self, prompts: list[str]) -> list[str | None]:
        if self._process is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "a") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.rl.reviser_worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(),
                    preexec_fn=die_with_parent,
                    start_new_session=True,  # what ends the run by signal lets the step under way come to its end
                )
            self._exchange(self._job)
        return self._exchange(prompts)

    def _exchange(self, message: Any) -> Any:
        with suppress(BrokenPipeError):  # it died: there will be no reply
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            code = self._process.wait()
            raise UserError(
                f"{WHERE}: its engine died (exit code {code}: out of memory?), see {os.path.relpath(self._log)}; mend"
                " its settings and run the same command again: finished steps are kept"
            )
        said = json.loads(line)
        if "refused" in said:
            raise UserError(f"{WHERE}: {said['refused']}")
        return said["reply"]


def _environment() -> dict[str, str]:
    """Return this process's environment without its launcher, with the same threads and only the GPU it trains on."""
    import torch

    environment = environment_of_one_process()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = threads  # each training process has a reviser
    if torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = devices[torch.cuda.current_device()]
    return environment
