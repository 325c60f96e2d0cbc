"""Bytes to video, back, and the measure between two videos."""

import numpy as np
import pytest
import torch

from divid.arrays import frames_to_video, peak_signal_to_noise, video_to_frames


def test_bytes_span_minus_one_to_one():
    frames = np.array([0, 255], dtype=np.uint8).reshape(1, 2, 1, 1, 1)
    assert frames_to_video(frames).flatten().tolist() == [-1.0, 1.0]


def test_every_level_comes_back_in_its_place():
    frames = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 3, 4, 5, 3)
    video = frames_to_video(frames)
    assert video.shape == (2, 3, 3, 4, 5)
    assert np.array_equal(video_to_frames(video), frames)
    assert np.array_equal(video_to_frames(frames_to_video(frames[0])), frames[:1])
    assert torch.equal(frames_to_video(torch.from_numpy(frames)), video)


def test_values_outside_the_range_are_clipped():
    video = torch.tensor([-3.0, 3.0]).view(1, 2, 1, 1, 1)
    assert video_to_frames(video).ravel().tolist() == [0, 255]


def test_psnr_of_a_known_error():
    video = torch.zeros(2, 3, 1, 4, 4)
    other = torch.stack([video[0] + 0.2, video[1] + 0.02])
    assert peak_signal_to_noise(other, video).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)
    assert peak_signal_to_noise(torch.full_like(video, 7.0), torch.ones_like(video)).min() > 90
