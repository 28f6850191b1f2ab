"""The reward router and the alarm; GRPO itself runs in tests/launch/test_run.py."""

from types import SimpleNamespace

from data_recipes.files import JsonlLog, read_jsonl
from data_recipes.row import Message, Row
from pipelines.grpo import STALENESS, StaleRollouts, reward_by_verifier


def a_row(task: str, answer: str, verifier: str) -> str:
    turns = [Message(role="user", content="?")]
    return Row(id=task, task=task, kind="domain", messages=turns, answer=answer, verifiers=[verifier]).model_dump_json()


def test_each_completion_goes_to_its_own_verifier_and_unparsed_is_no_reward(tmp_path):
    log, metrics = JsonlLog(tmp_path / "rollouts.jsonl"), {}
    rows = [a_row("sum", "5", "number")] * 3 + [a_row("critique/sum", "incorrect", "verdict")] * 2
    said = ["5", "no idea", "It is 6.", "Judgment: incorrect", "Judgment: correct"]
    rewards = reward_by_verifier(log)(
        completions=[[{"role": "assistant", "content": text}] for text in said],
        row=rows,
        trainer_state=SimpleNamespace(global_step=6),
        log_metric=lambda name, value: metrics.setdefault(name, value),
        prompts=None,
    )
    log.close()
    assert rewards == [1.0, None, 0.0, 1.0, 0.0]
    assert metrics == {
        "reward/critique/sum": 0.5,
        "unparsed/critique/sum": 0.0,
        "reward/sum": 0.5,
        "unparsed/sum": 1 - 2 / 3,
    }
    stored = read_jsonl(tmp_path / "rollouts.jsonl")
    assert [(line["step"], line["reward"]) for line in stored] == [(7, reward) for reward in rewards]


def test_stale_rollouts_raise_the_alarm(capsys):
    alarm, state = StaleRollouts(limit=0.15), SimpleNamespace(is_world_process_zero=True, global_step=3)
    fresh, stale = {STALENESS: 0.04}, {STALENESS: 0.46}
    alarm.on_log(None, state, None, logs=fresh)
    assert "stale_rollouts" not in fresh and capsys.readouterr().out == ""
    alarm.on_log(None, state, None, logs=stale)
    assert stale["stale_rollouts"] == 0.46 and "ALARM step 3" in capsys.readouterr().out
