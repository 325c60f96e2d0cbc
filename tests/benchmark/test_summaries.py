from __future__ import annotations

import math

import numpy as np
import pytest

from divid.benchmark.summaries import Measured, difference, mean_of, over_seeds, paired_difference


def test_one_seed_keeps_its_interval_and_has_no_spread():
    summary = over_seeds([Measured(0.5, 0.4, 0.7)])
    assert (summary.mean, summary.low, summary.high) == pytest.approx((0.5, 0.4, 0.7))
    assert (summary.spread, summary.values) == (None, (0.5,))


def test_equal_seeds_add_nothing_to_the_interval_and_take_nothing_away():
    summary = over_seeds([Measured(0.5, 0.4, 0.6)] * 4)
    assert (summary.mean, summary.low, summary.high, summary.spread) == pytest.approx((0.5, 0.4, 0.6, 0.0))


def test_seeds_alone_give_students_interval():
    summary = over_seeds([Measured(value, value, value) for value in (1.0, 2.0, 3.0)])
    half = 4.302653 / math.sqrt(3)  # t of 2 degrees of freedom, spread 1
    assert summary.spread == pytest.approx(1.0)
    assert (summary.low, summary.high) == pytest.approx((2 - half, 2 + half), rel=1e-6)


def test_both_parts_add_as_squares_and_stay_within_bounds():
    summary = over_seeds([Measured(0.2, 0.1, 0.3), Measured(0.4, 0.3, 0.5)])
    half = math.hypot(0.1, 12.7062047 * math.sqrt(0.02) / math.sqrt(2))
    assert (summary.low, summary.high) == pytest.approx((0.3 - half, 0.3 + half), rel=1e-6)
    bounded = over_seeds([Measured(0.2, 0.1, 0.3), Measured(0.4, 0.3, 0.5)], (0.0, 1.0))
    assert (bounded.low, bounded.high) == (0.0, 1.0)


def test_no_interval_stays_none():
    summary = over_seeds([Measured(0.5, math.nan, math.nan)])
    assert (summary.low, summary.high) == (None, None)


def test_means_and_differences_of_symmetric_intervals_add_as_squares():
    one, other = Measured(0.9, 0.6, 1.2), Measured(0.5, 0.1, 0.9)
    gap = difference(one, other)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.4, -0.1, 0.9))
    mean = mean_of([one, other])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.7, 0.45, 0.95))


def test_a_difference_takes_the_ends_that_face_each_other():
    gap = difference(Measured(0.5, 0.5, 0.8), Measured(0.5, 0.4, 0.5))
    assert (gap.value, gap.low) == pytest.approx((0.0, 0.0))
    assert gap.high == pytest.approx(math.hypot(0.3, 0.1))
    back = difference(Measured(0.5, 0.4, 0.5), Measured(0.5, 0.5, 0.8))
    assert (back.low, back.high) == pytest.approx((-gap.high, -gap.low))


def test_shares_are_read_with_the_wider_ends_of_both_intervals():
    rate = {"rate": 0.5, "num": 4, "wilson": [0.2, 0.8], "bootstrap": [0.3, 0.9]}
    assert Measured.of_rate(rate) == Measured(0.5, 0.2, 0.9)
    assert Measured.of_rate({"rate": 0.0, "num": 4, "wilson": [0.0, 0.5], "bootstrap": [0.0, 0.0]}) == Measured(0.0, 0.0, 0.5)
    assert Measured.of_rate({**rate, "bootstrap": [None, None]}) == Measured(0.5, 0.2, 0.8)
    lone = Measured.of_estimate({"mean": 3.0, "low": None, "high": None, "num_clips": 1})
    assert lone.value == 3.0
    assert math.isnan(lone.low)


def answers(*counts):
    """Answers of both methods for (both right, first only, second only, none) pairs, in that order."""
    table = np.repeat([[True, True], [True, False], [False, True], [False, False]], counts, axis=0)
    return table[:, 0], table[:, 1]


def own_clips(count):
    return np.arange(2 * count).reshape(count, 2)


def test_a_paired_difference_counts_what_changed():
    gap = paired_difference(*answers(50, 20, 10, 20), own_clips(100))
    assert gap.value == pytest.approx(0.1)
    half = 1.959963984540054 * math.sqrt(31 - 100 / 102) / 102  # Agresti and Min: half an answer more in every cell
    assert gap.low <= 10 / 102 - half
    assert gap.high >= 10 / 102 + half
    assert 2 * half <= gap.high - gap.low < 4 * half  # a bootstrap of two clips a pair is wider than one of pairs


def test_it_is_the_same_the_other_way_round():
    one, other = answers(50, 20, 10, 20)
    gap, back = paired_difference(one, other, own_clips(100)), paired_difference(other, one, own_clips(100))
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))


def test_equal_answers_are_no_proof_that_nothing_differs():
    gap = paired_difference(*answers(30, 0, 0, 20), own_clips(50))
    half = 1.959963984540054 / 52
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.0, -half, half))


def test_a_paired_difference_stays_within_one():
    gap = paired_difference(*answers(0, 10, 0, 0), own_clips(10))
    assert gap.high == 1.0
    assert 0 < gap.low < 1


def test_pairs_that_share_clips_leave_more_open():
    one, other = answers(30, 15, 5, 10)
    shared = np.stack([np.arange(60) % 4, 4 + np.arange(60) // 15], axis=1)
    alone, together = (paired_difference(one, other, clips) for clips in (own_clips(60), shared))
    assert together.high - together.low > 1.3 * (alone.high - alone.low)
