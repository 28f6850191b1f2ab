"""Advantages, GRPO-S weights and OAPL on worked numbers and at their limits."""

from math import exp, inf, log, nan

import pytest
import torch
from torch import tensor

from pipelines.rl.advantages import data_hardness, group_advantages, model_responsiveness, undecided
from pipelines.rl.oapl import optimal_value, squared_residual

TWO_OF_EIGHT = tensor([[1.0, 0, 0, 1, 0, 0, 0, 0]], dtype=torch.float64)


def approx(*values: float):
    return pytest.approx(list(values), abs=1e-6)


def test_advantages_of_two_right_answers_among_eight():
    found = group_advantages(TWO_OF_EIGHT[0], 8, torch.zeros(8), epsilon=0.0)
    assert found[0].item() == pytest.approx(1.620185, abs=1e-6), "the deviation of samples, not of a population"
    assert found.sum().item() == pytest.approx(0.0, abs=1e-12)
    assert found[1].item() == pytest.approx(-0.25 / (12 / 8 / 7) ** 0.5)


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_a_tasks_scale_does_not_touch_the_others(scale):
    """A task's rewards times a hundred: its own advantages stay, and so do the other's."""
    task_ids = tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    rewards = tensor([0.0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0], dtype=torch.float64)
    scaled = torch.where(task_ids == 1, 100 * rewards, rewards)
    found = group_advantages(rewards, 4, task_ids, scale, epsilon=0.0)
    torch.testing.assert_close(group_advantages(scaled, 4, task_ids, scale, epsilon=0.0), found)
    with_epsilon = group_advantages(scaled, 4, task_ids, scale)
    assert with_epsilon[task_ids == 0].equal(group_advantages(rewards, 4, task_ids, scale)[task_ids == 0])


def test_unscaled_advantages_are_differences():
    assert group_advantages(tensor([3.0, 1, 2, 2]), 4, torch.zeros(4), "none").tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_sample_without_a_reward_is_as_if_it_had_never_been(scale):
    rewards = tensor([1.0, nan, 0, 0, 2.0, nan, 5, 2], dtype=torch.float64)
    found = group_advantages(rewards, 4, torch.zeros(8), scale)
    kept = group_advantages(tensor([1.0, 0, 0, 2, 5, 2], dtype=torch.float64), 3, torch.zeros(6), scale)
    assert found[[1, 5]].tolist() == [0, 0]
    torch.testing.assert_close(found[[0, 2, 3, 4, 6, 7]], kept)


def test_groups_that_say_nothing():
    rewards = tensor([1.0, 1, 1, nan, 0, 1, nan, nan, nan, nan, 0.5, nan])
    assert group_advantages(rewards, 4, torch.zeros(12)).isfinite().all()
    assert undecided(rewards.reshape(-1, 4)).tolist() == [False, True, False]


def test_grpo_s_weights_on_the_worked_numbers():
    hardness = data_hardness(tensor([0.6, 0.2], dtype=torch.float64))[0]
    responsiveness = model_responsiveness(tensor([0.2, 0.5, 3.0, 0.4], dtype=torch.float64), tau=1.0)
    assert hardness.item() == pytest.approx(1.078453, abs=1e-6)
    assert responsiveness.item() == pytest.approx(0.802578, abs=1e-6)
    assert (hardness * responsiveness).item() == pytest.approx(0.865542, abs=1e-6)


def test_grpo_s_weights_at_their_limits():
    assert data_hardness(tensor([0.4, 0.4, 0.4])).tolist() == approx(1, 1, 1)
    gaps = tensor([0.0, 10.0])
    assert model_responsiveness(gaps, tau=inf).item() == pytest.approx(1.0), "nothing left out"
    assert model_responsiveness(gaps, tau=1.0).item() == pytest.approx(1.0), "all left out: none is"


@pytest.mark.parametrize(
    ("beta", "value"), [(0.05, 0.930685), (0.1, 0.861384), (0.5, 0.477229), (1, 0.357374), (10, 0.25953)]
)
def test_value_of_two_right_answers_among_eight(beta, value):
    assert optimal_value(TWO_OF_EIGHT, beta).item() == pytest.approx(value, abs=1e-6)


def test_value_is_the_maximum_and_the_mean_at_the_ends():
    assert optimal_value(TWO_OF_EIGHT, 1e-4).item() == pytest.approx(1.0, abs=1e-3)
    assert optimal_value(TWO_OF_EIGHT, 1e6).item() == pytest.approx(0.25, abs=1e-6)
    assert optimal_value(tensor([[0.0, 1, nan], [nan] * 3]), 0.5).tolist() == pytest.approx(
        [0.5 * log((1 + exp(2)) / 2), nan], nan_ok=True
    )


def test_the_implied_policy_is_normalised_only_with_one_beta():
    for beta_of_loss, mass in ((0.1, 1.0), (0.5, 0.4638)):
        value = optimal_value(TWO_OF_EIGHT, 0.1)
        found = torch.exp((TWO_OF_EIGHT - value) / beta_of_loss).mean()
        assert found.item() == pytest.approx(mass, abs=5e-5)


def test_loss_of_one_sample():
    value = optimal_value(TWO_OF_EIGHT, 0.5)
    found = squared_residual(tensor([-10.0]), tensor([-12.0]), tensor([1.0]), value, 0.5)
    assert found.item() == pytest.approx(0.227748, abs=1e-6)
    ratio = (1 - value) / 0.5
    assert squared_residual(ratio, tensor([0.0]), tensor([1.0]), value, 0.5).item() == pytest.approx(0.0, abs=1e-12)


def test_prompts_that_are_all_right_or_all_wrong_are_dropped():
    rewards = tensor([[1.0, 1, 1], [0, 0, nan], [0, 1, nan], [nan, nan, nan]])
    assert undecided(rewards).tolist() == [False, False, True, False]
