"""Loss balance on numbers worked out by hand, against torch's autograd and Adam, and on toy problems."""

import json
import math

import numpy as np
import pytest
import torch

from data_recipes.errors import UserError
from pipelines.multitask.balance import (
    BALANCES,
    LEARNING_RATE,
    LOSS_FLOOR,
    Balancer,
    DynamicWeightAverage,
    Famo,
    Moments,
    StepCounts,
    Uncertainty,
    adam_step,
    dwa_weights,
    famo_step,
    famo_weights,
    make_balancer,
    token_weights,
    uncertainty_step,
    uncertainty_weights,
    unit_weights,
)

# Two rows of task 0 (3 and 1 trained tokens) and one of task 1 (4); task 2 is absent. Every token here is trained on,
# -1 is padding.
TASK_IDS = torch.tensor([[0, 0, 0, -1], [0, -1, -1, -1], [1, 1, 1, 1]])
ROW_TOKENS = torch.tensor([[3, 3, 3, 3], [1, 1, 1, 1], [4, 4, 4, 4]])
COUNTS = StepCounts(tokens=[4, 4, 0], examples=[2, 1, 0])
ONES = [1.0, 1.0, 1.0]


def rows_of(unit: str, task_weights: list[float]) -> list[float]:
    """Return the weight of the first token of each row, having checked padding and that a row's tokens weigh alike."""
    weights = token_weights(unit, COUNTS, TASK_IDS, ROW_TOKENS, task_weights)
    assert weights.shape == TASK_IDS.shape and weights.dtype == torch.float32
    assert torch.all(weights[TASK_IDS < 0] == 0)
    for row, ids in zip(weights, TASK_IDS, strict=True):
        assert torch.all(row[ids >= 0] == row[0])
    return weights[:, 0].tolist()


def test_a_token_an_example_and_a_task_weigh_the_same():
    assert rows_of("token", ONES) == pytest.approx([1 / 8, 1 / 8, 1 / 8])  # 8 tokens
    assert rows_of("example", ONES) == pytest.approx([1 / 9, 1 / 3, 1 / 12])  # 3 examples of 3, 1 and 4 tokens
    assert rows_of("task", ONES) == pytest.approx([1 / 8, 1 / 8, 1 / 8])  # 2 tasks present, of 4 tokens each


def test_task_weights_count_among_the_tasks_present():
    # 3 : 1 between tasks 0 and 1; the 4 of task 2, absent, is left out. A token of task 0: 3/4 / 4 = 3/16
    assert rows_of("task", [3, 1, 4]) == pytest.approx([3 / 16, 3 / 16, 1 / 16])
    assert rows_of("task", [0.3, 0.1, 0.6]) == pytest.approx([3 / 16, 3 / 16, 1 / 16])


@pytest.mark.parametrize("unit", ["token", "example", "task"])
@pytest.mark.parametrize("task_weights", [ONES, [3, 1, 4], [0, 1, 1]])
def test_the_weights_of_a_step_sum_to_one(unit, task_weights):
    weights = token_weights(unit, COUNTS, TASK_IDS, ROW_TOKENS, task_weights)
    assert float(weights.sum()) == pytest.approx(1)


def test_a_task_of_weight_zero_is_as_if_its_rows_were_not_there():
    assert rows_of("token", [0, 1, 1]) == pytest.approx([0, 0, 1 / 4])
    assert rows_of("example", [1, 0, 1]) == pytest.approx([1 / 6, 1 / 2, 0])
    assert rows_of("task", [0, 1, 1]) == pytest.approx([0, 0, 1 / 4])
    for unit in ("token", "example", "task"):  # nothing left to train on: no loss rather than 0 / 0
        assert rows_of(unit, [0, 0, 1]) == [0, 0, 0]


def test_the_loss_of_a_step_is_the_mean_that_its_name_says():
    nll = torch.tensor([[1.0, 2.0, 3.0, 9.0], [6.0, 9.0, 9.0, 9.0], [1.0, 1.0, 1.0, 5.0]])
    loss = {unit: float((token_weights(unit, COUNTS, TASK_IDS, ROW_TOKENS, ONES) * nll).sum()) for unit in BALANCES[:3]}
    assert loss["token"] == pytest.approx((6 + 6 + 8) / 8)
    assert loss["example"] == pytest.approx((2 + 6 + 2) / 3)  # row means 6/3, 6/1, 8/4
    assert loss["task"] == pytest.approx((3 + 2) / 2)  # task means 12/4 and 8/4


def test_micro_batches_add_up_to_the_step():
    whole = token_weights("task", COUNTS, TASK_IDS, ROW_TOKENS, [3, 1, 4])
    parts = [token_weights("task", COUNTS, TASK_IDS[i : i + 1], ROW_TOKENS[i : i + 1], [3, 1, 4]) for i in range(3)]
    assert torch.equal(whole, torch.cat(parts))


def test_unit_weights_divide_a_task_among_its_tokens():
    # 1 : 3 between tasks of 2 and 5 tokens: 1/4 / 2 and 3/4 / 5
    assert unit_weights("task", StepCounts([2, 5], [1, 1]), [1, 3]) == pytest.approx([1 / 8, 3 / 20])


def test_adam_by_hand():
    # step 1: m = .1 g, v = .001 g^2, corrected to g and g^2: moves by rate * sign(g). The coordinate left out stays
    values, moments = adam_step(
        np.zeros(3), np.array([2.0, -0.5, 7.0]), Moments.zero(3), 0.1, np.array([True, True, False])
    )
    assert values == pytest.approx([-0.1, 0.1, 0])
    assert moments.first.tolist() == pytest.approx([0.2, -0.05, 0]) and moments.steps.tolist() == [1, 1, 0]
    # step 2, gradient 1 after 2: m = .9*.2 + .1 = .28, / (1 - .81) = 1.473684; v = .999*.004 + .001 = .004996,
    # / (1 - .998001) = 2.499250; 1.473684 / sqrt(2.499250) = .932181
    values, _ = adam_step(values, np.array([1.0, 1.0, 1.0]), moments, 0.1, np.array([True, False, False]))
    assert values == pytest.approx([-0.1 - 0.0932181, 0.1, 0], abs=1e-6)


def test_uncertainty_by_hand():
    # s = 0 and log 4: weights 1 and 1/4. Gradients 1/2 - L * weight: 1/2 - 2 = -3/2 (s rises), 1/2 - 1/4 = 1/4 (falls)
    log_variances = np.array([0.0, math.log(4)])
    assert uncertainty_weights(log_variances) == pytest.approx([1, 0.25])
    seen = np.array([True, True])
    stepped, moments = uncertainty_step(log_variances, np.array([2.0, 1.0]), Moments.zero(2), seen, rate=0.1)
    assert moments.first == pytest.approx([-0.15, 0.025])
    assert stepped == pytest.approx([0.1, math.log(4) - 0.1])
    # at s = log 2L it rests: here L = 3 and 1/2
    rest = np.log([6.0, 1.0])
    stepped, _ = uncertainty_step(rest, np.array([3.0, 0.5]), Moments.zero(2), seen)
    assert stepped == pytest.approx(rest, abs=1e-6)


def test_uncertainty_is_autograd_and_adam_on_the_papers_loss():
    losses = np.random.default_rng(0).uniform(0.2, 4, (50, 3))
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=LEARNING_RATE)
    balancer = Uncertainty(3)
    for step in losses:
        adam.zero_grad()
        (torch.exp(-parameter) * torch.tensor(step) + parameter / 2).sum().backward()
        adam.step()
        balancer.observe(dict(enumerate(step)))
    assert balancer.state()["log_variances"] == pytest.approx(parameter.tolist(), rel=1e-9)


def test_dwa_by_hand():
    # ratios .5 and 1 at temperature 2: e^.25 = 1.284025, e^.5 = 1.648721; 1.284025 / 2.932747 = .437823
    weights = dwa_weights(np.array([1.0, 3.0]), np.array([2.0, 3.0]), 2.0)
    assert weights == pytest.approx([0.437823, 0.562177], abs=1e-6)
    # the paper's weights sum to K
    assert 2 * weights[0] == pytest.approx(2 * math.exp(0.25) / (math.exp(0.25) + math.exp(0.5)))


def test_dwa_averages_over_windows_and_waits_for_two():
    balancer = DynamicWeightAverage(2, window=2)
    losses = [(3.0, 5.0), (1.0, 1.0), (1.0, 3.0)]
    for step in losses:
        balancer.observe(dict(enumerate(step)))
        assert balancer.weights().tolist() == [0.5, 0.5]
    balancer.observe({0: 1.0, 1: 3.0})  # windows of mean (2, 3), then (1, 3)
    assert balancer.weights() == pytest.approx([0.437823, 0.562177], abs=1e-6)


def test_famo_by_hand():
    # z = softmax(log 1, log 3) = 1/4, 3/4; losses 1/2, 3: z / L = 1/2, 1/4; they sum to 3/4
    logits = np.log([1.0, 3.0])
    assert famo_weights(logits, np.array([0.5, 3.0])) == pytest.approx([2 / 3, 1 / 3])
    # decreases .4, 0: mean under z .1. delta = z * (d - .1) = 1/4 * .3, 3/4 * -.1 = .075, -.075; the decay adds
    # .01 * (0, log 3) = 0, .010986. Adam's first moment is a tenth of that; its first step goes by the sign
    both = np.array([True, True])
    stepped, moments = famo_step(logits, np.array([0.4, 0.0]), Moments.zero(2), both, rate=0.1, decay=0.01)
    assert moments.first == pytest.approx([0.0075, -0.0075 + 0.00109861], abs=1e-8)
    assert stepped == pytest.approx([-0.1, math.log(3) + 0.1])


def test_famo_step_is_the_jacobian_and_adam_of_torch():
    decreases = np.random.default_rng(1).normal(0, 0.1, (50, 3))
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=LEARNING_RATE, weight_decay=1e-2)
    logits, moments = np.zeros(3), Moments.zero(3)
    for step in decreases:
        adam.zero_grad()
        torch.softmax(parameter, 0).backward(torch.tensor(step))
        adam.step()
        logits, moments = famo_step(logits, step, moments, np.ones(3, dtype=bool), decay=1e-2)
    assert logits == pytest.approx(parameter.tolist(), rel=1e-9)


def test_famo_averages_log_losses_and_divides_by_them():
    balancer = Famo(2)
    balancer.observe({0: 1.0, 1: 4.0})
    assert balancer.weights() == pytest.approx([0.8, 0.2])  # 1/1 : 1/4, z equal
    balancer.observe({0: 1.0, 1: 1.0})
    # log 4 -> .9 log 4 + .1 log 1, that is 4 ** .9 = 3.482202; it fell, so its logit is one Adam step down, 0's one up
    assert balancer.state()["log_losses"] == pytest.approx([0, math.log(3.482202)], abs=1e-6)
    assert balancer.state()["logits"] == pytest.approx([LEARNING_RATE, -LEARNING_RATE], rel=1e-5)
    up, down = math.exp(LEARNING_RATE), math.exp(-LEARNING_RATE) / 3.482202
    assert balancer.weights() == pytest.approx([up / (up + down), down / (up + down)], rel=1e-5)


ADAPTIVE = ["uncertainty", "dwa", "famo"]


def run(name: str, losses: np.ndarray, tasks: int = 3) -> Balancer:
    """Return the balancer after `losses` (steps, T); NaN where a task is absent."""
    balancer = make_balancer(name, [f"t{i}" for i in range(tasks)])
    for step in losses:
        balancer.observe({task: loss for task, loss in enumerate(step.tolist()) if not math.isnan(loss)})
    return balancer


def falling(steps: int = 120, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(-np.arange(steps)[:, None] * [0.002, 0.01, 0.02]) * [3, 1, 2] * rng.lognormal(0, noise, (steps, 3))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_equal_losses_mean_equal_weights(name):
    losses = np.repeat(falling()[:, :1], 3, axis=1)
    assert run(name, losses).weights() == pytest.approx([1 / 3] * 3)
    assert run(name, losses[:0]).weights() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_weights_sum_to_one_and_follow_a_permutation_of_the_tasks(name):
    weights = run(name, falling()).weights()
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    assert run(name, falling()[:, [2, 0, 1]]).weights() == pytest.approx(weights[[2, 0, 1]])


def test_dwa_and_famo_do_not_see_a_losss_scale():
    scale = np.array([1.0, 20.0, 5.0])
    assert run("dwa", falling() * scale).weights() == pytest.approx(run("dwa", falling()).weights())
    one, other = run("famo", falling()), run("famo", falling() * scale)
    assert other.state()["logits"] == pytest.approx(one.state()["logits"])
    contributions = other.weights() * scale  # weight * loss, and so the gradient, is the same but for a factor
    assert contributions / contributions.sum() == pytest.approx(one.weights())


@pytest.mark.parametrize("name", [*BALANCES, "fixed"])
def test_a_resumed_balancer_goes_on_bit_by_bit(name):
    tasks = ["t0", "t1", "t2"]
    losses = falling()
    losses[::3, 1] = np.nan  # absent now and then
    value = {"t0": 1, "t1": 0.3, "t2": 0} if name == "fixed" else name

    def observe(balancer, steps):
        for step in steps:
            balancer.observe({task: loss for task, loss in enumerate(step.tolist()) if not math.isnan(loss)})

    whole, first, second = (make_balancer(value, tasks) for _ in range(3))
    observe(whole, losses)
    observe(first, losses[:60])  # in the middle of a window of DWA's
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    observe(second, losses[60:])
    assert second.weights().tolist() == whole.weights().tolist()
    assert second.state() == whole.state()
    assert second.adaptive == (name in ADAPTIVE)


def test_an_absent_task_keeps_what_is_known_of_it():
    absent = falling(60)
    absent[30:, 2] = np.nan

    uncertainty, before = run("uncertainty", absent), run("uncertainty", absent[:30])
    assert uncertainty.state()["log_variances"][2] == before.state()["log_variances"][2]
    assert uncertainty.state()["log_variances"][0] != before.state()["log_variances"][0]

    dwa = DynamicWeightAverage(2, window=2)
    for step in [(2, 2), (2, 2), (1, 1), (1, 1), (1, None), (1, None)]:
        dwa.observe({task: loss for task, loss in enumerate(step) if loss})
    assert dwa.weights() == pytest.approx(dwa_weights(np.array([1.0, 1.0]), np.array([1.0, 2.0])))  # ratios 1, 1/2

    famo = run("famo", absent)
    assert famo.state()["log_losses"][2] == run("famo", absent[:30]).state()["log_losses"][2]
    # others fall while it is known to stand still: it gains, as the slower task should
    assert famo.state()["logits"][2] > run("famo", absent[:30]).state()["logits"][2]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_task_never_seen_stays_neutral(name):
    losses = falling()
    losses[:, 2] = np.nan
    weights, two = run(name, losses).weights(), run(name, losses[:, :2], tasks=2).weights()
    assert weights[:2] / weights[:2].sum() == pytest.approx(two)
    assert np.isfinite(weights).all() and weights[2] > 0


@pytest.mark.parametrize("name", ADAPTIVE)
def test_no_loss_breaks_a_balancer(name):
    balancer = run(name, falling())
    before = balancer.state()
    balancer.observe({})
    balancer.observe({0: math.nan, 1: math.inf})
    assert {k: v for k, v in balancer.state().items() if k != "steps"} == {
        k: v for k, v in before.items() if k != "steps"
    }
    for _ in range(60):
        balancer.observe({0: 0.0, 1: 1.0, 2: 1e4})
    assert np.isfinite(balancer.weights()).all()
    if name == "famo":
        assert balancer.state()["log_losses"][0] > math.log(LOSS_FLOOR) - 1e-9


def descend(balancer: Balancer, curvatures: list[float], steps: int, rate: float = 0.05) -> np.ndarray:
    """Return (T,) log(L at the start / L at the end) of T losses a/2 * x**2, each of its own x, that share the weights.

    Left alone a task's loss falls at a rate in proportion to weight * curvature.
    """
    a, x = np.array(curvatures), np.full(len(curvatures), 2.0)
    start = a / 2 * x**2
    for _ in range(steps):
        balancer.observe(dict(enumerate((a / 2 * x**2).tolist())))
        x = x - rate * balancer.weights() * a * x
    return np.log(start / (a / 2 * x**2))


def test_famo_lets_all_tasks_fall_alike():
    equal = descend(make_balancer("task", ["slow", "fast"]), [0.25, 1.0], 140)
    famo = descend(Famo(2), [0.25, 1.0], 140)
    assert equal[1] / equal[0] == pytest.approx(4, rel=0.05)
    assert famo[1] / famo[0] < 1.5 and famo.min() > 1.5 * equal.min()


def test_famo_is_not_led_by_a_loss_of_large_scale():
    # 100 * ((x - 1)**2 + y**2 + .1) against (x + 1)**2 + y**2 + .1: the sum's minimum lies at x = .98
    def fall(balancer):
        point, start = np.array([-0.5, 3.0]), None
        for _ in range(400):
            offsets = np.array([[point[0] - 1, point[1]], [point[0] + 1, point[1]]])
            losses = np.array([100.0, 1.0]) * ((offsets**2).sum(1) + 0.1)
            start = losses if start is None else start
            balancer.observe(dict(enumerate(losses.tolist())))
            gradient = balancer.weights() @ (np.array([[100.0], [1.0]]) * 2 * offsets)
            point = point - 0.02 * gradient / max(1.0, np.linalg.norm(gradient))  # clipped, as a trainer does
        return np.log(start / losses)

    equal, famo = fall(make_balancer("task", ["large", "small"])), fall(Famo(2))
    assert famo.min() > equal.min() + 0.5
    assert abs(famo[0] - famo[1]) < 0.25 * abs(equal[0] - equal[1])


def test_famo_finds_the_slow_task_under_the_noise_of_minibatches():
    steps = np.arange(400)[:, None]
    for seed in range(5):
        noise = np.random.default_rng(seed).lognormal(0, 0.1, (400, 2))
        losses = np.exp(-steps * [0.002, 0.0]) * noise  # a step changes a fiftieth of the noise
        logits = run("famo", losses, tasks=2).state()["logits"]
        assert logits[1] - logits[0] > 0.3


def test_dwa_gives_the_slow_task_more():
    equal = descend(make_balancer("task", ["slow", "fast"]), [0.25, 1.0], 140)
    dwa = descend(DynamicWeightAverage(2), [0.25, 1.0], 140)  # both losses still above the floor
    assert dwa[0] > 1.04 * equal[0] and dwa[1] < equal[1]


def test_uncertainty_weighs_by_the_inverse_of_what_a_task_cannot_lose():
    noise = np.random.default_rng(0).lognormal(0, 0.05, (600, 2))
    balancer = run("uncertainty", noise * [0.5, 4.0], tasks=2)
    assert balancer.weights()[0] / balancer.weights()[1] == pytest.approx(8, rel=0.1)
    assert balancer.state()["log_variances"] == pytest.approx(np.log([1.0, 8.0]), abs=0.1)  # log 2L


def test_words_and_mappings_make_balancers():
    tasks = ["gsm8k", "critique/gsm8k"]
    for word in ("token", "example", "task"):
        balancer = make_balancer(word, tasks)
        assert (balancer.name, balancer.unit, balancer.adaptive) == (word, word, False)
        assert balancer.weights().tolist() == [0.5, 0.5]
    for word in ADAPTIVE:
        balancer = make_balancer(word, tasks)
        assert (balancer.name, balancer.unit, balancer.adaptive) == (word, "task", True)
    fixed = make_balancer({"critique/gsm8k": 3, "gsm8k": 1}, tasks)  # in the tasks' order, not the mapping's
    assert (fixed.name, fixed.unit, fixed.adaptive) == ("fixed", "task", False)
    assert fixed.weights().tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("tokens", "sft.balance: unknown balance 'tokens' (did you mean 'token'?)"),
        ({"gsm8": 1, "aqua": 1}, "sft.balance: the mixture has no task 'gsm8' (did you mean 'gsm8k'?)"),
        ({"gsm8k": -1, "aqua": 1}, "sft.balance: the weight of gsm8k is -1; give a number of at least 0"),
        ({"gsm8k": math.nan, "aqua": 1}, "the weight of gsm8k is nan"),
        ({"gsm8k": math.inf, "aqua": 1}, "the weight of gsm8k is inf"),
        ({"gsm8k": "much", "aqua": 1}, "the weight of gsm8k is 'much'"),
        ({"gsm8k": 0, "aqua": 0.0}, "sft.balance: every weight is 0"),
        ({"gsm8k": 1}, "sft.balance: no weight for aqua; give every task of the mixture one"),
        ({}, "sft.balance: no weight for gsm8k, aqua"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(value, sentence):
    with pytest.raises(UserError) as raised:
        make_balancer(value, ["gsm8k", "aqua"])
    assert sentence in str(raised.value)
