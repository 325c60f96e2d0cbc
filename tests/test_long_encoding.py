from __future__ import annotations

import numpy as np
import pytest
import torch

from divid.config import ModelConfig
from divid.long_encoding import blend_windows, encode_recording, interleaved_positions
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.types import Codes


class Recorder:
    """A method whose tokens are its features, so that one sees where each token comes from; it notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def frame_features(self, video):
        raise NotImplementedError

    def codes_from_features(self, features, reference=None):
        self.calls.append((features, reference))
        return Codes((features if reference is None else reference)[:, 0], features)

    def encode(self, video):
        raise NotImplementedError

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        raise NotImplementedError

    def losses(self, video, randomness):
        raise NotImplementedError


def ramp(num_frames: int) -> torch.Tensor:
    return torch.arange(float(num_frames))[None, :, None].repeat(1, 1, 3)


def test_a_clip_of_the_trained_length_gives_the_models_own_codes():
    config = ModelConfig(
        image_size=16,
        encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
        tokens=TokenConfig(static_dim=16, dynamic_dim=8),
        denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
    )
    model = DividModel(config).eval()
    video = torch.rand(1, 5, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = model.encode(video)
        codes = encode_recording(model, model.frame_features(video), 5, 3)
    assert torch.equal(codes.static, expected.static)
    assert torch.equal(codes.dynamic, expected.dynamic)


@pytest.mark.parametrize("num_frames", [6, 10, 11, 97])
@pytest.mark.parametrize("spacing", [1, 2, 7, 100])
def test_interleaving_covers_every_frame_exactly_once(num_frames, spacing):
    together = np.concatenate(interleaved_positions(num_frames, spacing))
    assert sorted(together.tolist()) == list(range(num_frames))


@pytest.mark.parametrize(("num_frames", "window"), [(11, 10), (25, 10), (1000, 30), (7, 1), (9, 3)])
def test_blend_weights_sum_to_one_and_fade_linearly(num_frames, window):
    total = np.zeros(num_frames)
    for start, weights in blend_windows(num_frames, window):
        assert len(weights) == window
        assert (weights > 0).all()
        total[start : start + window] += weights
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    if num_frames == 1000:
        second = blend_windows(num_frames, window)[1][1]
        np.testing.assert_allclose(np.diff(second[:15]), np.diff(second[:15])[0], atol=1e-12)


@pytest.mark.parametrize(("num_frames", "max_spacing"), [(3, 2), (5, 2), (9, 2), (10, 2), (11, 2), (64, 2), (203, 0), (203, 4)])
def test_every_frame_gets_its_own_token(num_frames, max_spacing):
    codes = encode_recording(Recorder(), ramp(num_frames), 5, max_spacing)
    torch.testing.assert_close(codes.dynamic, ramp(num_frames))
    assert torch.equal(codes.static, torch.zeros(1, 3))


def test_sequences_have_the_trained_length_and_spacing_and_one_reference():
    method = Recorder()
    encode_recording(method, ramp(1000), 10, 8)
    for features, reference in method.calls:
        assert features.shape[1] == 10
        assert (features[:, 1:, 0] - features[:, :-1, 0] == 8).all()
        assert reference is not None
        assert (reference == 0).all()


def test_an_unlimited_spacing_never_needs_windows():
    method = Recorder()
    encode_recording(method, ramp(1000), 10, 0)
    assert {tuple(features.shape[1:]) for features, _ in method.calls} == {(10, 3)}
    assert sum(features.shape[0] for features, _ in method.calls) == 100


@pytest.mark.parametrize("shape", [(2, 9, 3), (1, 1, 3)])
def test_one_recording_with_two_frames_at_least(shape):
    with pytest.raises(ValueError, match="1 recording with 2 or more frames"):
        encode_recording(Recorder(), torch.zeros(shape), 5, 2)
