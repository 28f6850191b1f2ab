"""A server of agents for tests: it speaks OpenAI's protocol and answers with JSON drawn at random from the schema."""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AgentServer(ThreadingHTTPServer):
    """Answers alike to alike requests; `cut` tells which prompts get broken JSON at their first try."""

    daemon_threads = True

    def __init__(self, cut=lambda asked: False, seconds: float = 0.0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cut, self.seconds = cut, seconds
        self.seen: list[dict] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(asked)
        threading.Event().wait(self.server.seconds)
        chance = random.Random(json.dumps([asked["seed"], asked["messages"]]))
        wanted = asked.get("response_format")
        if wanted:
            schema = wanted["json_schema"]["schema"]
            text = json.dumps(instance(schema, schema.get("$defs", {}), chance))
            text = text[: len(text) // 2] if self.server.cut(asked) else text
        else:
            text = f"The answer is {chance.choice([18, 3, 57])}"
        body = json.dumps(
            {
                **{"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"]},
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given):
        pass


def instance(schema: dict[str, Any], shared: dict[str, Any], chance: random.Random) -> Any:
    """Draw an instance of a JSON Schema of the kinds that pydantic makes of our models."""
    if "$ref" in schema:
        return instance(shared[schema["$ref"].rpartition("/")[2]], shared, chance)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema["type"]:
        case "object":
            return {name: instance(inner, shared, chance) for name, inner in schema["properties"].items()}
        case "array":
            number = chance.randint(schema.get("minItems", 0), schema["maxItems"])
            return [instance(schema["items"], shared, chance) for _ in range(number)]
        case "integer":
            return chance.randint(schema["minimum"], schema["maximum"])
        case "string":
            return f"text {chance.randint(0, 999)}"[: schema["maxLength"]]
    raise ValueError(schema)
