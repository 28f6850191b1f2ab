"""One real vLLM engine for every test that needs one: generation, swapped weights, the harness, resuming."""

import json
import shutil

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.engines import EngineSettings, Request, open_engine
from eval.harness import Contestant, Item, evaluate
from eval.leaderboard.build import findings

QUESTIONS = [f"What is {a} + {b}? Answer with the number only." for a in range(1, 5) for b in range(1, 4)]


def a_row(number: int, question: str, task: str) -> Row:
    turns = [Message(role="user", content=question), Message(role="assistant", content="5")]
    return Row(id=f"r{number}", task=task, kind="domain", messages=turns, answer="5", verifiers=["number"])


ROWS = [a_row(i, question, ("sum", "other")[i % 2]) for i, question in enumerate(QUESTIONS)]
ITEMS = [Item("heldout", 8, row) for row in ROWS]


@pytest.fixture(scope="module")
def engine(model_folder):
    return open_engine(EngineSettings(dtype="float32", max_model_len=256, max_num_seqs=16), model_folder)


def asked(temperature: float = 0.0, max_tokens: int = 12) -> list[Request]:
    return [
        Request(row.id, row.prompt, max_tokens=max_tokens, temperature=temperature, seed=i)
        for i, row in enumerate(ROWS)
    ]


def texts(engine, requests: list[Request]) -> dict[str, str]:
    return {request.key: completion.text for request, completion in engine.generate(requests)}


def test_greedy_completions_are_those_of_transformers(engine, model_folder):
    other = open_engine(EngineSettings(type="transformers", dtype="float32"), model_folder)
    ours, theirs = texts(engine, asked()), texts(other, asked())
    assert ours.keys() == theirs.keys() == {row.id for row in ROWS}
    assert sum(ours[key] == theirs[key] for key in ours) >= len(ours) - 1, "float32 sums differ in their last bits"


def test_seeds_fix_samples_and_different_seeds_differ(engine):
    first, again = texts(engine, asked(1.0)), texts(engine, asked(1.0))
    assert sum(first[key] == again[key] for key in first) >= len(first) - 1
    one_question = [Request(f"s{i}", ROWS[0].prompt, 12, temperature=1.0, seed=i) for i in range(8)]
    assert len(set(texts(engine, one_question).values())) > 1


def test_lengths_and_cut_off_answers_are_told(engine):
    story = [Request("story", [{"role": "user", "content": "Tell a long story."}], max_tokens=5)]
    ((_, completion),) = engine.generate(story)
    assert (completion.num_tokens, completion.finish_reason) == (5, "length")
    with pytest.raises(UserError, match="engine.max_model_len 256"):
        list(engine.generate([Request("long", [{"role": "user", "content": "x " * 400}], max_tokens=5)]))


def test_other_weights_in_the_running_engine_change_what_it_says(engine, model_folder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    before = texts(engine, asked())
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    weights = load_file(other / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in weights:
        if "mlp.down_proj" in name:
            weights[name] = weights[name] + 0.05 * torch.randn(weights[name].shape, generator=generator)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    engine.load_weights(str(other))
    assert texts(engine, asked()) != before
    engine.load_weights(model_folder)
    assert texts(engine, asked()) == before


def run(engine, folder, contestants, items=ITEMS):
    evaluate(
        contestants,
        items,
        folder,
        engine_for=lambda model: engine,
        examples=lambda task, k: [row for row in ROWS if row.task == task][:k],
        constants={"sum": "5", "other": "6"},
        seed=0,
    )
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/results.json")}


def test_a_torn_run_goes_on_with_the_stored_completions(engine, tmp_path):
    base = Contestant("base", "m")
    whole = run(engine, tmp_path / "whole", [base])["base"]
    run(engine, tmp_path / "torn", [base])
    path = tmp_path / "torn" / "base" / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])  # as kill -9 in the middle of a write leaves it
    resumed = run(engine, tmp_path / "torn", [base])["base"]
    now = path.read_text().splitlines()
    assert now[:5] == lines[:5], "stored completions are kept as they were"
    assert sorted(json.loads(line)["id"] for line in now) == sorted(row.id for row in ROWS), "none missing, none twice"
    assert resumed["sessions"] == 2 and whole["sessions"] == 1
    flipped = sum(
        whole["scores"][task][item] != score
        for task, items in resumed["scores"].items()
        for item, score in items.items()
    )
    assert flipped <= 1, "batching may change a token; the verdicts it flips are bounded"
    untouched = path.read_bytes()
    run(engine, tmp_path / "torn", [base])
    assert path.read_bytes() == untouched, "a finished run generates nothing"


def test_the_constant_answer_needs_no_model_and_examples_come_before_the_question(engine, tmp_path):
    constant, shots = (
        Contestant("most frequent answer", None, constant=True),
        Contestant("2 examples", "m", num_examples=2),
    )
    results = run(engine, tmp_path, [constant, shots])
    assert results["most-frequent-answer"]["scores"]["sum"] == {row.id: 1.0 for row in ROWS if row.task == "sum"}
    assert set(results["most-frequent-answer"]["scores"]["other"].values()) == {0.0}
    sample = json.loads((tmp_path / "2-examples" / "samples.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in sample["prompt"]] == ["user", "assistant"] * 2 + ["user"]


def test_completions_to_other_questions_are_not_mixed(engine, tmp_path):
    run(engine, tmp_path, [Contestant("base", "m")])
    with pytest.raises(UserError, match="holds completions to other questions or settings"):
        run(engine, tmp_path, [Contestant("base", "m")], ITEMS[:3])


def test_findings_say_what_the_paired_intervals_support():
    class Line:
        def __init__(self, name, value, is_baseline):
            self.name, self.is_baseline = name, is_baseline
            self.means = {"heldout": type("Cell", (), {"value": value})()}

    lines = [Line("base", 7, True), Line("base, 3 examples", 9, True), Line("SFT", 30, False), Line("GRPO", 31, False)]
    differences = {"heldout": {("SFT", "base, 3 examples"): (21.0, 5.0), ("GRPO", "SFT"): (1.0, 2.0)}}
    gain, rl = findings(lines, {"heldout": ["a", "b"]}, differences)
    assert "SFT is better than “base, 3 examples”, the best baseline: +21.0 ± 5.0" in gain
    assert "GRPO is not distinguishable from “SFT”" in rl
