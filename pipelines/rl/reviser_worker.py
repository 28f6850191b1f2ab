"""`python -m pipelines.rl.reviser_worker`: a model answers prompts that come in over a pipe, in a process of its own.

`pipelines.rl.reviser` starts it. The first line in is the job, every further one a list of prompts, in JSON; every
line out is ``{"reply": ...}``, or ``{"refused": WHY}`` at the end.
"""

import json
import os
import sys
from typing import Any, TextIO

from data_recipes.errors import UserError
from eval.engines import Engine, EngineSettings, Request, open_engine


def answers(engine: Engine, prompts: list[str], max_tokens: int) -> list[str | None]:
    """Return the most probable answer to each prompt, None where the model's length leaves it no room."""
    requests = [
        Request(str(number), [{"role": "user", "content": prompt}], max_tokens, must_fit=False)
        for number, prompt in enumerate(prompts)
    ]
    found = {request.key: completion for request, completion in engine.generate(requests)}
    in_order = [found[request.key] for request in requests]
    return [None if one.finish_reason == "no_room" else one.text for one in in_order]


def _serve(lines: TextIO, replies: TextIO) -> None:
    def reply(**said: Any) -> None:
        print(json.dumps(said), file=replies, flush=True)

    try:
        job = json.loads(next(lines))
        engine = open_engine(EngineSettings.model_validate(job["engine"]), job["model"], job["adapter"])
        reply(reply="ready")
        for line in lines:
            reply(reply=answers(engine, json.loads(line), job["max_tokens"]))
    except UserError as error:
        reply(refused=str(error))


if __name__ == "__main__":
    answering = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints is no reply
    _serve(sys.stdin, answering)
