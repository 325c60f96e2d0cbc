"""Inception score and entropies in closed form."""

import math

import pytest
import torch

from divid.evaluation.inception import ClassScores


def values(scores):
    return scores.inception_score, scores.conditional_entropy, scores.marginal_entropy


def test_sure_and_varied_clips_reach_the_number_of_classes():
    scores = ClassScores.of(torch.eye(5).repeat(4, 1))
    assert values(scores) == pytest.approx((5, 0, math.log(5)))
    assert (scores.num_classes, scores.num_clips) == (5, 20)


def test_a_judge_that_knows_nothing_gives_1():
    assert values(ClassScores.of(torch.full((7, 4), 0.25))) == pytest.approx((1, math.log(4), math.log(4)))


def test_clips_that_are_all_alike_give_1():
    assert values(ClassScores.of(torch.tensor([[0.0, 1.0, 0.0]]).repeat(6, 1))) == pytest.approx((1, 0, 0))


@pytest.mark.parametrize("doubt", [0.1, 0.25, 0.4])
def test_two_classes_of_equal_doubt(doubt):
    """H(y|x) is the binary entropy h(doubt), H(y) = ln 2."""
    entropy = -doubt * math.log(doubt) - (1 - doubt) * math.log(1 - doubt)
    rows = torch.tensor([[doubt, 1 - doubt], [1 - doubt, doubt]], dtype=torch.float64)
    assert values(ClassScores.of(rows)) == pytest.approx((2 * math.exp(-entropy), entropy, math.log(2)))


def test_the_score_is_the_mean_divergence_from_the_marginal():
    p = torch.rand(30, 6, dtype=torch.float64).softmax(1)
    divergence = (p * (p / p.mean(0)).log()).sum(1).mean()
    assert ClassScores.of(p).inception_score == pytest.approx(math.exp(divergence))


def test_uneven_classes_lower_the_marginal_entropy():
    scores = ClassScores.of(torch.eye(2)[[0, 0, 0, 1]])
    assert scores.marginal_entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert scores.to_dict() == {
        "inception_score": scores.inception_score,
        "conditional_entropy": 0.0,
        "marginal_entropy": scores.marginal_entropy,
        "num_classes": 2,
        "num_clips": 4,
    }
