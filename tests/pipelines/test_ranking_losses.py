"""Losses of reward margins against numbers worked out by hand."""

from math import log

import pytest
import torch

from pipelines.ranking.losses import focal_ranking_loss, ranking_loss

# sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(ln 9) = 9/10
MARGINS = torch.tensor([log(3), -log(3), 0.0, log(9)], dtype=torch.float64)


def test_the_ranking_loss_is_minus_the_logarithm_of_the_chance():
    by_hand = [-log(3 / 4), -log(1 / 4), log(2), -log(9 / 10)]
    assert ranking_loss(MARGINS).tolist() == pytest.approx(by_hand)


def test_the_focal_loss_weighs_only_what_is_ranked_right_already():
    # 1 - 2 max(0, P - 1/2): P 3/4 -> 1/2, P 1/4 -> 1, P 1/2 -> 1, P 9/10 -> 1/5
    by_hand = [0.25 * -log(3 / 4), log(4), log(2), 0.04 * -log(9 / 10)]
    assert focal_ranking_loss(MARGINS, 2.0).tolist() == pytest.approx(by_hand)
    assert focal_ranking_loss(MARGINS[:1], 1.0).item() == pytest.approx(0.5 * -log(3 / 4))
    assert focal_ranking_loss(MARGINS, 0.0).equal(ranking_loss(MARGINS))


def test_gradients_by_hand():
    # below 1/2 those of -log P: P - 1; above: with w = 2 (1 - P), d(w^2 (-log P))/dm = w^2 (2 P log P - (1 - P))
    margins = MARGINS[:2].clone().requires_grad_()
    focal_ranking_loss(margins, 2.0).sum().backward()
    assert margins.grad.tolist() == pytest.approx([0.25 * (1.5 * log(3 / 4) - 1 / 4), -3 / 4])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_large_margins_stay_finite(gamma):
    margins = torch.tensor([1e4, 200.0, 90.0, -90.0, -200.0, -1e4], requires_grad=True)
    losses = focal_ranking_loss(margins, gamma)
    losses.sum().backward()
    assert losses.isfinite().all() and margins.grad.isfinite().all()
    assert losses[:3].tolist() == pytest.approx([0, 0, 0], abs=1e-30)
    assert losses[3:].tolist() == pytest.approx([90, 200, 1e4])
    assert margins.grad.tolist() == pytest.approx([0, 0, 0, -1, -1, -1], abs=1e-30)
