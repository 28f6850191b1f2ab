"""The multicritique stage with agents on two servers at once; and (slow) the whole of it through vLLM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl
from data_recipes.row import Row
from pipelines.critique.from_agents import make_critiques_of_agents
from pipelines.experiment import load_experiment
from tests.pipelines.agent_server import AgentServer
from tests.pipelines.sft_runs import ROOT

RECIPE = """
cleaning: {decontaminate: exact, protect: heldout}
tasks:
  critique/sums:
    kind: critique
    source: {type: files, path: responses.jsonl}
    prompt: "Is this right? {{ question }} {{ response }}"
    target: "Judgment: {{ verdict }}"
    question: "{{ question }}"
    answer: "{{ verdict }}"
    verifiers: [verdict]
    meta:
      response: "{{ response }}"
      first_wrong_step: "{{ step or '' }}"
      gold: "{{ gold }}"
      gold_verifiers: number
"""
AGENTS = ("careful", "strict", "kind")


def responses(number: int) -> list[dict]:
    made = []
    for key in range(number):
        wrong = key % 2
        steps = f"Step 1: We add {key} and 3.\nStep 2: {key} + 3 = {key + 3 + wrong}\nAnswer: {key + 3 + wrong}"
        verdict = "incorrect" if wrong else "correct"
        about = {"question": f"What is {key} + 3?", "response": steps, "verdict": verdict}
        made.append({"key": str(key), **about, "step": 2 if wrong else None, "gold": str(key + 3)})
    return made


@pytest.fixture
def experiment_with(small_experiment, tmp_path):
    """Return a function that writes the experiment: agents on servers, by name."""

    def write(urls: dict[str, str], number: int = 8, **more):
        (tmp_path / "responses.jsonl").write_text("".join(json.dumps(one) + "\n" for one in responses(number)))
        engine = {"type": "openai", "max_num_seqs": 4, "max_retries": 1}
        agents = {
            name: {
                "engine": {**engine, "base_url": url},
                "model": f"m-{name}",
                "system": f"You are {name}.",
                "dollars_per_million_tokens": [1.0, 2.0],
            }
            for name, url in urls.items()
        }
        section = {"tasks": ["critique/sums"], "num_items": number, "agents": agents, "revisions": 2, **more}
        return small_experiment(f"multicritique: {json.dumps(section)}\n", recipe=RECIPE)

    return write


def keys_of(run):
    return [(line["key"], line["attempt"]) for line in read_jsonl(run / "multicritique" / "requests.jsonl")]


def test_every_step_from_responses_to_rows_and_pairs(experiment_with, tmp_path):
    servers = [AgentServer(), AgentServer()]
    file = experiment_with(dict(zip(AGENTS, [servers[0].url, servers[1].url, servers[0].url], strict=True)))
    make_critiques_of_agents(load_experiment(file))
    folder = tmp_path / "run" / "multicritique"
    results = read_json(folder / "results.json")
    steps = Counter(key.partition("/")[0] for key, _ in keys_of(tmp_path / "run"))
    assert steps["information"] == 8 and steps["critique"] == 24 and steps["aggregate"] == 8
    assert steps["judgement"] == results["units"] == sum(results["judgements"].values())
    assert all(server.seen for server in servers), "both servers were asked"
    assert all(step["never valid"] == 0 for step in results["answers"].values())

    rows = [Row.model_validate(row) for row in read_jsonl(folder / "train.jsonl")]
    assert rows and len(rows) == results["rows"]
    for row in rows:  # what contradicts the truth is gone
        assert row.target.endswith(f"Judgment: {row.answer}") and row.task == "multicritique/sums"
    pairs = [Row.model_validate(row) for row in read_jsonl(folder / "pairs.jsonl")]
    assert len(pairs) == results["pairs kept by revisions"]
    by_revisions = sum(results[name] for name in results if name.startswith("pairs ") and "before" not in name)
    assert by_revisions == results["pairs before revisions"] > 0
    for pair in pairs:
        assert pair.chosen != pair.rejected and pair.messages[-1].role == "user"

    known = results["known truth"]
    assert set(known) == {*AGENTS, "final critique"}
    for name in AGENTS:
        before, after = known[name]["units"], known[name]["units after the meta-critic"]
        assert before["precision"]["n"] > after["precision"]["n"] and before["recall"]["n"] == after["recall"]["n"] == 4
    trace = (folder / "traces" / "0001.md").read_text()
    assert "## Question" in trace and "Meta-critic: " in trace and "## Final critique" in trace


def test_no_agent_sees_the_truth(experiment_with, tmp_path):
    server = AgentServer()
    file = experiment_with(dict.fromkeys(AGENTS, server.url), number=4)
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps({**one, "gold": "987654"}) + "\n" for one in responses(4)))
    make_critiques_of_agents(load_experiment(file))
    prompts = [turn["content"] for asked in server.seen for turn in asked["messages"]]
    assert any("Step 2: 3 + 3 = 7" in prompt for prompt in prompts)
    assert not any("987654" in prompt or "first_wrong_step" in prompt for prompt in prompts)


def test_an_answer_that_is_cut_off_is_asked_again_and_one_never_valid_is_counted(experiment_with, tmp_path):
    def cut(asked):
        name, prompt = asked["messages"][0]["content"], asked["messages"][-1]["content"]
        first_try = asked["max_tokens"] == 1024
        return "Judge this one" in prompt and (first_try or "strict" in name) and "What is 1 + 3" in prompt

    server = AgentServer(cut)
    file = experiment_with({"kind": server.url, "strict": server.url}, number=4, retries=1)
    make_critiques_of_agents(load_experiment(file))
    tries = Counter(attempt for key, attempt in keys_of(tmp_path / "run") if key.startswith("judgement/"))
    assert tries[1] > 0, "judgements were asked again"
    results = read_json(tmp_path / "run" / "multicritique" / "results.json")
    judgements = results["answers"]["judgements"]
    assert judgements["valid at first"] < judgements["asked"] and judgements["never valid"] == 0
    assert sum(results["judgements"].values()) == results["units"]

    file = experiment_with({"kind": server.url, "strict": server.url}, number=4, retries=1, judge="strict")
    (tmp_path / "run").rename(tmp_path / "first")
    make_critiques_of_agents(load_experiment(file))
    results = read_json(tmp_path / "run" / "multicritique" / "results.json")
    lost = results["answers"]["judgements"]["never valid"]
    assert lost > 0, "a judge that cannot be read gives no score"
    assert sum(results["judgements"].values()) == results["units"] - lost


def test_a_budget_ends_the_stage_and_a_raised_one_goes_on(experiment_with, tmp_path):
    server = AgentServer()
    urls = dict.fromkeys(AGENTS, server.url)
    file = experiment_with(urls, budget={"tokens": 1000})
    with pytest.raises(UserError, match=r"budget\.tokens: 1\d\d\d of 1000 are used up"):
        make_critiques_of_agents(load_experiment(file))
    kept = keys_of(tmp_path / "run")
    assert 25 <= len(kept) <= 25 + 8 * len(AGENTS), "no more than was under way"
    asked = len(server.seen)
    with pytest.raises(UserError, match=r"budget\.tokens"):
        make_critiques_of_agents(load_experiment(file))
    assert len(server.seen) == asked, "with nothing left nothing is asked"
    with pytest.raises(UserError, match=r"budget\.dollars"):
        make_critiques_of_agents(load_experiment(experiment_with(urls, budget={"dollars": 0.0001})))
    raised = experiment_with(urls, budget={"tokens": 10_000_000})
    assert load_experiment(raised).fingerprint_of("multicritique") == load_experiment(file).fingerprint_of(
        "multicritique"
    )
    make_critiques_of_agents(load_experiment(raised))
    counts = Counter(keys_of(tmp_path / "run"))
    assert set(counts.values()) == {1} and set(kept) <= set(counts)


def test_killed_and_run_again_asks_only_what_is_missing(experiment_with, tmp_path):
    server = AgentServer(seconds=0.02)
    file = experiment_with(dict.fromkeys(AGENTS, server.url))
    command = [sys.executable, "-m", "launch.stage", "multicritique", str(file)]
    log = tmp_path / "run" / "multicritique" / "requests.jsonl"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not log.exists() or log.read_bytes().count(b"\n") < 40) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = log.read_bytes().count(b"\n")
    assert kept >= 40
    asked = len(server.seen)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = Counter(keys_of(tmp_path / "run"))
    assert set(counts.values()) == {1}
    in_flight = asked - kept
    assert in_flight <= 8 * len(AGENTS)
    assert len(server.seen) == len(counts) + in_flight, "nothing that was answered is asked again"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judge": "carefull"}, "multicritique: judge: there is no agent 'carefull' (did you mean 'careful'?)"),
        (
            {"tasks": ["critique/sum"]},
            "multicritique.tasks: unknown task 'critique/sum' (did you mean 'critique/sums'?)",
        ),
        ({"revision": 2}, "unknown key 'multicritique.revision' (did you mean 'revisions'?)"),
        ({"budget": {"tokens": 0}}, "multicritique.budget.tokens: Input should be greater than or equal to 1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(experiment_with, change, sentence):
    file = experiment_with({"careful": "http://127.0.0.1:9/v1"}, **change)
    with pytest.raises(UserError) as told:
        load_experiment(file)
    assert sentence in str(told.value)


def test_rows_without_responses_are_told(experiment_with, tmp_path):
    file = experiment_with({"careful": "http://127.0.0.1:9/v1"})
    recipe = (tmp_path / "recipe.yaml").read_text().replace('      response: "{{ response }}"\n', "")
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(UserError, match="no row of critique/sums holds a response to criticise; give the task"):
        make_critiques_of_agents(load_experiment(file))
