"""Rescoring stored completions: failure policies, reasoning, extractions, what a cut completion cannot bear."""

import json

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.benchmarks import BenchmarkSettings
from eval.inspection import Wanted, inspect, judged
from eval.rescoring import rescore
from eval.run_folder import open_run, write_items
from eval.scoring import answered, check_extraction, failure_score, mean_scores, score_contestant, without_reasoning

OPTIONS = ["red", "green", "blue", "none"]


def row(number: int, answer: str = "A", verifier: str = "mmlu_pro", **meta) -> Row:
    turns = [Message(role="user", content=f"Question {number}?")]
    meta = {"options": OPTIONS, **meta}
    return Row(
        id=f"r{number}", task="colours", kind="domain", messages=turns, answer=answer, verifiers=[verifier], meta=meta
    )


def sample(number: int, completion: str, finish_reason: str = "stop", **more) -> dict:
    common = {"benchmark": "b", "task": "colours", "round": 0, "sample": 0, "prompt": row(number).prompt}
    written = {"completion": completion, "num_tokens": 3, "num_prompt_tokens": 5, "finish_reason": finish_reason}
    return {**common, "id": f"r{number}", **written, "seconds": 1.5, "session": 1, **more}


COMPLETIONS = [
    ("The answer is (A). Or: the answer is (B).", "stop"),
    ("Answer: A", "stop"),
    ("I am not sure.", "length"),
    ("<think>the answer is (B)</think> The answer is (A).", "stop"),
]


@pytest.fixture
def run_dir(tmp_path):
    """A finished run of one row, made by hand."""
    folder = tmp_path / "eval" / "base"
    folder.mkdir(parents=True)
    settings = [{"type": "heldout", "name": "b", "extraction": "L2"}]
    (tmp_path / "eval" / "benchmarks.json").write_text(json.dumps(settings))
    write_items(tmp_path / "eval" / "items.jsonl", [("b", 0, row(i)) for i in range(len(COMPLETIONS))])
    (folder / "settings.json").write_text(json.dumps({"name": "base", "seed": 0}))
    lines = [json.dumps(sample(i, *completion)) + "\n" for i, completion in enumerate(COMPLETIONS)]
    (folder / "samples.jsonl").write_text("".join(lines))
    return tmp_path


def scored(run_dir) -> dict[str, float]:
    (result,) = [json.loads(path.read_text()) for path in run_dir.glob("eval/*/results.json")]
    return result["benchmarks"]["b"]["scores"]["colours"]


def test_what_an_unreadable_answer_counts_for():
    assert failure_score("wrong", row(0), "s") == 0
    assert failure_score("expected", row(0), "s") == 0.25
    assert failure_score("expected", row(0, options=[]), "s") == 0, "nothing to guess among"
    guesses = [failure_score("guess", row(0), f"{i}") for i in range(4000)]
    tens = [failure_score("guess-10", row(0), f"{i}") for i in range(4000)]
    assert abs(sum(guesses) / 4000 - 0.25) < 0.03 and abs(sum(tens) / 4000 - 0.1) < 0.02
    assert guesses == [failure_score("guess", row(0), f"{i}") for i in range(4000)], "seeded"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("no tags", "no tags"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>never ended", ""),
        ("x<think>a</think>b<think>c</think>d", "d"),
        ("a</think>b<think>never ended", "b"),
        ("", ""),
    ],
)
def test_reasoning_is_left_out(text, rest):
    assert without_reasoning(text) == rest


def test_a_run_is_scored_under_its_own_settings_then_under_others(run_dir, capsys):
    rescore(run_dir, {})
    assert scored(run_dir) == {"r0": 1, "r1": 1, "r2": 0.25, "r3": 0}
    rescore(run_dir, {"on_failure": "wrong"})
    assert scored(run_dir) == {"r0": 1, "r1": 1, "r2": 0, "r3": 0}
    rescore(run_dir, {"extraction": "L1", "on_failure": "wrong"}, "b")
    assert scored(run_dir) == {"r0": 1, "r1": 0, "r2": 0, "r3": 0}
    rescore(run_dir, {"extraction": "L2-last"})
    assert scored(run_dir) == {"r0": 0, "r1": 1, "r2": 0.25, "r3": 1}
    rescore(run_dir, {"strip_reasoning": True})
    assert scored(run_dir)["r3"] == 1
    assert "micro" in capsys.readouterr().out


def test_counts_tokens_and_shares_are_kept(run_dir):
    run = open_run(run_dir)
    result = score_contestant(run, run.contestants()[0])["benchmarks"]["b"]
    assert result["unparsed"] == {"colours": 1} and result["truncated"] == {"colours": 1}
    assert result["answers"] == {"colours": 4} and (result["num_tokens"], result["seconds"]) == (12, 1.5)


def test_an_unknown_extraction_is_answered_with_the_nearest(run_dir):
    before = (run_dir / "eval" / "base" / "samples.jsonl").read_bytes()
    with pytest.raises(UserError, match="did you mean 'L2-last'"):
        rescore(run_dir, {"extraction": "L2-lst"})
    with pytest.raises(UserError, match="no benchmark 'c'"):
        rescore(run_dir, {}, "c")
    with pytest.raises(UserError, match="nothing has been evaluated here"):
        rescore(run_dir / "eval" / "base", {})
    assert (run_dir / "eval" / "base" / "samples.jsonl").read_bytes() == before


def test_a_completion_cut_at_its_verdict_bears_no_extraction_that_looks_beyond(run_dir):
    settings = [{"type": "heldout", "name": "b", "extraction": "L1", "stop_early": True}]
    (run_dir / "eval" / "benchmarks.json").write_text(json.dumps(settings))
    rescore(run_dir, {"extraction": "L2"})
    with pytest.raises(UserError, match="looks beyond the first match.*L1"):
        rescore(run_dir, {"extraction": "L1-last"})
    early = BenchmarkSettings(type="heldout", stop_early=True)
    with pytest.raises(UserError, match="no verifier here has a finite set of endings"):
        check_extraction(early, [row(0, verifier="number")], "x")


def test_several_samples_of_an_item_are_averaged_and_unjudged_rows_left_out():
    settings = BenchmarkSettings(type="heldout", on_failure="wrong")
    asked = [row(0), row(0), row(1)]
    samples = [sample(0, "The answer is A"), sample(0, "The answer is B", sample=1), sample(1, "The answer is B")]
    answers = [answered(s, r, settings) for s, r in zip(samples, asked, strict=True)]
    unjudged = Row(id="u", task="other", kind="domain", messages=[Message(role="user", content="?")])
    answers.append(answered({**sample(2, "anything"), "id": "u"}, unjudged, settings))
    assert mean_scores(answers) == {"colours": {"r0": 0.5, "r1": 0.0}}


def test_answers_are_shown_by_verdict(run_dir, capsys):
    rescore(run_dir, {})
    run = open_run(run_dir)
    assert [one.row.id for one in judged(run, Wanted(verdicts=("unparsed",)))] == ["r2"]
    assert [one.row.id for one in judged(run, Wanted(verdicts=("wrong", "truncated")))] == ["r2", "r3"]
    capsys.readouterr()
    inspect(run_dir, Wanted(verdicts=("right",)), count=1)
    shown = capsys.readouterr().out
    assert "Question 0?" in shown and "answer read: A" in shown and "Question 1?" not in shown
    with pytest.raises(UserError, match="no row 'bse'.*did you mean 'base'"):
        inspect(run_dir, Wanted(row="bse"))
    with pytest.raises(UserError, match="no task 'colors'.*colours"):
        inspect(run_dir, Wanted(task="colors"))
    with pytest.raises(UserError, match="no such answer"):
        inspect(run_dir, Wanted(), start=100)


def test_control_characters_of_a_completion_do_not_reach_the_terminal(run_dir, capsys):
    path = run_dir / "eval" / "base" / "samples.jsonl"
    path.write_text(json.dumps(sample(0, "\x1b[2J\x07The answer is (A)\u202e[bold]x[/bold]")) + "\n")
    rescore(run_dir, {})
    capsys.readouterr()
    inspect(run_dir, Wanted())
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown and "\x07" not in shown and "\u202e" not in shown and "[bold]x[/bold]" in shown


def damage(name: str, text: str):
    return lambda run_dir: (run_dir / "eval" / name).write_text(text)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage("benchmarks.json", "{"), "benchmarks.json: not valid JSON"),
        (damage("benchmarks.json", "{}"), "not a list of benchmarks"),
        (damage("benchmarks.json", '[{"type": "heldot"}]'), "did you mean 'heldout'"),
        (damage("benchmarks.json", '[{"name": "b"}]'), "unknown benchmark 'None'"),
        (damage("benchmarks.json", '[{"type": "heldout", "extractoin": "L1"}]'), "did you mean 'extraction'"),
        (damage("benchmarks.json", '[{"type": "heldout", "on_failure": "gess"}]'), "on_failure"),
        (damage("items.jsonl", '{"benchmark": "b"}\n'), "items.jsonl, line 1: not a row that was asked"),
        (damage("items.jsonl", '{"benchmark": "b", "round": 0, "id": "x"}\n'), "line 1: not a row that was asked"),
        (damage("items.jsonl", "[]\n"), "items.jsonl, line 1: not a JSON object"),
        (damage("base/settings.json", "nonsense"), "settings.json: not valid JSON"),
        (damage("base/samples.jsonl", '{"id": "r0"}\n'), "samples.jsonl, line 1: no 'benchmark' in it"),
        (damage("base/samples.jsonl", '{"benchmark": "b", "id": "r0", "sample": 0}\n'), "line 1: no 'completion'"),
        (damage("base/samples.jsonl", "{}\n{\n"), "samples.jsonl, line 2: not a JSON object"),
        (damage("base/samples.jsonl", "\x00\n"), "samples.jsonl, line 1: not a JSON object"),
        (damage("base/likelihoods.jsonl", '{"id": "r0"}\n'), "likelihoods.jsonl, line 1: not a likelihood"),
        (damage("base/likelihoods.jsonl", "nonsense\n"), "likelihoods.jsonl, line 1: not a JSON object"),
    ],
)
def test_a_damaged_run_ends_in_one_sentence_and_loses_nothing(run_dir, harm, said):
    harm(run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as error:
        rescore(run_dir, {})
    assert said in str(error.value) and "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "completion",
    ["", " ", "\x00", "\ud800", "A" * 1_000_000, "answer is " * 100_000, "Answer:\n" * 100_000, "(" * 200_000]
    + ["<think>" * 50_000, "\u2028The answer is (C)\u2029", "<script>alert('answer is A')</script>", "the answer is Z"],
)
def test_whatever_a_model_writes_is_scored_or_counted_as_unparsed(run_dir, completion):
    path = run_dir / "eval" / "base" / "samples.jsonl"
    path.write_text(json.dumps(sample(0, completion)) + "\n")
    for extraction in ("", "L1", "L3", "L3-last"):
        rescore(run_dir, {"extraction": extraction, "strip_reasoning": True})
        assert set(scored(run_dir)) == {"r0"}
