"""What DBSE and SPYL promise alike, with both backbones: the protocol, gradients, swaps, files, and learning."""

from dataclasses import replace

import pytest
import torch

from baselines.small_models import MODELS, SIZE, VARIANTS, directional_derivatives, make_model, step, video
from divid.baselines.options import PerceptualConfig, SPYLWeights
from divid.config import SamplingConfig
from divid.errors import ConfigError
from divid.export import load_model, save_model
from divid.methods import METHODS
from divid.models.perceptual import PerceptualDistance, VGG16Features
from divid.types import Codes, Disentangler

both = pytest.mark.parametrize(("name", "backbone"), VARIANTS)


@both
def test_it_meets_the_protocol(name, backbone):
    model = make_model(name, backbone)
    assert isinstance(model, Disentangler)
    codes = model.eval().encode(video())
    assert codes.static.shape == (3, 6)
    assert codes.dynamic.shape == (3, 5, 4)
    made = model.decode(codes, seeds=[0, 1, 2])
    assert made.shape == (3, 5, 1, SIZE, SIZE)
    assert made.abs().max() <= 1


@both
def test_every_parameter_gets_a_gradient(name, backbone):
    model = make_model(name, backbone)
    terms = model.losses(video(), step())
    assert all(value.ndim == 0 and value.isfinite() for value in terms.values())
    terms["total"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert sum(parameter.grad.abs().sum() > 0 for parameter in model.parameters()) > 0.9 * len(list(model.parameters()))


@both
def test_gradients_are_those_of_finite_differences(name, backbone):
    # The contrastive terms take a bank and draws that are constants to the gradient, but not to finite differences.
    weights = {"weights": SPYLWeights(contrast=0.0)} if name == "spyl" else {}
    model = make_model(name, backbone, **weights).double().eval()
    analytic, numeric = directional_derivatives(model, video().double(), step())
    assert analytic == pytest.approx(numeric, rel=1e-4)


@both
def test_the_total_is_the_weighted_sum(name, backbone):
    _, options = MODELS[name]
    weights = {f: 0.5 + i for i, f in enumerate(vars(options.weights))}
    terms = make_model(name, backbone, weights=replace(options.weights, **weights)).losses(video(), step())
    expected = sum(weight * terms[term] for term, weight in weights.items())
    torch.testing.assert_close(terms["total"], expected)


@both
def test_equal_randomness_gives_equal_loss_and_another_step_another(name, backbone):
    losses = [make_model(name, backbone).losses(video(), step(number=n))["total"].item() for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@both
def test_a_few_steps_lower_the_loss(name, backbone):
    model, clips = make_model(name, backbone), 0.2 * video(4, 3) - 0.7
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for number in range(25):
        terms = model.losses(clips, step(4, number))
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        losses.append(terms["total"].item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@both
def test_a_swap_keeps_one_clips_static_code_and_the_others_dynamic_codes(name, backbone):
    model = make_model(name, backbone).eval()
    a, b = (model.encode(video(1, frames, seed)) for frames, seed in ((4, 1), (6, 2)))
    swap = a.with_motion_of(b)
    assert torch.equal(swap.static, a.static) and torch.equal(swap.dynamic, b.dynamic)
    made = model.decode(swap, seeds=[0])
    latents = torch.cat([b.dynamic[0], a.static.expand(6, -1)], dim=1)
    torch.testing.assert_close(made[0], 2 * model.frame_decoder(latents) - 1)
    assert not torch.equal(made, model.decode(Codes(a.static + 1, b.dynamic), seeds=[0]))


@both
def test_clips_and_chunks_are_decoded_alike_in_any_company(name, backbone):
    model = make_model(name, backbone).eval()
    codes, told = model.encode(video()), []
    whole = model.decode(codes, seeds=[0, 1, 2], callback=lambda *state: told.append(state[:2]))
    assert told == [(1, 1)]
    chunked = model.decode(codes, seeds=[0, 1, 2], sampling=SamplingConfig(chunk_frames=6))
    alone = model.decode(Codes(codes.static[1:2], codes.dynamic[1:2, 2:]), seeds=[7], first_frame=2)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(alone, whole[1:2, 2:])
    with pytest.raises(ConfigError, match="2 seeds for 3 clips"):
        model.decode(codes, seeds=[0, 1])


@both
def test_clips_are_encoded_alike_in_any_company(name, backbone):
    model = make_model(name, backbone).eval()
    codes, alone = model.encode(video()), model.encode(video()[1:2])
    torch.testing.assert_close(alone.static, codes.static[1:2])
    torch.testing.assert_close(alone.dynamic, codes.dynamic[1:2])


@both
def test_a_reference_takes_the_first_frames_part(name, backbone):
    model = make_model(name, backbone).eval()
    clip = video(frames=6)
    whole, features = model.encode(clip), model.frame_features(clip)
    codes = model.codes_from_features(features[:, 1:], reference=features[:, :1])
    torch.testing.assert_close(codes.static, whole.static)
    torch.testing.assert_close(codes.dynamic, whole.dynamic[:, 1:])


@both
def test_a_seed_draws_the_same_codes_in_any_batch(name, backbone):
    model = make_model(name, backbone).eval()
    many, one = model.draw_codes([3, 4, 5], 6), model.draw_codes([4], 6)
    assert many.dynamic.shape == (3, 6, 4)
    torch.testing.assert_close(many.static[1:2], one.static)
    torch.testing.assert_close(many.dynamic[1:2], one.dynamic)
    assert not torch.allclose(many.static[0], many.static[1])


@both
def test_saved_is_what_is_loaded(name, backbone, tmp_path, monkeypatch):
    cls, _ = MODELS[name]
    monkeypatch.setitem(METHODS, name, cls)
    model = make_model(name, backbone)
    model.losses(video(), step())  # batch norms have seen clips
    save_model(model.eval(), SamplingConfig(), tmp_path / "model", {"title": name})
    loaded, _ = load_model(tmp_path / "model")
    assert loaded.options == model.options
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.testing.assert_close(loaded.encode(video()).dynamic, model.encode(video()).dynamic)
    again = cls.from_pretrained(tmp_path / "model" / "model")
    torch.testing.assert_close(again.eval().encode(video()).static, model.encode(video()).static)


@both
def test_the_perceptual_part_is_added_and_belongs_to_no_file(name, backbone):
    plain = make_model(name, backbone).losses(video(), step())
    options = PerceptualConfig("vgg16", "weights.pth", 0.5)
    model = make_model(name, backbone, perceptual=options)
    keys = model.state_dict().keys()
    model._perceptual = PerceptualDistance(VGG16Features())
    terms = model.losses(video(), step())
    torch.testing.assert_close(terms["pixels"], plain["pixels"])
    key = "sequence" if name == "dbse" else "reconstruction"
    torch.testing.assert_close(terms[key], terms["pixels"] + 0.5 * terms["perceptual"])
    assert terms["perceptual"] > 0
    assert model.state_dict().keys() == keys
    terms["total"].backward()
    assert all(parameter.grad is None for parameter in model._perceptual.network.parameters())


@both
def test_frames_of_another_size_are_refused(name, backbone):
    with pytest.raises(ConfigError, match=r"\(1, 16, 16\), got \(3, 16, 16\)"):
        make_model(name, backbone).encode(video().expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_trains(name):
    model = make_model(name, "dcgan")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.losses(video(), step())
    terms["total"].backward()
    assert terms["total"].dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
