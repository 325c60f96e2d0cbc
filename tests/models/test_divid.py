"""The model: shapes, every switch, gradients, and what a swap may depend on."""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from divid.config import ModelConfig, SamplingConfig
from divid.diffusion.noise import training_timesteps
from divid.diffusion.schedule import prediction_target
from divid.errors import ConfigError
from divid.flops import count_flops
from divid.models.divid import TRANSLATION_STEPS, DividModel, translation_sampling
from divid.models.perceptual import PerceptualDistance
from divid.models.sequence_encoder import residual_features
from divid.precision import autocast
from divid.randomness import derive_seed
from divid.types import Codes, Disentangler
from small_model import SMALL, make_model, step, video

FAST = SamplingConfig(num_inference_steps=2)

SWITCHES = {
    "default": {},
    "no residual": {"tokens": {"use_residual": False}},
    "static from a random frame": {"tokens": {"static_source": "random"}},
    "static from the whole clip": {"tokens": {"static_source": "whole"}},
    "static from all frames": {"tokens": {"static_source": "average"}},
    "no token dropout": {"tokens": {"static_dropout": 0.0, "dynamic_dropout": 0.0}},
    "equal widths": {"tokens": {"dynamic_dim": 12}},
    "no orthogonality": {"tokens": {"orthogonality_weight": 0.0}},
    "orthogonality over earlier clips": {"tokens": {"orthogonality_memory": 4}},
    "motion augmentation": {"tokens": {"motion_augmentation": 1.0}},
    "motion augmentation, the target moves along": {
        "tokens": {"motion_augmentation": 1.0, "motion_augmentation_target": "moved"}
    },
    "static flip": {"tokens": {"static_flip": 0.5}},
    "noise on tokens": {"tokens": {"static_noise": 0.5, "dynamic_noise": 0.5}},
    "back-translation": {"tokens": {"back_translation": 0.5}},
    "canvas, dynamic alone": {"denoiser": {"canvas_channels": 4, "canvas_source": "dynamic"}},
    "canvas, modulated": {"denoiser": {"canvas_channels": 4, "canvas_source": "modulated"}},
    "canvas, warped": {"denoiser": {"canvas_channels": 4, "canvas_source": "dynamic", "canvas_warp": True}},
    "motion augmentation, static from the whole clip": {"tokens": {"motion_augmentation": 1.0, "static_source": "whole"}},
    "motion augmentation, static from a random frame": {"tokens": {"motion_augmentation": 1.0, "static_source": "random"}},
    "adagn": {"denoiser": {"conditioning": "adagn"}},
    "cross-attention and adagn": {"denoiser": {"conditioning": "both"}},
    "canvas": {"denoiser": {"canvas_channels": 4}},
    "canvas, adagn": {"denoiser": {"canvas_channels": 4, "conditioning": "adagn"}},
    "canvas, space-to-depth": {"denoiser": {"canvas_channels": 4, "patch_size": 2}},
    "space-to-depth": {"denoiser": {"patch_size": 2}, "encoder": {"patch_size": 2}},
    "shared noise": {"diffusion": {"shared_training": True}},
    "separate sampling noise": {"diffusion": {"shared_sampling": False}},
    "epsilon, linear": {"diffusion": {"prediction_type": "epsilon", "schedule": "linear"}},
    "huber": {"diffusion": {"huber_width": 0.1}},
    "input as it is": {"diffusion": {"scale_input": False}},
    "channel": {"bottleneck": {"kind": "channel"}},
    "rate": {"bottleneck": {"kind": "rate"}},
    "invariance": {"tokens": {"back_translation": 0.5, "dynamic_invariance": 0.1, "static_invariance": 0.1}},
    "channel, linear": {"bottleneck": {"kind": "channel", "profile": "linear"}},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains_and_samples(name):
    model = make_model(**SWITCHES[name])
    assert isinstance(model, Disentangler)
    # Enough steps that each token is dropped at least once and kept at least once.
    for number in range(12):
        terms = model.losses(video(), step(number=number), num_decoded_frames=2)
        assert all(value.ndim == 0 and value.isfinite() for value in terms.values())
        terms["total"].backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []
    codes = model.eval().encode(video())
    assert codes.static.shape == (3, 12)
    assert codes.dynamic.shape[:2] == (3, 5)
    sample = model.decode(codes, seeds=[0, 1, 2], sampling=FAST)
    assert sample.shape == (3, 5, 1, 16, 16)
    assert sample.abs().max() <= 1


def test_pure_noise_hardly_reaches_the_scaled_network():
    def spread(**diffusion):
        model = make_model(diffusion=diffusion).eval()
        noise = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        seen = []
        model.denoiser.unet.conv_in.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model.predict(noise, torch.full((8,), 999), torch.zeros(8, 12), torch.zeros(8, 6))
        return seen[0].std().item()

    assert spread(scale_input=True) < 0.001
    assert spread(scale_input=False) > 0.9


def test_a_warp_without_a_map_is_refused():
    with pytest.raises(ConfigError, match="give the map channels"):
        make_model(denoiser={"canvas_warp": True})


def test_epsilon_cannot_be_predicted_from_a_scaled_input():
    with pytest.raises(ConfigError, match="hides the noise"):
        make_model(diffusion={"scale_input": True, "prediction_type": "epsilon"})
    assert make_model(diffusion={"prediction_type": "epsilon"}).options.diffusion.scale_input is False


def test_total_is_the_weighted_sum():
    model = make_model(bottleneck={"kind": "channel", "beta": 0.3}, tokens={"orthogonality_weight": 0.2})
    terms = model.losses(video(), step())
    expected = terms["simple"] + 0.2 * terms["orthogonality"] + 0.3 * terms["bottleneck"]
    torch.testing.assert_close(terms["total"], expected)


def test_equal_randomness_gives_equal_loss_and_another_step_another():
    model = make_model()
    losses = [model.losses(video(), step(number=n))["total"].item() for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_still_clip_has_the_same_motion_whatever_it_shows():
    model = make_model().eval()
    still = video(clips=2, frames=1).expand(-1, 5, -1, -1, -1)
    codes = model.encode(still)
    torch.testing.assert_close(codes.dynamic[0], codes.dynamic[1])
    assert not torch.allclose(codes.static[0], codes.static[1])


def test_without_the_residual_a_still_clip_shows_in_its_motion():
    codes = make_model(tokens={"use_residual": False}).eval().encode(video(clips=2, frames=1).expand(-1, 5, -1, -1, -1))
    assert not torch.allclose(codes.dynamic[0], codes.dynamic[1])


def test_residual_of_the_reference_is_zero():
    features = torch.rand(2, 4, 3)
    residual = residual_features(features, features[:, :1])
    assert (residual[:, 0] == 0).all()
    torch.testing.assert_close(residual + features[:, :1], features)


def test_an_untrained_models_static_token_tells_clips_apart():
    """One that starts out nearly the same for all clips is ignored, and the dynamic tokens learn the look instead."""
    shades = torch.linspace(-1, 1, 16).view(16, 1, 1, 1, 1).expand(-1, 3, 1, 32, 32)
    codes = DividModel(ModelConfig(preset="tiny", channels=1)).eval().encode(shades)
    assert codes.static.std(0).mean() > 0.1


def test_static_token_sees_the_first_frame_only():
    model = make_model().eval()
    first = video()
    other = torch.cat([first[:, :1], video(frames=9)[:, 5:]], dim=1)
    torch.testing.assert_close(model.encode(first).static, model.encode(other).static)


def test_the_dynamic_token_reaches_its_own_frame_only():
    model = make_model().eval()
    with torch.no_grad():  # an untrained output layer is near zero and would hide everything
        for parameter in model.denoiser.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        codes = model.encode(video())
    changed = codes.dynamic.clone()
    changed[:, 2] += 3
    before, after = (
        model.decode(Codes(codes.static, dynamic), seeds=[0, 1, 2], sampling=FAST) for dynamic in (codes.dynamic, changed)
    )
    same = [torch.allclose(before[:, f], after[:, f], atol=1e-5) for f in range(5)]
    assert same == [True, True, False, True, True]


def test_a_reference_takes_the_first_frames_part():
    model = make_model().eval()
    clip = video(frames=6)
    whole = model.encode(clip)
    features = model.frame_features(clip)
    codes = model.codes_from_features(features[:, 1:], reference=features[:, :1])
    torch.testing.assert_close(codes.static, whole.static)
    torch.testing.assert_close(codes.dynamic, whole.dynamic[:, 1:])


@pytest.mark.parametrize("shared_sampling", [True, False])
def test_a_seed_means_one_sample_in_any_batch_and_any_chunk(shared_sampling):
    model = make_model(diffusion={"shared_sampling": shared_sampling}).eval()
    codes = model.encode(video())
    sampling = SamplingConfig(solver="ddpm", num_inference_steps=3)
    whole = model.decode(codes, seeds=[5, 6, 7], sampling=sampling)
    alone = model.decode(Codes(codes.static[1:2], codes.dynamic[1:2]), seeds=[6], sampling=sampling)
    torch.testing.assert_close(whole[1:2], alone, atol=1e-4, rtol=0)
    chunked = model.decode(codes, seeds=[5, 6, 7], sampling=dataclasses.replace(sampling, chunk_frames=6))
    torch.testing.assert_close(whole, chunked, atol=1e-4, rtol=0)
    later = model.decode(Codes(codes.static, codes.dynamic[:, 3:]), seeds=[5, 6, 7], sampling=sampling, first_frame=3)
    torch.testing.assert_close(whole[:, 3:], later, atol=1e-4, rtol=0)


def test_guidance_has_a_scale_for_each_token():
    model = make_model().eval()
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    codes = model.encode(video())
    samples = {
        scales: model.decode(
            codes,
            seeds=[0, 1, 2],
            sampling=SamplingConfig(num_inference_steps=2, static_guidance=scales[0], dynamic_guidance=scales[1]),
        )
        for scales in ((1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (0.0, 0.0))
    }
    plain = samples.pop((1.0, 1.0))
    assert all(not torch.allclose(plain, sample) for sample in samples.values())
    nothing = Codes(torch.zeros_like(codes.static), torch.zeros_like(codes.dynamic))  # empty tokens start at zero
    torch.testing.assert_close(samples[0.0, 0.0], model.decode(nothing, seeds=[0, 1, 2], sampling=FAST), atol=1e-4, rtol=0)


def test_guidance_needs_token_dropout():
    model = make_model(tokens={"static_dropout": 0.0, "dynamic_dropout": 0.0}).eval()
    with pytest.raises(ConfigError, match="token dropout"):
        model.decode(model.encode(video()), seeds=[0, 1, 2], sampling=SamplingConfig(static_guidance=2.0))


def test_frames_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(ConfigError, match=r"\(1, 16, 16\).*\(1, 8, 8\)"):
        make_model().encode(torch.zeros(1, 2, 1, 8, 8))


def test_shared_and_separate_noise_have_equal_mean_gradients():
    """Frames are denoised alone, so sharing noise changes the variance of the gradient and not its mean."""
    clip = video(clips=4, frames=3)
    means, variances = {}, {}
    for shared in (True, False):
        model = make_model(diffusion={"shared_training": shared}, tokens={"static_dropout": 0.0, "dynamic_dropout": 0.0})
        weight = model.denoiser.unet.conv_out.weight
        gradients = torch.stack(
            [torch.autograd.grad(model.losses(clip, step(4, n))["simple"], weight)[0].flatten() for n in range(240)]
        )
        means[shared], variances[shared] = gradients.mean(0), gradients.var(0)
    error = ((variances[True] + variances[False]) / 240).sqrt()
    z = (means[True] - means[False]) / error
    assert z.square().mean() < 1.6
    assert variances[True].sum() > 1.3 * variances[False].sum()


def test_few_denoised_frames_have_the_gradient_of_all_as_their_mean(monkeypatch):
    """With one noise and one t a clip, what is left to chance are the frames: all pairs of them are gone through."""
    model = make_model(diffusion={"shared_training": True}, tokens={"static_dropout": 0.0, "dynamic_dropout": 0.0})
    parameters = list(model.parameters())

    def gradient(**options):
        found = torch.autograd.grad(model.losses(video(), step(), **options)["total"], parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    everything, few = gradient(), []
    for pair in itertools.combinations(range(5), 2):
        monkeypatch.setattr("divid.models.divid.pick_frames", lambda *_, pair=pair: torch.tensor([pair] * 3))
        few.append(gradient(num_decoded_frames=2))
    torch.testing.assert_close(torch.stack(few).mean(0), everything, rtol=1e-3, atol=1e-5)
    assert (few[0] - everything).norm() > 0.1 * everything.norm()


def test_bf16_training_has_the_gradient_of_fp32():
    model = make_model()
    gradients = []
    for precision in ("fp32", "bf16"):
        with autocast("cpu", precision):
            total = model.losses(video(), step())["total"]
        found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    exact, fast = gradients
    assert 0 < (fast - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(("preset", "millions", "gflop"), [("tiny", 1.56, 0.131), ("small", 8.88, 4.49)])
def test_presets_have_the_sizes_of_the_design(preset, millions, gflop):
    """Operations are those of diffusers' blocks, which compute what is on no device; the design's 5.2 leave attention out."""
    model = DividModel(ModelConfig(preset=preset))
    assert sum(p.numel() for p in model.denoiser.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)
    tokens = model.options.tokens
    size = model.options.image_size
    inputs = (
        torch.zeros(1, 3, size, size, device="meta"),
        torch.zeros(1, dtype=torch.long, device="meta"),
        torch.zeros(1, tokens.static_dim, device="meta"),
        torch.zeros(1, tokens.dynamic_dim, device="meta"),
    )
    model.to("meta")
    with torch.no_grad():
        assert count_flops(lambda: model.predict(*inputs)) / 1e9 == pytest.approx(gflop, rel=0.05)


def test_the_paper_preset_is_the_papers():
    options = ModelConfig(preset="paper").resolve()
    assert options.denoiser.channels == (128, 256, 384, 512)
    assert (options.tokens.static_dim, options.tokens.dynamic_dim) == (256, 256)
    assert (options.diffusion.prediction_type, options.diffusion.schedule) == ("epsilon", "linear")
    assert options.diffusion.shared_training is True


@pytest.mark.parametrize("source", ["first", "random", "average", "whole"])
def test_motion_augmentation_changes_what_the_dynamic_tokens_see_and_nothing_else(source, monkeypatch):
    plain = make_model(tokens={"static_source": source, "static_dropout": 0.0, "dynamic_dropout": 0.0})
    changed = make_model(
        tokens={"static_source": source, "static_dropout": 0.0, "dynamic_dropout": 0.0, "motion_augmentation": 1.0}
    )
    seen = []
    for model in (plain, changed):
        forward = model.denoiser.forward
        monkeypatch.setattr(model, "_train_denoiser", lambda *args, forward=forward: seen.append(args) or forward(*args))
        model.losses(video(), step())
    (x_plain, t_plain, static_plain, dynamic_plain), (x_changed, t_changed, static_changed, dynamic_changed) = seen
    assert torch.equal(x_plain, x_changed)
    assert torch.equal(t_plain, t_changed)
    torch.testing.assert_close(static_plain, static_changed)
    assert not torch.allclose(dynamic_plain, dynamic_changed, atol=1e-3)
    torch.testing.assert_close(plain.encode(video()).dynamic, changed.encode(video()).dynamic)


@pytest.mark.parametrize(("target", "moves"), [("unmoved", (False, False)), ("sideways", (True, False)), ("moved", (True, True))])
def test_the_clip_that_is_asked_for_moves_along_as_it_is_told(target, moves, monkeypatch):
    tokens = {"static_dropout": 0.0, "dynamic_dropout": 0.0, "motion_augmentation": 1.0}
    asked, codes = [], []
    middle = torch.full_like(video(), -1.0)
    middle[..., 6:10, 6:10] = 1
    for options in ({}, {"motion_augmentation_target": target}):
        model = make_model(tokens={**tokens, **options})
        forward = model.denoiser.forward
        monkeypatch.setattr(
            "divid.models.divid.prediction_target", lambda x_0, *args: asked.append(x_0) or prediction_target(x_0, *args)
        )
        monkeypatch.setattr(model, "_train_denoiser", lambda *args, forward=forward: codes.append(args[2:]) or forward(*args))
        model.losses(middle, step())
    unmoved, moved = (frames + 1 for frames in asked)
    for places, is_moved in ((torch.arange(16.0), moves[0]), (torch.arange(16.0)[:, None], moves[1])):
        before, after = ((frames * places).sum((1, 2, 3, 4)) / frames.sum((1, 2, 3, 4)) for frames in (unmoved, moved))
        torch.testing.assert_close(before, torch.full_like(before, 7.5))
        assert torch.allclose(before, after, atol=1e-3) != is_moved
    torch.testing.assert_close(*codes)


@pytest.mark.parametrize("source", ["first", "random", "average", "whole"])
def test_static_flip_mirrors_what_the_static_token_sees_and_nothing_else(source, monkeypatch):
    def seen(clips, **changes):
        model = make_model(tokens={"static_source": source, "static_dropout": 0.0, "dynamic_dropout": 0.0, **changes})
        seen, forward = [], model.denoiser.forward
        monkeypatch.setattr(model, "_train_denoiser", lambda *args: seen.append(args) or forward(*args))
        model.losses(clips, step())
        return seen[0]

    x_plain, _, static_plain, dynamic_plain = seen(video())
    x_changed, _, static_changed, dynamic_changed = seen(video(), static_flip=1.0)
    assert torch.equal(x_plain, x_changed)
    torch.testing.assert_close(dynamic_plain, dynamic_changed)
    torch.testing.assert_close(static_changed, seen(video().flip(-1))[2])
    assert not torch.allclose(static_plain, static_changed, atol=1e-3)


def test_an_average_static_token_is_trained_on_one_frame_and_read_from_all():
    single, average = (make_model(tokens={"static_source": source}) for source in ("random", "average"))
    torch.testing.assert_close(single.losses(video(), step())["total"], average.losses(video(), step())["total"])
    frame_by_frame = [single.encode(video()[:, [frame]]).static for frame in range(video().shape[1])]
    torch.testing.assert_close(average.encode(video()).static, torch.stack(frame_by_frame).mean(0))
    torch.testing.assert_close(average.encode(video()).dynamic, single.encode(video()).dynamic)
    torch.testing.assert_close(average.encode(video().flip(1)).static, average.encode(video()).static)


def test_static_flip_is_drawn_clip_by_clip(monkeypatch):
    model = make_model(tokens={"static_dropout": 0.0, "dynamic_dropout": 0.0, "static_flip": 0.5})
    plain, mirrored = (model.encode(clips).static for clips in (video(), video().flip(-1)))
    flipped = []
    for number in range(12):
        forward = model.denoiser.forward
        monkeypatch.setattr(
            model,
            "_train_denoiser",
            lambda x, t, static, dynamic, forward=forward: flipped.append(static) or forward(x, t, static, dynamic),
        )
        model.losses(video(), step(number=number), num_decoded_frames=1)
        is_mirrored = [not torch.allclose(own, other, atol=1e-4) for own, other in zip(flipped[-1], plain, strict=True)]
        for place, changed in enumerate(is_mirrored):
            torch.testing.assert_close(flipped[-1][place], (mirrored if changed else plain)[place], atol=1e-4, rtol=1e-4)
        flipped[-1] = is_mirrored
    drawn = [one for step_ in flipped for one in step_]
    assert 0.2 < sum(drawn) / len(drawn) < 0.8


def test_static_flip_has_a_range():
    with pytest.raises(ConfigError, match=r"model\.tokens\.static_flip is 2"):
        make_model(tokens={"static_flip": 2.0})


def test_noise_is_one_draw_a_clip_on_the_static_token_and_one_a_frame_on_the_dynamic_ones(monkeypatch):
    noises = {"static_noise": 0.5, "dynamic_noise": 2.0}
    model = make_model(tokens={"static_dropout": 0.0, "dynamic_dropout": 0.0, **noises})
    codes = model.encode(video())
    torch.testing.assert_close(codes.static.square().mean(-1), torch.ones(3))
    torch.testing.assert_close(codes.dynamic[:, 1:].square().mean(-1), torch.ones(3, 4))
    added = {"static": [], "dynamic": []}
    forward = model.denoiser.forward
    seen = []
    monkeypatch.setattr(model, "_train_denoiser", lambda *args: seen.append(args[2:]) or forward(*args))
    for number in range(40):
        model.losses(video(), step(number=number))
        static, dynamic = (tokens.unflatten(0, (3, 5)) for tokens in seen[-1])
        torch.testing.assert_close(static, static[:, :1].expand_as(static))
        added["static"].append(static[:, 0] - codes.static)
        added["dynamic"].append(dynamic - codes.dynamic)
    for name in added:
        noise = torch.stack(added[name])
        assert noise.std().item() == pytest.approx(noises[f"{name}_noise"], rel=0.1)
        assert noise.mean().abs() < 0.1 * noise.std()
    frames = torch.stack(added["dynamic"])
    assert not torch.allclose(frames[:, :, 0], frames[:, :, 1])
    torch.testing.assert_close(model.encode(video()).static, codes.static)


def test_tokens_without_noise_keep_their_size():
    sizes = make_model().encode(video()).static.square().mean(-1)
    assert (sizes - 1).abs().max() > 0.05


def test_two_bottlenecks_are_one_too_many():
    with pytest.raises(ConfigError, match="two bottlenecks"):
        make_model(tokens={"static_noise": 0.5}, bottleneck={"kind": "channel"})


@pytest.mark.parametrize(("start", "number", "is_changed"), [(0.4, 39, False), (0.4, 40, True), (0.0, 0, True), (1.0, 99, False)])
def test_motion_augmentation_begins_after_its_share_of_the_training(start, number, is_changed, monkeypatch):
    tokens = dataclasses.replace(SMALL.tokens, motion_augmentation=1.0, motion_augmentation_start=start)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, tokens=tokens))
    seen = []
    encode = model.frame_features
    monkeypatch.setattr(model, "frame_features", lambda clips: seen.append(clips) or encode(clips))
    model.losses(video(), step(number=number))
    assert seen[0][:, : video().shape[1]].equal(video()) != is_changed


@pytest.mark.parametrize(("number", "strength"), [(39, None), (40, None), (60, 0.4), (80, 0.8), (99, 0.8), (-1, 0.8)])
def test_motion_augmentation_rises_over_its_ramp_and_is_whole_for_held_out_clips(number, strength, monkeypatch):
    rising = {"motion_augmentation": 0.8, "motion_augmentation_start": 0.4, "motion_augmentation_ramp": 0.4}
    tokens = dataclasses.replace(SMALL.tokens, **rising)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, tokens=tokens))
    seen = []

    def note(clips, _, strength, **options):
        seen.append(strength)
        return clips

    monkeypatch.setattr("divid.models.divid.augment_appearance", note)
    model.losses(video(), step(number=number))
    assert seen == ([] if strength is None else [pytest.approx(strength)])


@pytest.mark.parametrize(("number", "factor"), [(39, 0.0), (59, 0.0), (60, 0.5), (99, 0.5), (-1, 0.5)])
def test_proportions_change_after_their_share_of_the_training_only(number, factor, monkeypatch):
    late = {"motion_augmentation_proportions": 0.5, "motion_augmentation_proportions_start": 0.6}
    tokens = dataclasses.replace(SMALL.tokens, motion_augmentation=1.0, **late)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, tokens=tokens))
    seen = []
    monkeypatch.setattr("divid.models.divid.augment_appearance", lambda clips, *_, **options: seen.append(options) or clips)
    model.losses(video(), step(number=number))
    assert [options["proportions"] for options in seen] == [factor]


@pytest.mark.parametrize("colours", [0.0, 1.0])
def test_motion_augmentation_changes_colours_as_strongly_as_it_is_told(colours, monkeypatch):
    model = make_model(tokens={"motion_augmentation": 1.0, "motion_augmentation_colours": colours})
    seen, encode = [], model.frame_features
    monkeypatch.setattr(model, "frame_features", lambda clips: seen.append(clips) or encode(clips))
    grey = torch.full_like(video(), 0.3)
    model.losses(grey, step())
    assert torch.allclose(seen[0][:, : grey.shape[1]], grey) == (colours == 0)


@pytest.mark.parametrize("direction", ["sideways", "upwards"])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_motion_augmentation_shifts_each_way_as_strongly_as_it_is_told(direction, strength, monkeypatch):
    shifts = {f"motion_augmentation_{way}": strength if way == direction else 0.0 for way in ("sideways", "upwards")}
    model = make_model(tokens={"motion_augmentation": 1.0, "motion_augmentation_colours": 0.0, **shifts})
    seen, encode = [], model.frame_features
    monkeypatch.setattr(model, "frame_features", lambda clips: seen.append(clips) or encode(clips))
    middle = torch.full_like(video(), -1.0)
    middle[..., 6:10, 6:10] = 1
    model.losses(middle, step())
    changed = seen[0][:, : middle.shape[1]] + 1
    places = torch.arange(16.0) if direction == "sideways" else torch.arange(16.0)[:, None]
    centres = (changed * places).sum((1, 2, 3, 4)) / changed.sum((1, 2, 3, 4))
    assert torch.allclose(centres, torch.tensor(7.5), atol=1e-3) == (strength == 0)


def test_motion_augmentation_has_to_become_whole():
    rising = {"motion_augmentation_start": 0.6, "motion_augmentation_ramp": 0.5}
    with pytest.raises(ConfigError, match=r"never whole: .* a ramp of 0\.4$"):
        make_model(tokens={"motion_augmentation": 1.0, **rising})
    make_model(tokens=rising)  # there is none to rise
    make_model(tokens={"motion_augmentation": 1.0, "motion_augmentation_start": 0.7, "motion_augmentation_ramp": 0.3})
    make_model(tokens={"motion_augmentation": 1.0, "motion_augmentation_start": 1.0, "motion_augmentation_ramp": 0.5})  # never


def test_motion_augmentation_has_a_range():
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation is -1"):
        make_model(tokens={"motion_augmentation": -1.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation_colours is -1"):
        make_model(tokens={"motion_augmentation_colours": -1.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation_sideways is -1"):
        make_model(tokens={"motion_augmentation_sideways": -1.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation_start is 2"):
        make_model(tokens={"motion_augmentation_start": 2.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation_ramp is 2"):
        make_model(tokens={"motion_augmentation_ramp": 2.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.motion_augmentation_proportions_start is 2"):
        make_model(tokens={"motion_augmentation_proportions_start": 2.0})


def make_translating(share=1.0, **model):
    torch.manual_seed(0)
    tokens = dataclasses.replace(SMALL.tokens, static_dropout=0.0, dynamic_dropout=0.0, back_translation=share)
    return DividModel(dataclasses.replace(SMALL, tokens=tokens, **model))


def seen_by_denoiser(model, monkeypatch, number=0):
    seen = []
    forward = model.denoiser.forward
    monkeypatch.setattr(model, "_train_denoiser", lambda *args: seen.append(args) or forward(*args))
    terms = model.losses(video(), step(number=number))
    return *seen[0], terms


def test_back_translation_changes_what_the_encoder_sees_and_not_what_the_denoiser_is_asked_for(monkeypatch):
    plain, translating = (make_translating(share) for share in (0.0, 1.0))
    x_plain, t_plain, static_plain, dynamic_plain, _ = seen_by_denoiser(plain, monkeypatch)
    x, t, static, dynamic, terms = seen_by_denoiser(translating, monkeypatch)
    assert torch.equal(x_plain, x)
    assert torch.equal(t_plain, t)
    assert not torch.allclose(static_plain, static, atol=1e-3)
    assert not torch.allclose(dynamic_plain, dynamic, atol=1e-3)
    terms["total"].backward()
    assert all(parameter.grad is not None for parameter in translating.sequence_encoder.parameters())


def test_back_translated_clips_are_the_models_own_swaps():
    model = make_translating(0.5)
    clips, number = video(8), 3
    randomness = step(8, number)
    looks, moving = model._translated(clips, randomness, 0.5)
    chosen = (randomness.uniform("back-translation") < 0.5).tolist()
    assert 0 < sum(chosen) < 8
    for place, is_chosen in enumerate(chosen):
        partner = (place + 1) % 8
        if not is_chosen:
            assert torch.equal(moving[place], clips[place])
            assert torch.equal(looks[partner], clips[partner])
            continue
        codes = model.encode(clips[partner][None]).with_motion_of(model.encode(clips[place][None]))
        seed = derive_seed(0, number, place, "back-translation")
        expected = model.decode(codes, seeds=[seed], sampling=SamplingConfig(num_inference_steps=TRANSLATION_STEPS))[0]
        torch.testing.assert_close(moving[place], expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(looks[partner], moving[place])


def test_back_translated_clips_are_drawn_in_one_pass_on_a_gpu_and_are_the_same(monkeypatch):
    assert translation_sampling(torch.device("cpu"), 70) == SamplingConfig(num_inference_steps=TRANSLATION_STEPS)
    on_gpu = translation_sampling(torch.device("cuda"), 70)
    assert on_gpu == SamplingConfig(num_inference_steps=TRANSLATION_STEPS, chunk_frames=70)
    model, passes = make_translating(), []
    predict = model.denoiser.predict
    monkeypatch.setattr(model.denoiser, "predict", lambda *args: passes.append(1) or predict(*args))
    codes = model.encode(video(7, 10))
    in_parts = model.decode(codes, seeds=range(7), sampling=SamplingConfig(num_inference_steps=TRANSLATION_STEPS))
    in_one = model.decode(codes, seeds=range(7), sampling=on_gpu)
    assert len(passes) == 1 + 2
    torch.testing.assert_close(in_one, in_parts, atol=1e-5, rtol=1e-5)


def test_back_translation_begins_when_swaps_show_something(monkeypatch):
    model = make_translating(1.0, num_train_steps=100)
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda *args, **named: asked.append(1) or decode(*args, **named))
    model.losses(video(), step(number=19))
    assert not asked
    model.losses(video(), step(number=20))
    assert asked
    asked.clear()
    with torch.no_grad():
        model.losses(video(), step(number=20))  # a held-out loss looks at the clips as they are
    assert not asked


def test_back_translation_is_a_share():
    with pytest.raises(ConfigError, match=r"model\.tokens\.back_translation is 2"):
        make_model(tokens={"back_translation": 2.0})
    with pytest.raises(ConfigError, match=r"model\.tokens\.back_translation_start is -1"):
        make_model(tokens={"back_translation_start": -1.0})


def test_each_token_pays_its_share_of_the_bottleneck():
    prices = {}
    for static_share, dynamic_share in ((1.0, 0.0), (0.0, 1.0), (0.5, 2.0), (0.0, 0.0)):
        shares = {"static_share": static_share, "dynamic_share": dynamic_share}
        model = make_model(bottleneck={"kind": "channel", **shares})
        prices[static_share, dynamic_share] = model.losses(video(), step())["bottleneck"].item()
    static, dynamic = prices[1.0, 0.0], prices[0.0, 1.0]
    assert static > 0
    assert dynamic > 0
    assert prices[0.5, 2.0] == pytest.approx(0.5 * static + 2 * dynamic, rel=1e-5)
    assert prices[0.0, 0.0] == 0


def test_bf16_sampling_is_within_a_grey_level_of_fp32():
    model = make_model().eval()
    codes = model.encode(video())
    exact, fast = (
        model.decode(codes, seeds=[0, 1, 2], sampling=dataclasses.replace(FAST, precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).square().mean().sqrt() < 2 / 255


def test_the_feature_loss_is_the_distance_of_the_implied_clean_frames(monkeypatch):
    """With the true prediction in place of the network's, the implied frames are the true ones."""
    seen = []

    class Distance(PerceptualDistance):
        def __init__(self):
            pass

        def __call__(self, made, real):
            seen.append((made, real))
            return (made - real).square().mean((1, 2, 3))

    for kind in ("v_prediction", "epsilon"):
        model = make_model(feature_loss={"network": "efficientnet_lite0", "weight": 3.0}, diffusion={"prediction_type": kind})
        model._perceptual = Distance()
        clips = video()
        abar_t = torch.full((3, 5, 1, 1, 1), 0.3)
        noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
        x_t = 0.3**0.5 * clips + 0.7**0.5 * noise
        target = 0.3**0.5 * noise - 0.7**0.5 * clips if kind == "v_prediction" else noise
        assert model._feature_loss(x_t, target, clips, abar_t) < 1e-10
        torch.testing.assert_close(seen[-1][0], clips.flatten(0, 1), atol=1e-5, rtol=1e-5)
        terms = model.losses(clips, step(), num_decoded_frames=2)
        assert seen[-1][0].shape == (6, 1, 16, 16)
        expected = terms["simple"] + 0.1 * terms["orthogonality"] + 3 * terms["features"]
        torch.testing.assert_close(terms["total"], expected)
        assert terms["features"] > 0
    gradient = torch.autograd.grad(terms["features"], model.denoiser.unet.conv_out.weight)[0]
    assert gradient.abs().sum() > 0
    assert not any("perceptual" in name for name in model.state_dict())


def test_the_huber_loss_takes_the_place_of_the_squared_error_which_is_told_as_before():
    plain, robust = (make_model(diffusion={"huber_width": width}).losses(video(), step()) for width in (0.0, 0.1))
    assert "huber" not in plain
    torch.testing.assert_close(robust["simple"], plain["simple"])
    torch.testing.assert_close(robust["total"] - robust["huber"], plain["total"] - plain["simple"])
    assert 0 < robust["huber"] < robust["simple"]


@pytest.mark.parametrize(("number", "is_robust"), [(39, False), (40, True), (-1, True)])
def test_the_huber_loss_begins_after_its_share_of_the_training(number, is_robust):
    diffusion = dataclasses.replace(SMALL.diffusion, huber_width=0.1, huber_start=0.4)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, diffusion=diffusion))
    assert ("huber" in model.losses(video(), step(number=number))) == is_robust


SHIFTS = [(0, 0.4, 3.0), (39, 0.4, 3.0), (40, 0.4, 1.0), (99, 1.0, 3.0), (-1, 0.4, 3.0)]


@pytest.mark.parametrize(("number", "end", "shift"), SHIFTS)
def test_the_draw_of_time_steps_is_even_after_its_share_of_the_training(number, end, shift, monkeypatch):
    diffusion = dataclasses.replace(SMALL.diffusion, timestep_shift=3.0, timestep_shift_end=end)
    model = DividModel(dataclasses.replace(SMALL, num_train_steps=100, diffusion=diffusion))
    seen = []

    def draw(*args, **options):
        seen.append(options["shift"])
        return training_timesteps(*args, **options)

    monkeypatch.setattr("divid.models.divid.training_timesteps", draw)
    model.losses(video(), step(number=number))
    assert seen == [shift]


def test_the_feature_loss_needs_weights_where_none_come_with_it():
    with pytest.raises(ConfigError, match=r"model\.feature_loss\.weights_file is empty"):
        make_model(feature_loss={"network": "vgg16"})


CAPTURED_BESIDE_EAGER = """
import functools
import torch
from small_model import make_model, step, video

torch.compile = functools.partial(torch.compile, backend="aot_eager")
eager, compiled = make_model(), make_model()
compiled.compile_networks()
for model in (eager, compiled):
    model.losses(video(), step(), num_decoded_frames=2)["total"].backward()
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
of_compiled = dict(compiled.named_parameters())
for name, weight in eager.named_parameters():
    torch.testing.assert_close(of_compiled[name].grad, weight.grad, rtol=1e-4, atol=1e-6, msg=lambda said: f"{name}: {said}")
"""


def test_a_step_as_torch_compile_captures_it_gives_what_an_eager_one_does():
    # graphs as captured, forward and backward, without the C++ made of them, which takes minutes, and without type checks
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", CAPTURED_BESIDE_EAGER]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
