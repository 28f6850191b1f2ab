"""What critiques are rewarded for: verdict, place and revision, the switch of stages, the reviser in its process."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from data_recipes.store import TRAIN, read_mixture
from eval.critique import Sample, critique_row, judging_row
from eval.engines import EngineSettings
from eval.judges import Judged
from eval.verifiers import Verdict, verify
from pipelines.rl.critique_reward import CritiqueReward, further_verifiers, revising_prompt, weighted_mean
from pipelines.rl.reviser import Reviser
from pipelines.rl.sections import CritiqueRewardSection
from tests.pipelines.grpo_runs import metrics, mixed_with, rollouts, train_here  # noqa: F401

TINY_ENGINE = EngineSettings(type="transformers", dtype="float32", max_model_len=128)
SUM = Row(
    id="sum",
    task="chain_sum",
    kind="domain",
    messages=[Message(role="user", content="What is 98 + 93?"), Message(role="assistant", content="191")],
    answer="191",
    verifiers=["number"],
    meta={"working": "98 + 93 = 191"},
)
RIGHT, WRONG = ("Judgment: correct", "Judgment: incorrect")


def critiqued(response: str, **meta) -> Row:
    row = critique_row(SUM, Sample(response, verify(SUM, response), 0), 0.0, "low")
    return row.model_copy(update={"meta": {**row.meta, **meta}})


def judge(pairs):
    return [Judged(verify(row, text)) for row, text in pairs]


def reward_of(row: Row, critique: str, revision: str | None = None, step: int = 9, **keys) -> Judged:
    """Return what a critique is worth, given what the reviser would answer."""
    reviser = Reviser(TINY_ENGINE, "nowhere", None, 8, None)
    if revision is not None:
        reviser.remember(revising_prompt(row, critique), revision)
    reward = CritiqueReward(CritiqueRewardSection(**keys), judge, reviser)
    return reward([(row, critique)], judge([(row, critique)]), step)[0]


def test_a_reward_is_the_weighted_mean_of_what_the_row_can_be_judged_by():
    wrong = critiqued("It is 181.")
    found = reward_of(wrong, f"98 + 93 is 191, so 181 is wrong. {WRONG}", "It is 191.")
    assert found.parts == {"verdict": 1.0, "revised": 1.0} and found.verdict == Verdict(1.0, "incorrect")
    useless = reward_of(wrong, WRONG, "It is 181.")
    assert useless.parts == {"verdict": 1.0, "revised": 0.0} and useless.verdict.score == pytest.approx(0.5 / 1.5)
    assert useless.revision == "It is 181."
    lucky = reward_of(wrong, f"181 is {RIGHT}", "191", verdict_weight=0.2, revision_weight=0.6)
    assert lucky.verdict.score == pytest.approx(0.6 / 0.8) and lucky.verdict.answer == "correct"
    spoilt = reward_of(critiqued("191"), RIGHT, "It is 181.")
    assert spoilt.parts == {"verdict": 1.0, "revised": 0.0}, "what was right has to stay right"
    assert reward_of(wrong, WRONG, "I cannot say.").parts["revised"] == 0.0, "a revision nobody can read did not pass"
    assert weighted_mean({"verdict": 1.0, "located": 0.0}, {"verdict": 1.0, "located": 3.0}) == 0.25


def test_the_place_counts_where_the_row_knows_it():
    row = critiqued("Step 1: 90 + 90 = 180\nStep 2: 180 + 1 = 181", first_wrong_step="2", gold_verifiers=[])
    assert judging_row(row) is None and revising_prompt(row, "") is None
    there, elsewhere, nowhere = (
        reward_of(row, f"{said}\n{WRONG}") for said in ("Step 2 is the first wrong one.", "Step 1 is wrong.", "No.")
    )
    assert there.parts == {"verdict": 1.0, "located": 1.0} and there.verdict.score == 1.0
    assert elsewhere.parts["located"] == nowhere.parts["located"] == 0.0
    assert elsewhere.verdict.score == nowhere.verdict.score == 0.5
    assert reward_of(row, f"Step 1 is wrong.\n{WRONG}", step=1, verdict_steps=1).verdict.score == 1.0
    assert further_verifiers([row, critiqued("181"), SUM]) == {"step", "number"}


@pytest.mark.parametrize(("step", "score"), [(1, 1.0), (3, 1.0), (4, 0.5 / 1.5)])
def test_up_to_the_last_step_of_the_first_stage_the_verdict_alone_counts(step, score):
    found = reward_of(critiqued("181"), WRONG, "181", step=step, verdict_steps=3)
    assert found.verdict.score == pytest.approx(score) and ("revised" in found.parts) == (step > 3)


def test_what_no_reward_can_be_given_for_has_none():
    unread = reward_of(critiqued("181"), "Hm.")
    assert unread == Judged(Verdict(None, None)), "no verdict, and the reviser is not asked"
    assert reward_of(SUM, "191") == Judged(Verdict(1.0, "191")), "no critique"

    def judge_that_fails(pairs):
        return [
            Judged(Verdict(None, None), "no answer in 1 s")
            if row.verifiers == ["number"]
            else Judged(verify(row, text))
            for row, text in pairs
        ]

    row, reviser = critiqued("181"), Reviser(TINY_ENGINE, "nowhere", None, 8, None)
    reviser.remember(revising_prompt(row, WRONG), "191")
    reward = CritiqueReward(CritiqueRewardSection(), judge_that_fails, reviser)
    (found,) = reward([(row, WRONG)], judge([(row, WRONG)]), 1)
    assert found.verdict == Verdict(None, "incorrect") and found.problem == "revised: no answer in 1 s"


def test_the_truth_is_in_no_prompt():
    row = critiqued("It is 181.")
    assert row.meta["gold"] == "191" and row.meta["gold_meta"]["working"] == "98 + 93 = 191"
    asked = revising_prompt(row, f"One digit is off. {WRONG}")
    assert "What is 98 + 93?" in asked and "It is 181." in asked and "One digit is off." in asked
    assert "191" not in asked and "191" not in json.dumps(row.prompt)


def test_a_reviser_answers_from_a_process_of_its_own(tiny_model, tmp_path):
    from eval.engines.transformers import TransformersEngine
    from pipelines.rl.reviser_worker import answers

    prompts = ["Add 2 and 2.", "Name a colour.", "Add 2 and 2.", "word " * 500]
    reviser = Reviser(TINY_ENGINE, tiny_model, None, 6, tmp_path / "reviser.log")
    try:
        found = reviser.revise(prompts)
        expected = answers(TransformersEngine(TINY_ENGINE, tiny_model), [*prompts[:2], prompts[3]], 6)
        assert found == [expected[0], expected[1], expected[0], None] and expected[2] is None
        process = reviser._process.pid
        assert reviser.revise(["Name a fruit."])[0] and reviser._process.pid == process, "one process for the whole run"
        long = critiqued("It is 181. " + "word " * 500)
        (found_long,) = CritiqueReward(CritiqueRewardSection(), judge, reviser)(
            [(long, WRONG)], judge([(long, WRONG)]), 1
        )
        assert found_long.verdict.score is None and "no room for a revision" in found_long.problem
        os.kill(process, signal.SIGKILL)
        assert reviser.revise(prompts[:2]) == found[:2], "from memory"
        with pytest.raises(UserError, match=r"reviser: its engine died \(exit code -9"):
            reviser.revise(["Name a number."])
    finally:
        reviser.close()
    refusing = Reviser(
        TINY_ENGINE.model_copy(update={"chat_template": "none.jinja"}), tiny_model, None, 6, tmp_path / "reviser.log"
    )
    with pytest.raises(
        UserError, match=r"grpo.critique_reward.reviser: engine.chat_template: none.jinja is no readable"
    ):
        refusing.revise(["Add 2 and 2."])
    refusing.close()


@pytest.fixture(scope="module")
def finished(mixed_with, tmp_path_factory):  # noqa: F811
    """(file, run folder) of six steps, the first three with the verdict alone; texts are judged by their vowels."""
    rows = []
    for number in range(12):
        question = Row(
            id=f"sum/{number}",
            task="sums",
            kind="domain",
            messages=[Message(role="user", content=f"What is {number} + 7?")],
            answer=f"GOLD{number + 7}",
            verifiers=["judges_of_ours.vowels"],
        )
        row = critique_row(question, Sample("I think 8", Verdict(0.0, "8"), 0), 0.0, "low")
        meta = {**row.meta, "first_wrong_step": "1"} if number % 2 else row.meta
        own = {"verifiers": ["judges_of_ours.vowels"], "meta": meta, "messages": row.messages[:1]}
        rows.append(row.model_copy(update=own).model_dump_json())
    path = tmp_path_factory.mktemp("rows") / "critiques.jsonl"
    path.write_text("\n".join(rows) + "\n")
    file, run = mixed_with(
        "vowels",
        f"  critique/sums: {{kind: critique, source: {{type: files, path: {path}}}}}\n",
        **{"learning_rate": 1e-2, "max_steps": 6, "save_steps": 2, "save_total_limit": 9, "set_aside_for": 0},
        tasks=["chain_sum", "critique/sums"],
        critique_reward={
            "verdict_steps": 3,
            "verdict_weight": 0.25,
            "location_weight": 0.25,
            "reviser": {"engine": TINY_ENGINE.model_dump(), "max_tokens": 8},
        },
    )
    train_here(file)
    return file, run


def vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def test_a_run_rewards_and_logs_every_part(finished):
    _, run = finished
    rows = {row.id: row for row in read_mixture(run / "mixture", TRAIN)}
    made = rollouts(run)
    critiques = [one for one in made if one["task"] == "critique/sums"]
    assert {one["step"] > 3 for one in critiques} == {"located" in one["parts"] for one in critiques} == {True, False}
    for one in critiques:
        parts = {"verdict": vowels(one["completion"])}
        weights = {"verdict": 0.25, "located": 0.25, "revised": 1.0}
        if "first_wrong_step" in rows[one["id"]].meta:
            parts["located"] = 0.0
        if one["step"] > 3:
            parts["revised"] = vowels(one["revision"])
        assert one["parts"] == pytest.approx(parts)
        expected = sum(weights[name] * value for name, value in parts.items()) / sum(weights[name] for name in parts)
        assert one["reward"] == pytest.approx(expected if one["step"] > 3 else parts["verdict"])
        assert (one["revision"] is None) == (one["step"] <= 3)
    assert all(one["parts"] == {} for one in made if one["task"] == "chain_sum")
    for line in metrics(run):
        of_step = [one for one in critiques if one["step"] == line["step"]]
        for part in ("verdict", "located", "revised"):
            of_part = [one["parts"][part] for one in of_step if part in one["parts"]]
            shown = line.get(f"{part}/critique/sums")
            assert shown == (pytest.approx(sum(of_part) / len(of_part), abs=1e-6) if of_part else None)
        assert "verdict/chain_sum" not in line
    assert not any("GOLD" in json.dumps(row.prompt) for row in rows.values())
    page = (run / "grpo" / "progress.html").read_text()
    assert "Revisions that pass" in page and "Critiques with the right verdict" in page


@pytest.mark.parametrize(
    ("step", "lines_left"),
    [
        pytest.param(2, None, id="kept", marks=pytest.mark.slow),
        pytest.param(2, 3 * 8 + 5, id="torn"),
        pytest.param(4, 4 * 8 + 5, id="torn later", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_crosses_the_switch_as_if_it_had_not_been(finished, tmp_path, step, lines_left):
    file, run = finished
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for later in range(step + 2, 7, 2):
        shutil.rmtree(copy / "grpo" / "checkpoints" / f"checkpoint-{later}")
    if lines_left:
        lines = (copy / "grpo" / "rollouts.jsonl").read_text().splitlines(keepends=True)
        (copy / "grpo" / "rollouts.jsonl").write_text("".join(lines[:lines_left]) + lines[lines_left][:40])
    train_here(file, f"output_dir={copy}")
    assert rollouts(copy) == rollouts(run)
    ours, theirs = (load_file(one / "grpo" / "model" / "model.safetensors") for one in (copy, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_revisions_of_an_earlier_session_are_not_made_again(finished, tmp_path):
    _, run = finished
    rows = read_mixture(run / "mixture", TRAIN)
    reviser = Reviser(TINY_ENGINE, "nowhere", None, 8, tmp_path / "reviser.log")
    reward = CritiqueReward(CritiqueRewardSection(), judge, reviser)
    reward.remember_run(run / "grpo" / "rollouts.jsonl", rows, before=5)
    by_id = {row.id: row for row in rows}
    stored = [one for one in rollouts(run) if one["revision"] is not None and one["generation"] < 5]
    assert stored
    asked = [revising_prompt(by_id[one["id"]], one["completion"]) for one in stored]
    assert reviser.revise(asked) == [one["revision"] for one in stored], "and no engine was started"


def test_nothing_to_reward_so_is_told(mixed_with):  # noqa: F811
    file, _ = mixed_with("vowels", critique_reward={})
    with pytest.raises(UserError, match="grpo.critique_reward: none of the rows to train on is a critique"):
        train_here(file)
    with pytest.raises(UserError, match="'grpo.critique_reward.revission_weight' .did you mean 'revision_weight'"):
        train_here(file, "grpo.critique_reward.revission_weight=1")
    with pytest.raises(UserError, match=r"grpo.critique_reward.reviser: adapter 'none'"):
        train_here(file, "grpo.critique_reward.reviser.adapter=none")
    with pytest.raises(UserError, match=r"grpo.critique_reward.reviser.model is missing; name one that the server has"):
        train_here(file, "engine.type=openai", "engine.base_url=http://localhost:1/v1")
