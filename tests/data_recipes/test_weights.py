"""Shares and limits become draws: worked numbers, and the bounds of the issue on a million draws."""

import math

import numpy as np
import pytest

from data_recipes.errors import UserError
from data_recipes.mixing import draws_of
from data_recipes.recipe import Mixing
from data_recipes.weights import (
    allocate,
    largest_remainder,
    online_data_mixing,
    scheduled,
    temperature_weights,
    unimax,
)

SIZES = {"a": 1_000_000, "b": 400_000, "c": 50_000, "d/x": 30_000, "d/y": 10_000}
LENGTHS = {"a": 100, "b": 20, "c": 300, "d/x": 50, "d/y": 50}


def manifest(sizes=SIZES, lengths=LENGTHS, **tasks) -> dict:
    entry = {"kind": "domain", "source": {"type": "x"}}
    names = dict.fromkeys(name.split("/")[0] for name in sizes)
    return {
        "recipe": {"tasks": {name: {**entry, **tasks.get(name, {})} for name in names}},
        "tasks": {
            name: {"train_rows": size, "train_tokens": size * lengths[name], "rows_without_target": 0}
            for name, size in sizes.items()
        },
    }


def test_remainders_go_to_the_largest():
    assert largest_remainder([1, 1, 1], 10) == [4, 3, 3]
    assert largest_remainder([0.5, 0.3, 0.2], 7) == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert largest_remainder([0, 1], 0) == [0, 0]
    with pytest.raises(ValueError, match="zero"):
        largest_remainder([0, 0], 3)


def test_temperature_by_hand():
    assert temperature_weights([100, 400], 2) == [10, 20]
    assert temperature_weights([100, 400], 1) == [100, 400]
    assert temperature_weights([100, 400], 2, cap=225) == [10, 15]


def test_unimax_by_hand():
    """Budget 100, at most one epoch: 10 is used up, the other 90 are shared as 30 (all of it) and 60."""
    assert unimax([30, 10, 1000], 100, 1) == [30, 10, 60]
    assert unimax([30, 10, 1000], 90, 4) == [30, 30, 30]
    assert sum(unimax([3, 4], 100, 2)) == 14


def test_limits_push_the_rest_to_the_others():
    assert allocate([1, 1, 2], 100, [0, 0, 0], [100, 100, 20]) == [40, 40, 20]
    assert allocate([1, 1, 98], 100, [10, 0, 0], [100, 100, 100]) == [10, 1, 89]
    assert allocate([0, 1], 10, [3, 0], [5, 100]) == [3, 7]
    with pytest.raises(ValueError, match="allow 30 draws"):
        allocate([1, 1], 40, [0, 0], [10, 20])
    with pytest.raises(ValueError, match="add up to 50"):
        allocate([1, 1], 40, [30, 20], [100, 100])


def test_limits_hold_and_totals_are_exact_for_any_numbers():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 8))
        weights = rng.random(n) * (rng.random(n) > 0.2)
        lower = rng.integers(0, 20, n) * (weights > 0)
        upper = lower + rng.integers(0, 60, n)
        total = int(rng.integers(lower.sum(), upper[weights > 0].sum() + 1)) if (weights > 0).any() else 0
        draws = allocate(weights.tolist(), total, lower.tolist(), upper.tolist())
        assert sum(draws) == total
        assert all(low <= d <= up for low, d, up in zip(lower, draws, upper, strict=True))


def test_a_schedule_is_straight_between_its_points():
    points = [(0.0, [1.0, 0.0]), (0.5, [0.0, 1.0]), (1.0, [0.0, 3.0])]
    assert scheduled(points, 0.25) == [0.5, 0.5]
    assert scheduled(points, 0.75) == [0.0, 2.0]


def test_the_bandit_starts_uniform_and_leans_to_the_larger_reward():
    assert online_data_mixing([0, 0, 0], 1) == pytest.approx([1 / 3] * 3)
    shares = online_data_mixing([0.0, 1.0, 5.0], 20)
    exploration = math.sqrt(math.log(3) / 60)
    greedy = [math.exp(math.sqrt(math.log(3) / 57) * reward) for reward in (0.0, 1.0, 5.0)]
    by_hand = [(1 - 3 * exploration) * g / sum(greedy) + exploration for g in greedy]
    assert shares == pytest.approx(by_hand) and sum(shares) == pytest.approx(1)
    assert shares[0] < shares[1] < shares[2]


EXPLICIT = {"a": 4, "b": 3, "c": 2, "d": 1}
SCHEMES = {
    "union": (Mixing(), [n / 1_490_000 for n in SIZES.values()]),
    "shares": (Mixing(scheme="shares", shares=EXPLICIT, epoch_rows=1_000_000), [0.4, 0.3, 0.2, 0.075, 0.025]),
    "proportional": (Mixing(scheme="proportional", epoch_rows=1_000_000), [n / 1_490_000 for n in SIZES.values()]),
    "temperature": (
        Mixing(scheme="temperature", temperature=3, cap=500_000, epoch_rows=1_000_000),
        [min(n, 500_000) ** (1 / 3) / sum(min(m, 500_000) ** (1 / 3) for m in SIZES.values()) for n in SIZES.values()],
    ),
    "unimax": (
        Mixing(scheme="unimax", max_epochs=2, epoch_rows=1_000_000),
        [0.41, 0.41, 0.1, 0.06, 0.02],  # d/y, d/x and c twice: 20,000, 60,000, 100,000; the other 820,000 by halves
    ),
    "schedule": (
        Mixing(scheme="shares", schedule=[{"at": 0, "shares": {"a": 1, "b": 0, "c": 0, "d": 0}},
                                          {"at": 1, "shares": {"a": 0, "b": 1, "c": 0, "d": 0}}], epoch_rows=1_000_000),
        [0.5, 0.5, 0, 0, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_million_draws_give_the_shares_asked_for(scheme):
    mixing, expected = SCHEMES[scheme]
    draws = draws_of(manifest(), mixing)
    assert draws.asked == pytest.approx(expected, abs=1e-6)
    order = draws.order(seed=1)
    # the first million of a longer epoch is a sample; of an epoch of a million it is exact
    indices = order.indices(0, 1_000_000)
    bounds = np.cumsum([0, *SIZES.values()])
    drawn = np.histogram(indices, bounds)[0] / 1_000_000
    for share, asked in zip(drawn, expected, strict=True):
        assert abs(share - asked) < 0.001
        assert abs(share - asked) <= 3 * math.sqrt(max(asked * (1 - asked), 1e-9) / 1_000_000) + 1e-6


def test_shares_in_tokens_are_shares_of_tokens():
    mixing = Mixing(scheme="shares", unit="tokens", shares=EXPLICIT, epoch_tokens=50_000_000)
    draws = draws_of(manifest(), mixing)
    given = np.array(draws.given_tokens)
    assert given / given.sum() == pytest.approx([0.4, 0.3, 0.2, 0.075, 0.025], abs=1e-4)
    assert given.sum() == pytest.approx(50_000_000, rel=1e-3)


def test_per_task_limits():
    mixing = Mixing(scheme="shares", shares={"a": 1, "b": 1, "c": 1, "d": 1}, epoch_rows=400_000)
    draws = draws_of(manifest(c={"max_epochs": 0.5}, b={"min_draws": 200_000}, a={"max_draws": 50_000}), mixing)
    assert dict(zip(draws.tasks, draws.rows, strict=True))["a"] == 50_000
    assert dict(zip(draws.tasks, draws.rows, strict=True))["b"] >= 200_000
    assert dict(zip(draws.tasks, draws.rows, strict=True))["c"] <= 25_000
    assert sum(draws.rows) == 400_000


def test_blocks_keep_the_shares_as_nearly_as_whole_blocks_can():
    mixing = Mixing(scheme="shares", shares=EXPLICIT, epoch_rows=100_000)
    order = draws_of(manifest(), mixing).order(seed=1, block=64)
    rows = [sum(stage[task] for stage in order.stages) for task in range(5)]
    assert all(count % 64 == 0 for count in rows)
    assert np.array(rows) / sum(rows) == pytest.approx([0.4, 0.3, 0.2, 0.075, 0.025], abs=64 / 100_000)


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        (Mixing(scheme="temperature"), "epoch_rows: \\d+ repeats no row, epoch_rows: \\d+ reads every row"),
        (Mixing(scheme="shares", shares={"a": 1}, epoch_rows=5), "leave out the task 'b'"),
        (Mixing(scheme="shares", shares={**EXPLICIT, "e": 1}, epoch_rows=5), "unknown task 'e'"),
        (Mixing(scheme="proportional", epoch_rows=10**7, max_epochs=1), "allow 1490000 draws an epoch, fewer"),
        (Mixing(scheme="unimax", epoch_rows=10**7, max_epochs=2), "allow 2980000 draws an epoch, fewer"),
        (Mixing(scheme="shares", shares=dict.fromkeys("abcd", 0), epoch_rows=5), "all shares are zero"),
        (Mixing(critique_share=0.2), "needs critique rows and others; these are all others"),
    ],
)
def test_what_cannot_be_had_is_said(mixing, message):
    with pytest.raises(UserError, match=message):
        draws_of(manifest(), mixing)


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing(critique_share=0.2),
        Mixing(critique_share=0.2, scheme="proportional", epoch_rows=100_000),
        Mixing(critique_share=0.2, scheme="temperature", epoch_rows=100_000),
    ],
)
def test_one_number_says_how_much_critique_there_is(mixing):
    draws = draws_of(manifest(d={"kind": "critique"}), mixing)
    rows = dict(zip(draws.tasks, draws.rows, strict=True))
    assert (rows["d/x"] + rows["d/y"]) / sum(draws.rows) == pytest.approx(0.2, abs=1e-4)
    assert sum(draws.asked[3:]) == pytest.approx(0.2)
    if mixing.scheme == "union":
        assert [rows[task] for task in "abc"] == [SIZES[task] for task in "abc"], "the others once"
    if mixing.scheme != "temperature":
        assert rows["d/x"] == pytest.approx(3 * rows["d/y"], rel=1e-3), "divided as the scheme divides"


def test_tasks_without_targets_are_not_drawn_for_training():
    counted = manifest()
    counted["tasks"]["c"]["rows_without_target"] = SIZES["c"]
    mixing = Mixing(scheme="shares", shares=EXPLICIT, epoch_rows=1000)
    draws = draws_of(counted, mixing)
    assert draws.rows[draws.tasks.index("c")] == 0 and sum(draws.rows) == 1000
    assert draws_of(counted, mixing, prompts_too=True).rows[draws.tasks.index("c")] == 200
