"""Bins and the expected calibration error against numbers worked out by hand."""

import pytest

from eval.calibration import calibration_bins, expected_calibration_error
from eval.statistics import wilson


def test_bins_hold_means_and_shares():
    predicted = [0.05, 0.15, 0.12, 0.95, 0.93, 0.97, 1.0, 0.5]
    came_true = [False, True, False, True, True, False, True, True]
    bins = calibration_bins(predicted, came_true)
    assert [(one.low, one.high, one.n) for one in bins] == [(0, 0.1, 1), (0.1, 0.2, 2), (0.5, 0.6, 1), (0.9, 1, 4)]
    assert [one.predicted for one in bins] == pytest.approx([0.05, 0.135, 0.5, 0.9625])
    assert [one.actual for one in bins] == pytest.approx([0, 0.5, 1, 0.75])
    assert bins[3].interval == wilson(3, 4)
    # (1 * 0.05 + 2 * 0.365 + 1 * 0.5 + 4 * 0.2125) / 8
    assert expected_calibration_error(bins) == pytest.approx(2.13 / 8)


def test_chances_that_hold_have_no_error():
    assert expected_calibration_error(calibration_bins([0.25] * 4 + [1.0], [True, False, False, False, True])) == 0
