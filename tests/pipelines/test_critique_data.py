"""500 questions answered by the real model through vLLM: classes balanced, every label rechecked by other scorers."""

import json
import re
import time
from collections import Counter

import pytest
import reasoning_gym

from data_recipes.files import read_json, read_jsonl
from pipelines.critique.from_verifiers import make_critiques
from pipelines.experiment import load_experiment

TASKS = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 60},
}
RECIPE = """
cleaning: {decontaminate: exact, protect: heldout}
tasks:
  chain_sum:
    kind: domain
    source: {type: reasoning_gym, dataset: chain_sum, seed: 1, config: CHAIN_SUM}
    prompt: "What is {{ metadata.expression }}? Answer with the number only."
    working: "{{ metadata.expression }} = {{ answer }}"
    verifiers: [number]
    train_rows: 260
    heldout_rows: 20
  gcd:
    kind: domain
    source: {type: reasoning_gym, dataset: gcd, seed: 2, config: GCD}
    prompt: "{{ question }} Answer with the number only."
    verifiers: [number]
    train_rows: 260
    heldout_rows: 20
"""
CRITIQUE = {
    **{"tasks": list(TASKS), "num_questions": 250, "num_samples": 6, "num_examples": 3, "max_tokens": 24},
    **{"train_rows": 240, "heldout_rows": 16, "corrections": True},
}


def says(response: str) -> str | None:
    """Return the number that a response ends with: a reader of the test's own, simpler than the verifier."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", response.split("\n\nQuestion")[0])
    return found[-1].replace(",", "") if found else None


@pytest.mark.slow
def test_labels_of_500_questions_hold_against_reasoning_gyms_own_scorers(small_experiment, model_folder, capfd):
    recipe = RECIPE.replace("CHAIN_SUM", json.dumps(TASKS["chain_sum"])).replace("GCD", json.dumps(TASKS["gcd"]))
    file = small_experiment(f"engine: {{max_model_len: 512}}\ncritique: {json.dumps(CRITIQUE)}\n", recipe=recipe)
    experiment = load_experiment(file)
    start = time.monotonic()
    make_critiques(experiment)
    seconds = time.monotonic() - start
    folder = experiment.run_dir / "critique"
    rows = read_jsonl(folder / "train.jsonl") + read_jsonl(folder / "heldout.jsonl")
    critiques = [row for row in rows if row["task"].startswith("critique/")]
    corrections = [row for row in rows if row["task"].startswith("correction/")]
    account = read_json(folder / "results.json")
    with capfd.disabled():
        print(f"\n{seconds:.0f} s; {json.dumps(account)}")

    for task in TASKS:
        said = Counter(row["answer"] for row in critiques if row["task"] == f"critique/{task}")
        assert said["correct"] == said["incorrect"] > 0
    scorers = {task: reasoning_gym.create_dataset(task, size=1, seed=0, **config) for task, config in TASKS.items()}
    checked = Counter()
    for row in critiques:
        task, gold = row["task"].removeprefix("critique/"), row["meta"]["gold"]
        prompt = row["messages"][0]["content"]
        response = prompt.partition("\n\nResponse: ")[2].partition("\n\nIs the final answer of the response")[0]
        right = scorers[task].score_answer(says(response), {"answer": gold, "metadata": {}}) == 1.0
        assert right == (row["answer"] == "correct"), (response, gold)
        assert row["messages"][-1]["content"].endswith(f"Judgment: {row['answer']}")
        checked[row["answer"]] += 1
    assert len(corrections) == checked["incorrect"], "every wrong answer is also to be corrected"
    for row in corrections:
        target = says(row["messages"][-1]["content"])
        task = row["task"].removeprefix("correction/")
        assert scorers[task].score_answer(target, {"answer": row["answer"], "metadata": {}}) == 1.0
    assert {row["meta"]["certainty_tertile"] for row in critiques} <= {"low", "mid", "high"}
    assert sum(account[f"train/{task}"]["questions"] for task in TASKS) == 500
