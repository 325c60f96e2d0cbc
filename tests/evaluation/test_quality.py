"""Reconstruction measured where the answer is known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import DatasetError
from divid.evaluation import swap
from divid.evaluation.quality import Estimate, measure_reconstruction
from divid.evaluation.swap import draw_pairs, swap_sheet
from divid.types import Codes
from made_data import make_set, write_depth


class Copier(torch.nn.Module):
    """A method whose codes hold the clip itself, so that it decodes to the clip, off by a known error."""

    def __init__(self, error=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.error, self.shape = error, None

    def frame_features(self, video):
        return video.flatten(2)

    def codes_from_features(self, features, reference=None):
        return Codes(features[:, 0], features)

    def encode(self, video):
        self.shape = video.shape[2:]
        return self.codes_from_features(self.frame_features(video))

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        assert len(seeds) == len(codes.static)
        video = codes.dynamic.unflatten(2, self.shape)
        return video + self.error * torch.where(video > 0, -1.0, 1.0)

    def losses(self, video, randomness):
        return {"total": self.weight.sum()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for action in (1, 2):
        for subject in (1, 2):
            for trial in (1, 2):
                write_depth(folder, f"a{action}_s{subject}_t{trial}")
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out)
    return ClipDataset.open(out, split="test")


def test_an_estimate_is_a_mean_with_its_interval():
    estimate = Estimate.of([1.0, 2.0, 3.0, 4.0])
    half = 1.96 * math.sqrt(5 / 3 / 4)
    assert (estimate.mean, estimate.num_clips) == (2.5, 4)
    assert (estimate.low, estimate.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert math.isnan(Estimate.of([1.0]).low)


def test_a_known_error_gives_its_psnr(clips):
    result = measure_reconstruction(Copier(error=0.2), clips, num_frames=4, sampling=SamplingConfig())
    assert result.model.mean == pytest.approx(20.0, abs=1e-3)
    assert result.model.num_clips == len(clips) == 4


def test_still_controls_are_what_they_say(clips):
    result = measure_reconstruction(Copier(), clips, num_frames=4, sampling=SamplingConfig())
    video = middle_video(clips, [0, 1, 2, 3], 4)
    error = (video[:, :1] - video).square().flatten(1).mean(1)
    assert result.first_frame.mean == pytest.approx((10 * torch.log10(4 / error)).mean().item(), abs=1e-3)
    assert result.model.mean > result.mean_frame.mean > result.first_frame.mean


def test_pairs_differ_in_every_factor_and_depend_on_the_seed(clips):
    pairs = draw_pairs(clips, 100)
    assert sorted(pairs) == sorted(set(pairs))
    assert len(pairs) == 4  # 2 subjects x 2 actions: each clip has one other that differs in both
    for a, b in pairs:
        one, other = clips.labels(a), clips.labels(b)
        assert one["subject"] != other["subject"]
        assert one["action"] != other["action"]
    assert draw_pairs(clips, 2, seed=3) == draw_pairs(clips, 2, seed=3)


def test_clips_that_share_a_factor_cannot_be_paired(clips):
    same = [i for i in range(4) if clips.labels(i)["subject"] == "s1"]
    with pytest.raises(DatasetError, match="differ in every factor"):
        draw_pairs(clips.subset(same), 2)


def test_the_sheet_has_three_rows_a_pair(clips):
    pairs = draw_pairs(clips, 2)
    sheets = [
        np.asarray(swap_sheet(Copier(), clips, some, num_frames=4, sampling=SamplingConfig())) for some in (pairs[:1], pairs)
    ]
    assert sheets[1].shape[0] > 1.8 * sheets[0].shape[0]


def test_a_sheet_of_reconstructions_shows_no_recording(clips, monkeypatch):
    class Inverter(Copier):
        def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
            return -super().decode(codes, seeds=seeds)

    rows = {}
    monkeypatch.setattr(swap, "contact_sheet", lambda given, **_: rows.update(given) or Image.new("RGB", (1, 1)))
    (pair,) = draw_pairs(clips, 1)
    swap_sheet(Inverter(), clips, [pair], num_frames=4, sampling=SamplingConfig())
    (look, move), recorded = list(rows.values())[:2], dict(rows)
    rows.clear()
    swap_sheet(Inverter(), clips, [pair], num_frames=4, sampling=SamplingConfig(), sources="reconstructions")
    assert list(rows) == [*(f"{label}, reconstructed" for label in list(recorded)[:2]), "A's look, B's motion"]
    made_look, made_move, made_swap = rows.values()
    np.testing.assert_array_equal(made_look, 255 - look)
    np.testing.assert_array_equal(made_move, 255 - move)
    np.testing.assert_array_equal(made_swap, recorded["A's look, B's motion"])
