"""SPYL: size of the original, mutual information and contrast against their definitions, the bank, the weights."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from baselines.small_models import make_model, step, video
from divid.baselines.options import SPYLConfig, SPYLWeights
from divid.baselines.spyl import (
    SPYLModel,
    contrastive_loss,
    farthest_half,
    log_density,
    mutual_information,
    pairwise_divergence,
)
from divid.baselines.vae import Gaussian, Posteriors


def gaussian(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(*torch.randn(2, *shape, generator=generator, dtype=torch.float64))


def normal(q, index=slice(None)):
    return Normal(q.mean[index], (0.5 * q.logvar[index]).exp())


def test_the_original_has_its_number_of_parameters():
    model = SPYLModel(SPYLConfig(preset="small", backbone="dcgan", objective="original"))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.03e6, rel=0.02)


def test_the_static_code_is_read_from_both_ends():
    model = make_model("spyl").eval()
    seen = []
    model.static_mean.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = model.frame_features(video())
    model.posteriors(features)
    _, (last, _) = model.lstm(features)  # the state of each direction after its last step
    torch.testing.assert_close(seen[0], torch.cat([last[0], last[1]], dim=1))


def test_log_density_takes_log_variances():
    """The released code hands the log variance where the logarithm of the deviation is expected."""
    q, values = gaussian(3, 4), gaussian(3, 4, seed=1).mean
    torch.testing.assert_close(log_density(values, q), normal(q).log_prob(values))


def by_hand(static, dynamic, s, d, num_clips):
    B, F = d.shape[:2]
    total = 0.0
    for i in range(B):
        for f in range(F):
            pairs = [(normal(static, j).log_prob(s[i]).sum(), normal(dynamic, (j, f)).log_prob(d[i, f]).sum()) for j in range(B)]
            log_s, log_d, both = (
                torch.stack(values).logsumexp(0) - math.log(B * num_clips)
                for values in ([a for a, _ in pairs], [b for _, b in pairs], [a + b for a, b in pairs])
            )
            total += max(0.0, (both - log_s - log_d).item()) / (B * F)
    return total


@pytest.mark.parametrize("num_clips", [4, 100])
def test_mutual_information_is_the_minibatch_weighted_estimate(num_clips):
    static, dynamic = gaussian(4, 3), gaussian(4, 5, 2, seed=1)
    s, d = static.draw(gaussian(4, 3, seed=2).mean), dynamic.draw(gaussian(4, 5, 2, seed=3).mean)
    given = mutual_information(Posteriors(static, dynamic), s, d, num_clips).item()
    assert given == pytest.approx(by_hand(static, dynamic, s, d, num_clips))
    assert given > 0


def test_an_unknown_number_of_clips_is_the_batchs():
    static, dynamic = gaussian(4, 3), gaussian(4, 5, 2, seed=1)
    codes = (Posteriors(static, dynamic), static.mean, dynamic.mean)
    assert mutual_information(*codes, 0) == mutual_information(*codes, 4) < mutual_information(*codes, 50)


def test_mutual_information_has_right_gradients():
    q, p = gaussian(3, 2), gaussian(3, 2, 2, seed=1)
    values = [x.requires_grad_() for x in (q.mean, q.logvar, p.mean, p.logvar)]

    def estimate(a, b, c, d):
        return mutual_information(Posteriors(Gaussian(a, b), Gaussian(c, d)), a + 0.3, c - 0.2, 50)

    assert torch.autograd.gradcheck(estimate, values)


def test_pairwise_divergence_is_the_closed_form():
    q, bank = gaussian(3, 4, 2), gaussian(5, 4, 2, seed=1)
    expected = torch.stack([
        torch.stack([kl_divergence(normal(q, i), normal(bank, j)).sum() for j in range(5)]) for i in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(pairwise_divergence(q, bank), expected)


def test_negatives_are_the_farther_half_of_the_bank():
    q, bank = gaussian(2, 3), gaussian(8, 3, seed=1)
    places = farthest_half(q, bank)
    assert places.shape == (2, 4)
    for row, distances in zip(places, pairwise_divergence(q, bank), strict=True):
        left_out = [j for j in range(8) if j not in row.tolist()]
        assert distances[row].min() >= distances[left_out].max()


def test_contrastive_loss_is_its_definition():
    anchors, positives, negatives = gaussian(3, 4).mean, gaussian(3, 4, seed=1).mean, gaussian(3, 5, 4, seed=2).mean

    def similarity(a, b):
        return (a @ b / (a.norm() * b.norm()) / 0.5).exp()

    expected = 0.0
    for a, p, negs in zip(anchors, positives, negatives, strict=True):
        others = sum(similarity(a, n) for n in negs)
        expected -= (similarity(a, p) / (similarity(a, p) + others)).log().item() / 3
    assert contrastive_loss(anchors, positives, negatives, 0.5).item() == pytest.approx(expected)


def test_contrastive_loss_has_right_gradients():
    values = [x.requires_grad_() for x in (gaussian(2, 3).mean, gaussian(2, 3, seed=1).mean, gaussian(2, 4, 3, seed=2).mean)]
    assert torch.autograd.gradcheck(lambda a, p, n: contrastive_loss(a, p, n, 0.5), values)


def test_an_encoder_that_finds_what_was_decoded_has_less_contrast():
    anchors, negatives = gaussian(4, 6).mean, gaussian(4, 5, 6, seed=1).mean
    right, wrong = (contrastive_loss(anchors, positives, negatives, 0.5) for positives in (anchors, -anchors))
    assert right < wrong


def test_contrast_begins_after_its_share_of_the_steps():
    options = {"num_train_steps": 100, "contrast_starts_at": 0.05}
    model = make_model("spyl", **options)
    begun = {number: "contrast" in model.losses(video(), step(number=number)) for number in (0, 4, 5, 99, -1)}
    assert begun == {0: False, 4: False, 5: True, 99: True, -1: True}
    assert "contrast" not in make_model("spyl", weights=SPYLWeights(contrast=0)).losses(video(), step())


def test_the_bank_has_its_size_and_lets_no_gradient_through():
    model = make_model("spyl", bank_size=4)
    made = []
    reencode = model._reencode

    def spy(codes):
        made.append(reencode(codes))
        return made[-1]

    model._reencode = spy
    model.losses(video(), step())
    bank, same_static, same_motion = made
    assert len(bank.static.mean) == 12
    assert not bank.static.mean.requires_grad
    assert same_static.static.mean.requires_grad and same_motion.dynamic.mean.requires_grad
    assert len(same_static.static.mean) == len(same_motion.static.mean) == 3


def test_generated_clips_leave_the_batch_norms_alone():
    model = make_model("spyl", "dcgan")
    posteriors = model.posteriors(model.frame_features(video()))
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.contrast(posteriors, step())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("objective", ["paper", "original"])
def test_weights_of_the_objectives(objective):
    assert SPYLConfig(objective=objective).resolve().weights == SPYLWeights(10, 5, 1, 1, 1)


def test_few_frames_have_the_sum_over_all_as_their_mean(monkeypatch):
    model = make_model("spyl").eval()
    everything = model.losses(video(), step())
    seen = []
    for pair in itertools.combinations(range(5), 2):
        monkeypatch.setattr("divid.baselines.spyl.pick_frames", lambda *_, pair=pair: torch.tensor([pair] * 3))
        seen.append(model.losses(video(), step(), num_decoded_frames=2))
    for name in ("reconstruction", "pixels", "contrast"):
        values = torch.stack([terms[name] for terms in seen])
        torch.testing.assert_close(values.mean(), everything[name])
        assert (values.std() > 1e-6) == (name != "contrast")
