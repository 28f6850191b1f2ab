"""One real vLLM engine for every test that needs one: generation, likelihoods, other weights, harness, resuming."""

import json
import shutil
from dataclasses import replace
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.benchmarks import BenchmarkSettings, Item
from eval.engines import Continuation, EngineSettings, Request, open_engine
from eval.harness import Benchmark, Contestant, Helpers, Shard, evaluate
from eval.run_folder import read_samples

QUESTIONS = [f"What is {a} + {b}? Answer with the number only." for a in range(1, 5) for b in range(1, 4)]


def a_row(number: int, question: str, task: str) -> Row:
    turns = [Message(role="user", content=question), Message(role="assistant", content="5")]
    return Row(id=f"r{number}", task=task, kind="domain", messages=turns, answer="5", verifiers=["number"])


ROWS = [a_row(i, question, ("sum", "other")[i % 2]) for i, question in enumerate(QUESTIONS)]


class Asked:
    """A benchmark of the rows above, as a module would define it."""

    HEADLINE = "macro"


def a_benchmark(rows=ROWS, module=Asked, **settings) -> Benchmark:
    given = {"type": "heldout", "max_tokens": 8, "bits_per_byte": False, **settings}
    return Benchmark(BenchmarkSettings(**given), module, [Item(row) for row in rows])


class Guess(BaseModel):
    """An answer of a fixed form."""

    model_config = ConfigDict(extra="forbid")
    word: Literal["low", "high"]
    number: int = Field(ge=3, le=17)
    why: str = Field(max_length=20)


@pytest.fixture(scope="module")
def engine(model_folder):
    return open_engine(EngineSettings(dtype="float32", max_model_len=256, max_num_seqs=16), model_folder)


@pytest.fixture(scope="module")
def transformers_engine(model_folder):
    return open_engine(EngineSettings(type="transformers", dtype="float32", max_model_len=256), model_folder)


def asked(temperature: float = 0.0, max_tokens: int = 12, **options) -> list[Request]:
    return [
        Request(row.id, row.prompt, max_tokens=max_tokens, temperature=temperature, seed=i, **options)
        for i, row in enumerate(ROWS)
    ]


def texts(engine, requests: list[Request]) -> dict[str, str]:
    return {request.key: completion.text for request, completion in engine.generate(requests)}


def test_greedy_completions_are_those_of_transformers(engine, transformers_engine):
    ours, theirs = texts(engine, asked()), texts(transformers_engine, asked())
    assert ours.keys() == theirs.keys() == {row.id for row in ROWS}
    assert sum(ours[key] == theirs[key] for key in ours) >= len(ours) - 1, "float32 sums differ in their last bits"


def test_seeds_fix_samples_and_different_seeds_differ(engine):
    first, again = texts(engine, asked(1.0)), texts(engine, asked(1.0))
    assert sum(first[key] == again[key] for key in first) >= len(first) - 1
    one_question = [Request(f"s{i}", ROWS[0].prompt, 12, temperature=1.0, seed=i) for i in range(8)]
    assert len(set(texts(engine, one_question).values())) > 1


def test_lengths_and_cut_off_answers_are_told(engine, transformers_engine):
    story = [Request("story", [{"role": "user", "content": "Tell a long story."}], max_tokens=5)]
    long = Request("long", [{"role": "user", "content": "x " * 400}], max_tokens=5)
    for one in (engine, transformers_engine):
        ((_, completion),) = one.generate(story)
        assert (completion.num_tokens, completion.finish_reason) == (5, "length")
        with pytest.raises(UserError, match="engine.max_model_len 256"):
            list(one.generate([long]))
        ((_, completion),) = one.generate([replace(long, must_fit=False)])
        assert (completion.text, completion.finish_reason) == ("", "no_room")


def test_a_completion_follows_its_json_schema_without_white_space(engine, transformers_engine):
    schema = Guess.model_json_schema()
    requests = asked(temperature=1.0, max_tokens=60, json_schema=schema)
    for text in texts(engine, requests).values():
        guess = Guess.model_validate_json(text)
        assert 3 <= guess.number <= 17 and ": " in text and "\n" not in text
    with pytest.raises(UserError, match="cannot hold a model to a JSON schema; set it to vllm or openai"):
        texts(transformers_engine, requests)


def test_plain_prompts_go_without_a_template_and_end_before_or_after_stop_strings(engine, transformers_engine):
    plain = [{"role": "user", "content": "The capital of France is Paris. The capital of Italy is"}]
    wanted = [
        Request("before", plain, 20, chat=False, stop=(".", "Question:")),
        Request("after", plain, 20, chat=False, stop=("Question:",), stop_after=("Rome.",)),
        Request("both", plain, 20, chat=False, stop=("Rome",), stop_after=("Rome.",)),
    ]
    for one in (engine, transformers_engine):
        completions = {request.key: completion for request, completion in one.generate(wanted)}
        assert {key: c.text for key, c in completions.items()} == {"before": " Rome", "after": " Rome.", "both": " "}
        assert {c.finish_reason for c in completions.values()} == {"stop"}
        assert completions["after"].num_prompt_tokens == 12, "no template was put around it"


@pytest.mark.parametrize("forces", [True, False])
def test_likelihoods_are_those_of_transformers(engine, transformers_engine, forces, monkeypatch):
    plain = [{"role": "user", "content": "The capital of France is Paris. The capital of Italy is"}]
    question = [{"role": "user", "content": "What is the capital of Italy?"}]
    wanted = [
        Continuation("plain", plain, " Rome", chat=False),
        Continuation("wrong", plain, " Quito", chat=False),
        Continuation("inside a word", [{"role": "user", "content": "The capital of Italy is Ro"}], "me", chat=False),
        Continuation("chat", question, "The capital is Rome, né Röma.", chat=True),
        Continuation("too long", question, "Rome " * 300),
    ]
    monkeypatch.setattr(engine, "_forces", forces)
    ours = {one.key: likelihood for one, likelihood in engine.logprobs(wanted)}
    theirs = {one.key: likelihood for one, likelihood in transformers_engine.logprobs(wanted)}
    assert ours.keys() == theirs.keys() == {"plain", "wrong", "inside a word", "chat"}
    for key, likelihood in ours.items():
        assert likelihood.logprob == pytest.approx(theirs[key].logprob, abs=1e-3)
        assert (likelihood.num_tokens, likelihood.num_bytes) == (theirs[key].num_tokens, theirs[key].num_bytes)
    assert ours["plain"].bits_per_byte < ours["wrong"].bits_per_byte
    assert ours["chat"].num_bytes == len("The capital is Rome, né Röma.".encode())


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


def test_an_adapter_in_the_running_engine_answers_as_it_does_in_transformers(engine, model_folder, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config).save_pretrained(tmp_path / "adapter")
    before = texts(engine, asked())
    engine.load_weights(model_folder, str(tmp_path / "adapter"))
    ours = texts(engine, asked())
    settings = EngineSettings(type="transformers", dtype="float32")
    theirs = texts(open_engine(settings, model_folder, str(tmp_path / "adapter")), asked())
    assert ours != before and sum(ours[key] == theirs[key] for key in ours) >= len(ours) - 1
    engine.load_weights(model_folder)
    assert texts(engine, asked()) == before


def run(engine, folder, contestants, benchmarks=None, shard=None):
    examples = {task: [row for row in ROWS if row.task == task] for task in ("sum", "other")}
    helpers = Helpers(
        engine_for=lambda contestant: engine,
        examples=lambda task, k: examples[task][:k] if task in examples else None,
        constants={"sum": "5", "other": "6"},
    )
    evaluate(contestants, benchmarks or [a_benchmark()], folder, helpers, seed=0, shard=shard)
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/results.json")}


def scores(result, label="heldout"):
    return {item: score for items in result["benchmarks"][label]["scores"].values() for item, score in items.items()}


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
    before, after = scores(whole), scores(resumed)
    flipped = sum(before[item] != after[item] for item in before)
    assert flipped <= 1, "batching may change a token; the verdicts it flips are bounded"
    untouched = path.read_bytes()
    run(engine, tmp_path / "torn", [base])
    assert path.read_bytes() == untouched, "a finished run generates nothing"


def test_shards_merge_into_one_run_item_for_item(engine, tmp_path):
    base = Contestant("base", "m")
    whole = run(engine, tmp_path / "whole", [base])["base"]
    for number in (2, 1, 3):
        assert run(engine, tmp_path / "parts", [base], shard=Shard(number, 3)) == {}, "a part is not scored"
    stored = {path.name: path.read_bytes() for path in (tmp_path / "parts" / "base").glob("samples-*")}
    assert len(stored) == 3
    merged = run(engine, tmp_path / "parts", [base])["base"]
    assert stored == {path.name: path.read_bytes() for path in (tmp_path / "parts" / "base").glob("samples-*")}
    assert (tmp_path / "parts" / "base" / "samples.jsonl").read_text() == "", "nothing was left to generate"
    assert scores(merged).keys() == scores(whole).keys()
    assert sum(scores(merged)[item] != score for item, score in scores(whole).items()) <= 1


def test_the_constant_answer_needs_no_model_and_examples_come_before_the_question(engine, tmp_path):
    constant, shots = (
        Contestant("most frequent answer", None, constant=True),
        Contestant("2 examples", "m", num_examples=2),
    )
    unknown = a_row(99, "Of a task with no training rows?", "elsewhere")
    results = run(engine, tmp_path, [constant, shots], [a_benchmark([*ROWS, unknown])])
    of_tasks = results["most-frequent-answer"]["benchmarks"]["heldout"]["scores"]
    assert of_tasks["sum"] == {row.id: 1.0 for row in ROWS if row.task == "sum"}
    assert set(of_tasks["other"].values()) == {0.0} and "elsewhere" not in of_tasks
    sample = json.loads((tmp_path / "2-examples" / "samples.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in sample["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    assert "elsewhere" not in results["2-examples"]["benchmarks"]["heldout"]["scores"]


def test_completions_to_other_questions_are_not_mixed_but_another_benchmark_may_come(engine, tmp_path):
    base = Contestant("base", "m")
    run(engine, tmp_path, [base])
    before = (tmp_path / "base" / "samples.jsonl").read_text()
    with pytest.raises(UserError, match="holds completions to other questions or settings"):
        run(engine, tmp_path, [base], [a_benchmark(ROWS[:3])])
    more = run(engine, tmp_path, [base], [a_benchmark(), a_benchmark(ROWS[:2], name="again", bits_per_byte=True)])[
        "base"
    ]
    assert (tmp_path / "base" / "samples.jsonl").read_text().startswith(before)
    assert len(scores(more, "again")) == 2 and len(scores(more)) == len(ROWS)
    bits = more["benchmarks"]["again"]["bits_per_byte"]
    assert {item for items in bits.values() for item in items} == {"r0", "r1"} and bits["sum"]["r0"] > 0
    with pytest.raises(UserError, match="two are called 'heldout'"):
        run(engine, tmp_path, [base], [a_benchmark(), a_benchmark(ROWS[:2])])


class Rounds:
    """Asks for a second opinion on every answer, once."""

    @staticmethod
    def follow_up(settings, answered):
        if any(one.round for one in answered):
            return []
        return [
            Row(
                id=f"{one.row.id}/{one.sample}/again",
                task="second",
                kind="critique",
                messages=[
                    Message(role="user", content=f"Is {one.completion[:20]!r} right? Judgment: correct or incorrect")
                ],
                answer="correct",
                verifiers=["verdict"],
            )
            for one in answered
        ]


def test_a_second_round_is_asked_after_the_first_and_resumed_with_it(engine, tmp_path):
    benchmark = a_benchmark(ROWS[:3], module=Rounds, num_samples=2, temperature=1.0)
    base = Contestant("base", "m")
    run(engine, tmp_path, [base], [benchmark])
    path = tmp_path / "base" / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["round"] for line in lines] == [0] * 6 + [1] * 12, "each of the six answers is asked about twice"
    asked = [json.loads(line) for line in (tmp_path / "base" / "items.jsonl").read_text().splitlines()]
    assert len(asked) == 6 and {line["round"] for line in asked} == {1}
    kept = path.read_text().splitlines(keepends=True)[:10]
    path.write_text("".join(kept))
    run(engine, tmp_path, [base], [benchmark])
    again = path.read_text().splitlines(keepends=True)
    assert again[:10] == kept and len(again) == 18
    answer = json.loads(kept[0])
    path.write_text("".join([json.dumps({**answer, "completion": "Another answer."}) + "\n", *again[1:]]))
    run(engine, tmp_path, [base], [benchmark])
    assert len(path.read_text().splitlines()) == 20, "what follows another answer is asked again"
    asked = [s for s in read_samples(tmp_path / "base") if s["id"] == f"{answer['id']}/{answer['sample']}/again"]
    assert len(asked) == 2 and all("Another answer." in s["prompt"][0]["content"] for s in asked)


def test_a_torn_shard_is_finished_by_the_whole_run_and_a_refused_run_changes_nothing(engine, tmp_path):
    base = Contestant("base", "m")
    for number in (1, 2):
        run(engine, tmp_path, [base], shard=Shard(number, 2))
    path = tmp_path / "base" / "samples-2-of-2.jsonl"
    torn = path.read_bytes()[:-20]  # as kill -9 in the middle of a write leaves it
    path.write_bytes(torn)
    merged = run(engine, tmp_path, [base])["base"]
    assert set(scores(merged)) == {row.id for row in ROWS} and path.read_bytes() == torn
    assert len((tmp_path / "base" / "samples.jsonl").read_text().splitlines()) == 1
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds completions to other questions"):
        run(engine, tmp_path, [base], [a_benchmark(ROWS[:3])])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
