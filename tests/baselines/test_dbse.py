"""DBSE: sizes of the original, what each code may see, the weights, and the released code's faults."""

import itertools
from dataclasses import replace

import pytest
import torch

from baselines.small_models import make_model, step, video
from divid.baselines.dbse import DBSEModel, cyclic_weight
from divid.baselines.options import DBSEConfig, DBSEWeights

SPRITES = DBSEConfig(preset="small", backbone="dcgan", objective="original")


def test_the_original_has_its_number_of_parameters():
    model = DBSEModel(SPRITES)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(14.90e6, rel=0.02)
    assert model.frame_shape == (3, 64, 64)


def test_the_static_code_sees_the_first_frame_only():
    model = make_model("dbse").eval()
    clip = video()
    other = torch.cat([clip[:, :1], video(frames=9)[:, 5:]], dim=1)
    torch.testing.assert_close(model.encode(clip).static, model.encode(other).static)
    assert not torch.allclose(model.encode(clip).dynamic, model.encode(other).dynamic)


def test_a_still_clip_has_the_same_motion_whatever_it_shows():
    model = make_model("dbse").eval()
    codes = model.encode(video(clips=2, frames=1).expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(codes.dynamic[0], codes.dynamic[1])
    assert not torch.allclose(codes.static[0], codes.static[1])


def lstm_input(model, randomness=None):
    seen = []
    handle = model.lstm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.posteriors(model.frame_features(video()), randomness)
    handle.remove()
    return seen[0]


def test_motion_is_read_from_residuals():
    model = make_model("dbse").eval()
    features = model.frame_features(video())
    torch.testing.assert_close(lstm_input(model)[:, 1:], features[:, 1:] - features[:, :1])


def test_noise_stands_in_the_first_place_seeded_outside_of_training():
    model = make_model("dbse").eval()
    assert torch.equal(lstm_input(model), lstm_input(model))
    first = lstm_input(model)[:, 0]
    assert torch.equal(first[0], first[1])
    assert first.std().item() == pytest.approx(1, abs=0.2)
    drawn = lstm_input(model, step())[:, 0]
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn, lstm_input(model, step())[:, 0])
    assert not torch.equal(drawn, lstm_input(model, step(number=1))[:, 0])


@pytest.mark.parametrize(("first_position", "in_training"), [("noise_in_training", True), ("zeros", False)])
def test_the_noise_can_be_left_out(first_position, in_training):
    model = make_model("dbse", first_position=first_position).eval()
    assert (lstm_input(model)[:, 0] == 0).all()
    assert (lstm_input(model, step())[:, 0] != 0).all() == in_training


def test_the_two_reconstructions_are_of_all_frames_and_of_the_first():
    model = make_model("dbse").eval()
    terms = model.losses(video(), step())
    posteriors = model.posteriors(model.frame_features(video()), step())
    drawn = model.draw_posteriors(posteriors, step())
    errors = (model.render(drawn.static, drawn.dynamic) / 2 - video() / 2).square().sum((2, 3, 4))
    torch.testing.assert_close(terms["sequence"], errors.sum() / 3)
    torch.testing.assert_close(terms["first_frame"], errors[:, 0].sum() / 3)
    later = make_model("dbse", sequence_starts_at=2).eval().losses(video(), step())
    torch.testing.assert_close(later["sequence"], errors[:, 1:].sum() / 3)


@pytest.mark.parametrize("starts_at", [1, 2])
def test_few_frames_have_the_sum_over_all_as_their_mean(starts_at, monkeypatch):
    model = make_model("dbse", sequence_starts_at=starts_at).eval()
    everything = model.losses(video(), step())
    seen = []
    for pair in itertools.combinations(range(4), 2):
        monkeypatch.setattr("divid.baselines.dbse.pick_frames", lambda *_, pair=pair: torch.tensor([pair] * 3))
        seen.append(model.losses(video(), step(), num_decoded_frames=3))
    for name in ("sequence", "first_frame", "pixels"):
        values = torch.stack([terms[name] for terms in seen])
        torch.testing.assert_close(values.mean(), everything[name])
        assert (values.std() > 0) == (name != "first_frame")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_first_frame_and_others_are_decoded(count):
    model = make_model("dbse").eval()
    decoded = []
    render = model.render
    model.render = lambda static, dynamic: decoded.append(dynamic) or render(static, dynamic)
    model.losses(video(), step(), num_decoded_frames=count)
    posteriors = model.posteriors(model.frame_features(video()), step())
    drawn = model.draw_posteriors(posteriors, step()).dynamic
    assert decoded[0].shape[1] == max(2, count)
    torch.testing.assert_close(decoded[0][:, 0], drawn[:, 0])


@pytest.mark.parametrize("number", [0, 1, 999])
@pytest.mark.parametrize("cycles", [0, 20])
def test_the_static_kl_has_its_weight_in_every_step(number, cycles):
    """In the released code it is 0 from the first epoch on."""

    def total(weight):
        options = {"weights": DBSEWeights(static_kl=weight), "num_train_steps": 1000, "dynamic_kl_cycles": cycles}
        return make_model("dbse", **options).losses(video(), step(number=number))

    with_weight, without = total(15.0), total(0.0)
    assert with_weight["static_kl"] > 0
    difference = with_weight["total"] - without["total"]
    torch.testing.assert_close(difference, 15 * with_weight["static_kl"], rtol=1e-3, atol=1e-3)


def test_the_cyclic_weight_rises_along_a_cosine_and_stays():
    weights = [cyclic_weight(progress, 2) for progress in (0, 0.125, 0.25, 0.4, 0.5, 0.625, 0.75, 0.9, 1)]
    assert weights == pytest.approx([0, 0.5, 1, 1, 0, 0.5, 1, 1, 1])
    assert cyclic_weight(0.1, 0) == 1


def test_the_dynamic_kl_follows_its_cycles():
    options = {"num_train_steps": 100, "dynamic_kl_cycles": 1, "weights": DBSEWeights(0, 0, 0, 2)}
    model = make_model("dbse", **options).eval()
    for number, weight in ((0, 0), (25, 1), (50, 2), (99, 2), (-1, 2)):
        terms = model.losses(video(), step(number=number))
        torch.testing.assert_close(terms["total"], weight * terms["dynamic_kl"])
    unknown = make_model("dbse", **(options | {"num_train_steps": 0})).losses(video(), step())
    torch.testing.assert_close(unknown["total"], 2 * unknown["dynamic_kl"])


def test_weights_of_the_objectives():
    assert replace(SPRITES, objective="original").resolve().weights == DBSEWeights(5, 1, 1, 1)
    assert replace(SPRITES, objective="paper").resolve().weights == DBSEWeights(10, 2, 5, 1)
