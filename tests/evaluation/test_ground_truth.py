"""Swaps beside their ground truth, where it is known: copies, a method that knows the answer, and data without one."""

import json
import math

import numpy as np
import pytest
import torch

from divid.arrays import frames_to_video, peak_signal_to_noise
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset, middle_positions
from divid.data.prepare import prepare
from divid.data.sources import SourceOptions
from divid.data.sources.puppets import NUM_FRAMES as PUPPET_FRAMES
from divid.data.sources.puppets import render_clip
from divid.data.sources.sprites import SpritesSource
from divid.errors import DatasetError
from divid.evaluation.ground_truth import ground_truth_source, measure_ground_truth
from divid.evaluation.report import evaluation_report
from divid.evaluation.swap import draw_pairs
from labelled_clips import Method, prepare_clips

NUM_FRAMES = 4


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    options = SourceOptions(image_size=16, channels=3, num_clips=16, num_looks=3, scenery="plain")
    folder = tmp_path_factory.mktemp("truth") / "puppets"
    prepare("puppets", None, folder, options=options, num_processes=1)
    return folder


class Copy(Method):
    """Codes are the clip itself, twice; decodes to one of them."""

    def __init__(self, kind="static"):
        super().__init__()
        self.kind = kind

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        return getattr(codes, self.kind).reshape(len(seeds), NUM_FRAMES, 3, 16, 16)


class Oracle(Copy):
    """Answers every pair of clips that it finds with the ground truth."""

    def __init__(self, clips):
        super().__init__()
        source = ground_truth_source(clips)
        videos = [frames_to_video(source(i, i, NUM_FRAMES)).flatten() for i in range(len(clips))]
        self.place = {self.name(video): i for i, video in enumerate(videos)}
        self.answer = lambda a, b: frames_to_video(source(a, b, NUM_FRAMES))

    @staticmethod
    def name(values):
        return values.flatten().numpy().tobytes()

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        names = zip(codes.static, codes.dynamic, strict=True)
        pairs = [(self.place.get(self.name(look)), self.place.get(self.name(motion))) for look, motion in names]
        return torch.cat(
            [
                codes.static[i].reshape(1, NUM_FRAMES, 3, 16, 16) if None in pair else self.answer(*pair)
                for i, pair in enumerate(pairs)
            ]
        )


def measure(model, clips, num_pairs=8):
    return measure_ground_truth(model, clips, num_pairs=num_pairs, num_frames=NUM_FRAMES, sampling=SamplingConfig())


def test_the_ground_truth_of_a_clip_with_itself_is_that_clip(puppets):
    clips = ClipDataset.open(puppets)
    source = ground_truth_source(clips)
    for index in range(0, len(clips), 5):
        expected = clips.frames(index, middle_positions(clips.num_frames(index), NUM_FRAMES))
        np.testing.assert_array_equal(source(index, index, NUM_FRAMES), expected)


def test_the_ground_truth_of_a_swap_is_bs_performance_by_as_figure(puppets):
    clips = ClipDataset.open(puppets)
    a, b = draw_pairs(clips, 1)[0]
    look, motion = (json.loads(clips.row(index)["extra"]) for index in (a, b))
    options = {"num_frames": PUPPET_FRAMES, "size": 16, "scenery": "plain"}
    expected = render_clip(look["look_seed"], motion["action"], motion["clip_seed"], **options)
    made = ground_truth_source(clips)(a, b, PUPPET_FRAMES)
    np.testing.assert_array_equal(made, expected)
    assert (made != clips.frames(a)).any()
    assert (made != clips.frames(b)).any()


def test_copies_are_as_far_as_the_clips_that_they_copy(puppets):
    clips = ClipDataset.open(puppets)
    as_a, as_b = measure(Copy("static"), clips), measure(Copy("dynamic"), clips)
    assert as_a.swap == as_a.copy_a == as_b.copy_a
    assert as_b.swap == as_b.copy_b == as_a.copy_b
    assert as_a.copy_a.mean != as_a.copy_b.mean
    assert as_a.is_nearest.rate == as_b.is_nearest.rate == 0
    a, b = draw_pairs(clips, 1)[0]
    truth = ground_truth_source(clips)(a, b, NUM_FRAMES)
    copied = clips.frames(a, middle_positions(clips.num_frames(a), NUM_FRAMES))
    one = measure(Copy("static"), clips, num_pairs=1).swap.mean
    assert one == pytest.approx(float(peak_signal_to_noise(frames_to_video(copied), frames_to_video(truth))))


def test_whoever_knows_the_answer_is_nearest_to_it(puppets):
    clips = ClipDataset.open(puppets)
    result = measure(Oracle(clips), clips)
    assert result.swap.mean == result.reconstruction.mean == pytest.approx(106.02, abs=0.01)  # an error of 1e-10 and less
    assert result.is_nearest.rate == 1
    assert result.num_pairs == 8
    assert "nearer to the ground truth than to A and to B  100.0%" in result.to_text()
    assert result.to_dict()["psnr_db"]["swap"]["mean"] == result.swap.mean


class Displaced(Oracle):
    """Knows the answer and draws it two pixels to the right."""

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        return super().decode(codes, seeds=seeds)[..., (torch.arange(16) - 2).clamp(min=0)]


def test_what_is_only_displaced_fits_once_it_is_moved(puppets):
    """Scenery is plain, so what a shift brings in at the border is what had been there."""
    clips = ClipDataset.open(puppets)
    result = measure(Displaced(clips), clips)
    assert result.swap_aligned.mean > 40 > result.swap.mean
    assert measure(Oracle(clips), clips).swap_aligned.mean == pytest.approx(106.02, abs=0.01)


def test_grey_and_smaller_clips_have_grey_and_smaller_truths(puppets):
    clips = ClipDataset.open(puppets, image_size=8)
    assert ground_truth_source(clips)(0, 1, NUM_FRAMES).shape == (NUM_FRAMES, 8, 8, 3)
    expected = clips.frames(3, middle_positions(clips.num_frames(3), NUM_FRAMES))
    np.testing.assert_array_equal(ground_truth_source(clips)(3, 3, NUM_FRAMES), expected)


@pytest.fixture(scope="module")
def sprites(data_root, tmp_path_factory):
    """Sixteen figures in all nine motions, so each has its ground truth; and five clips, which lack it."""
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divid.data.sources.sprites.CHOICES", 2)
        for name, limit in (("whole", None), ("few", 5)):
            options = SourceOptions(image_size=16, channels=3, limit=limit)
            prepare("sprites", data_root / "sprites", folder / name, options=options, num_processes=1)
    return folder


def test_a_sprites_answer_is_the_clip_of_as_figure_in_bs_motion(sprites, data_root):
    clips = ClipDataset.open(sprites / "whole")
    a, b = draw_pairs(clips, 1)[0]
    wanted = {**clips.labels(a), "motion": clips.labels(b)["motion"]}
    source = SpritesSource(data_root / "sprites", SourceOptions(image_size=16, channels=3))
    item = next(item for item in source.items() if item.labels == wanted)
    np.testing.assert_array_equal(ground_truth_source(clips)(a, b, 8), source.load(item)[0])


def test_a_sprites_set_without_the_answer_is_one_line(sprites):
    clips = ClipDataset.open(sprites / "few")
    source, figures = ground_truth_source(clips), [clips.clip_id(index).rsplit("_", 2)[0] for index in range(len(clips))]
    other = next(index for index, figure in enumerate(figures) if figure != figures[0])
    with pytest.raises(DatasetError, match=r"holds no clip of the figure of .*: prepare the whole set"):
        source(0, other, 8)


def test_data_in_which_nobody_does_the_same_are_refused(puppets, tmp_path):
    clips = ClipDataset.open(prepare_clips(tmp_path / "recordings", tmp_path / "set"))
    with pytest.raises(DatasetError, match=r"source folder\) has no ground truth of swaps"):
        ground_truth_source(clips)
    with pytest.raises(DatasetError, match="taken from one data set"):
        ground_truth_source(ClipDataset.open([puppets, puppets]))


def test_the_page_tells_of_it(puppets):
    from divid.evaluation.quality import Estimate, Reconstruction

    clips = ClipDataset.open(puppets)
    result, flat = measure(Copy(), clips, num_pairs=1), Estimate(20.0, 19.0, 21.0, 3)
    page = evaluation_report({"model": "copy"}, Reconstruction(flat, flat, flat), ground_truth=result)
    assert "## Swaps beside their ground truth" in page
    assert f"| the swap | {result.swap.mean:.2f} |" in page
    assert math.isfinite(result.swap.mean)
