"""What a run reads: schedules span it, batches of one task are whole, rows without a target within the length are
replaced."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from data_recipes.errors import UserError
from data_recipes.mixture import build_mixture
from data_recipes.recipe import load_recipe
from data_recipes.store import Mixture
from pipelines.multitask.batches import Batches
from pipelines.sft import plan
from tests.conftest import Words

SHARES = "scheme: shares, epoch_rows: 60"
EASY_TO_HARD = (
    "scheme: shares, epoch_rows: 60, schedule: [{at: 0, shares: {a: 1, b: 0}}, {at: 1, shares: {a: 0, b: 70}}]"
)


@pytest.fixture
def mixture(tmp_path):
    def build(mixing: str = "", task: str = "") -> Mixture:
        for name, words in (("a", 3), ("b", 12)):
            lines = [
                {"prompt": f"{name} {n} " + "word " * (words + n % 5), "completion": f"yes {n}"} for n in range(40)
            ]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "r.yaml").write_text(
            f"tasks:\n  a: {{kind: domain, source: {{type: files, path: a.jsonl}}{task}}}\n"
            "  b: {kind: domain, source: {type: files, path: b.jsonl}}\n"
            f"cleaning: {{decontaminate: none}}\nmixing: {{{mixing}}}\n"
        )
        recipe, _ = load_recipe("r.yaml", beside=tmp_path)
        build_mixture(recipe, tmp_path / "m", seed=0, tokenise=Words())
        return Mixture(tmp_path / "m")

    return build


def arguments(**changes) -> SimpleNamespace:
    given = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "world_size": 2,
        "num_train_epochs": 2.0,
    }
    given |= {"max_steps": -1, "max_length": None, "logging_steps": 5, "save_steps": 25}
    return SimpleNamespace(**{**given, **changes})


def read(mixture: Mixture, **changes) -> np.ndarray:
    _, order = plan(mixture, arguments(**changes), seed=0)
    rows = np.array(list(order))
    assert len(rows) == len(order)
    return rows


def test_two_epochs_read_every_row_twice(mixture):
    assert np.bincount(read(mixture())).tolist() == [2] * 80


@pytest.mark.parametrize(("changes", "rows"), [({}, 120), ({"max_steps": 40}, 80), ({"max_steps": 400}, 800)])
def test_a_schedule_spans_the_run_whatever_its_length(mixture, changes, rows):
    tasks = read(mixture(EASY_TO_HARD), **changes) >= 40
    assert len(tasks) == rows
    tenth = rows // 10
    assert tasks[: 2 * tenth].mean() < 0.35 and tasks[-2 * tenth :].mean() > 0.65
    assert abs(tasks.mean() - 0.5) < 0.06, "each point's shares count, not the numbers they are written in"


def test_every_batch_holds_one_task(mixture):
    built = mixture(f"{SHARES}, shares: {{a: 2, b: 1}}, task_batches: true")
    batches = (read(built, num_train_epochs=1.5, per_device_train_batch_size=4) >= 40).reshape(-1, 8)
    assert (batches == batches[:, :1]).all()


def test_rows_without_a_target_within_the_length_are_replaced(mixture, capsys):
    built = mixture()
    longest = int(np.median(built.targets[40:]))
    rows = read(built, max_length=longest)
    batch = Batches(built, longest, padding=0)([{"index": row} for row in rows.tolist()])
    assert (batch["labels"] != -100).any(dim=1).all()
    assert np.array_equal(np.bincount(rows >= 40), [80, 80]), "the shares stay"
    assert "b: " in capsys.readouterr().out
    with pytest.raises(UserError, match="no row of the task 'b' has a target within sft.max_length 8; raise it"):
        read(built, max_length=8)


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({"logging_steps": 17}, "", "choose at most 16"),
        ({"save_steps": 7}, "", "divisor of sft.save_steps"),
        ({}, ", max_epochs: 2", "keep no limits"),
    ],
)
def test_adaptive_shares_are_refused_where_they_could_not_be_kept(mixture, changes, task, message):
    built = mixture(f"{SHARES}, shares: {{a: 1, b: 1}}, adaptive: {{window_steps: 10}}", task)
    with pytest.raises(UserError, match=message):
        plan(built, arguments(**changes), seed=0)


def test_packed_rows_keep_their_tasks_targets_and_places(mixture):
    built = mixture()
    _, order = plan(built, arguments(max_length=64, num_train_epochs=1.0), seed=0, packing=True)
    rows = np.concatenate(order.sequences)
    assert len(order) % 2 == 0 and set(rows.tolist()) == set(range(80)), "every row, every step full"
    batch = Batches(built, 64, padding=0, sequences=order.sequences)([{"index": n} for n in range(len(order))])
    for line, members in enumerate(order.sequences):
        place = 0
        for row in members.tolist():
            length, target = int(built.lengths[row]), int(built.targets[row])
            span = slice(place, place + length)
            start = int(built.offsets[row])
            assert batch["input_ids"][line, span].tolist() == built.tokens[start : start + length].tolist()
            assert batch["position_ids"][line, span].tolist() == list(range(length))
            trained = (batch["labels"][line, span] != -100).tolist()
            assert trained == [n >= max(target, 1) for n in range(length)]
            tasks = batch["task_ids"][line, span][max(target, 1) :].tolist()
            assert set(tasks) == {int(built.task_ids(row))}
            assert set(batch["row_tokens"][line, span].tolist()) == {float(sum(trained))}
            place += length


def test_packing_is_refused_where_it_has_no_meaning(mixture):
    with pytest.raises(UserError, match="set sft.max_length"):
        plan(mixture(), arguments(), seed=0, packing=True)
    built = mixture(f"{SHARES}, shares: {{a: 2, b: 1}}, task_batches: true")
    with pytest.raises(UserError, match="leave out packing or mixing.task_batches"):
        plan(built, arguments(max_length=64), seed=0, packing=True)
