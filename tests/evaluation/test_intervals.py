"""Intervals against closed forms, and against coverage where the truth is known."""

import math

import numpy as np
import pytest

from divid.evaluation.intervals import NORMAL_95, ClipBootstrap, Rate, wilson_interval


@pytest.mark.parametrize(("num_right", "num"), [(0, 10), (3, 10), (10, 10), (1, 1), (1234, 2000)])
def test_wilson_ends_are_where_the_normal_test_just_rejects(num_right, num):
    low, high = wilson_interval(num_right, num)
    assert 0 <= low <= num_right / num <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(num_right / num - end) == pytest.approx(NORMAL_95 * math.sqrt(end * (1 - end) / num), abs=1e-12)


def test_wilson_at_known_places():
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(0, 10) == (0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1)


def test_the_bootstrap_of_single_clips_is_that_of_a_mean():
    is_right = np.arange(400) % 4 == 0
    rate = ClipBootstrap(np.arange(400)[:, None]).rate(is_right)
    half = NORMAL_95 * math.sqrt(0.25 * 0.75 / 400)
    assert (rate.rate, rate.num) == (0.25, 400)
    assert rate.bootstrap == pytest.approx((0.25 - half, 0.25 + half), abs=0.01)


def test_pairs_that_reuse_few_clips_are_less_sure_than_wilson_says():
    pairs = np.array([(a, b) for a in range(20) for b in range(20) if a != b])
    is_right = pairs[:, 0] % 2 == 0  # half of the clips always work, as the first of a pair
    rate = ClipBootstrap(pairs).rate(is_right)
    assert rate.rate == pytest.approx(0.5)
    assert np.ptp(rate.bootstrap) > 2 * np.ptp(rate.wilson)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        is_right = rng.random(60) < 0.7
        low, high = ClipBootstrap(np.arange(60)[:, None], seed=trial).rate(is_right).bootstrap
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 198


def test_only_the_answers_asked_for_count():
    is_right, among = np.array([True, True, False, False]), np.array([True, False, True, False])
    rate = ClipBootstrap(np.arange(4)[:, None]).rate(is_right, among)
    assert (rate.rate, rate.num, rate.wilson) == (0.5, 2, wilson_interval(1, 2))


def test_sure_answers_have_no_width_and_one_clip_no_interval():
    sure = ClipBootstrap(np.arange(5)[:, None]).rate(np.ones(5, dtype=bool))
    assert sure.bootstrap == (1, 1)
    assert sure.interval == (sure.wilson[0], 1)
    alone = ClipBootstrap(np.zeros((3, 1), dtype=int)).rate(np.ones(3, dtype=bool))
    assert math.isnan(alone.bootstrap[0])
    none = ClipBootstrap(np.arange(2)[:, None]).rate(np.ones(2, dtype=bool), np.zeros(2, dtype=bool))
    assert math.isnan(none.rate)
    assert (none.num, none.wilson) == (0, (0, 1))


def test_the_seed_decides_the_resamples():
    is_right, owners = np.arange(997) % 3 == 0, np.arange(997)[:, None]
    one, same, other = (ClipBootstrap(owners, seed).rate(is_right).bootstrap for seed in (1, 1, 2))
    assert one == same != other


def test_json_has_null_for_what_is_not_a_number():
    rate = Rate(0.5, 2, (0.1, 0.9), (math.nan, math.nan))
    assert rate.interval == (0.1, 0.9)
    assert rate.to_dict() == {"rate": 0.5, "num": 2, "wilson": [0.1, 0.9], "bootstrap": [None, None]}
    assert Rate.from_dict(rate.to_dict()).to_dict() == rate.to_dict()
    known = Rate(0.5, 2, (0.1, 0.9), (0.2, 0.8))
    assert Rate.from_dict(known.to_dict()) == known
