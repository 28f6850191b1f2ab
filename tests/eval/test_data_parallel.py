"""Two vLLM engines in processes of their own that share the requests."""

import os
import signal
import threading
import time

import pytest

from data_recipes.errors import UserError
from eval.engines import Continuation, EngineSettings, Request, open_engine

pytestmark = pytest.mark.slow


def test_two_copies_share_the_requests_and_one_that_dies_is_named(model_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    common = {"dtype": "float32", "max_model_len": 256, "max_num_seqs": 8}
    engine = open_engine(EngineSettings(data_parallel_size=2, **common), model_folder)
    other = open_engine(EngineSettings(type="transformers", **common), model_folder)
    requests = [Request(f"c{i}", [{"role": "user", "content": f"What is {i} + 2?"}], 12) for i in range(9)]
    ours = {request.key: completion.text for request, completion in engine.generate(requests)}
    theirs = {request.key: completion.text for request, completion in other.generate(requests)}
    assert ours.keys() == theirs.keys() and sum(ours[key] == theirs[key] for key in ours) >= 8
    wanted = [Continuation(f"l{i}", [{"role": "user", "content": f"What is {i} + 2?"}], f"{i + 2}") for i in range(3)]
    measured = {one.key: likelihood.logprob for one, likelihood in engine.logprobs(wanted)}
    assert measured == pytest.approx({one.key: like.logprob for one, like in other.logprobs(wanted)}, abs=1e-3)
    engine.load_weights(model_folder)
    with pytest.raises(UserError, match="engine.max_model_len 256"):
        list(engine.generate([Request("long", [{"role": "user", "content": "x " * 400}], 8)]))

    engine = open_engine(EngineSettings(data_parallel_size=2, **common), model_folder)
    victim = engine._processes[1].pid
    threading.Timer(3, lambda: os.kill(victim, signal.SIGKILL)).start()
    start = time.monotonic()
    story = [Request(f"s{i}", [{"role": "user", "content": "Tell a long story."}], 200) for i in range(40)]
    with pytest.raises(UserError, match="copy 2 of data_parallel_size 2 died"):
        list(engine.generate(story))
    assert time.monotonic() - start < 60, "nobody waits for an answer that cannot come"
