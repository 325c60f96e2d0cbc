"""Likeness of a method whose reconstructions are the clips themselves, and whose swaps are copies of B."""

import json

import pytest
import torch

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import DatasetError, ModelError
from divid.evaluation.likeness import LikenessStudy
from divid.evaluation.quality import measure_quality, measure_reconstruction
from divid.evaluation.realism import measure_realism
from labelled_clips import NUM_FRAMES, Broken, CopyB, prepare_clips

OPTIONS = {"num_frames": NUM_FRAMES, "sampling": SamplingConfig()}


class Halves:
    """Features: mean grey of both halves. Maps: the frames and their negatives."""

    name = "halves"

    def features(self, frames):
        return frames.unflatten(3, (2, -1)).mean((1, 2, 4))

    def maps(self, frames):
        return [torch.cat([frames, -frames.abs()], dim=1)]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("like")
    folder = prepare_clips(root / "recordings", root / "set")
    return ClipDataset.open(folder, split="train"), ClipDataset.open(folder, split="test")


def video_of(clips, indices=None):
    return middle_video(clips, list(range(len(clips))) if indices is None else indices, NUM_FRAMES)


def test_reconstructions_that_are_the_clips_are_as_like_as_can_be(splits):
    train, test = splits
    network, model, pairs = Halves(), CopyB(), [(0, 4), (1, 8), (2, 4), (5, 0)]
    study = LikenessStudy(network)
    reconstruction = measure_reconstruction(model, test, watch=study.watch, **OPTIONS)
    study.add_swaps(model, test, pairs, **OPTIONS)
    study.add_training_clips(train, num_frames=NUM_FRAMES)
    result = study.result()
    assert result.network == "halves"
    assert result.quality.psnr == reconstruction.model
    assert result.quality.ssim.mean == pytest.approx(1)
    assert result.quality.perceptual.mean == 0
    assert result.quality == measure_quality(model, test, network=network, **OPTIONS)
    assert (result.frechet["reconstruction"].frame, result.frechet["reconstruction"].clip) == pytest.approx((0, 0), abs=1e-9)
    copies = video_of(test, [b for _, b in pairs])
    assert result.frechet["swap"] == measure_realism([copies], [video_of(test)], network)
    assert result.frechet["swap"].num_made_clips == 4
    expected = measure_realism([video_of(train)], [video_of(test)], network)
    assert result.frechet["real training clips"].frame == pytest.approx(expected.frame)


def test_text_and_json_name_the_network_and_hold_every_distance(splits):
    study = LikenessStudy(Halves())
    measure_reconstruction(CopyB(), splits[1], watch=study.watch, **OPTIONS)
    result = study.result()
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["network"] == values["perceptual"]["network"] == values["frechet"]["reconstruction"]["network"] == "halves"
    assert values["ssim"]["num_clips"] == 9
    assert "flicker" in values
    text = result.to_text()
    assert "Frechet distance to held-out clips (halves):" in text
    assert "perceptual distance (halves)" in text
    assert "9 beside 9 clips" in text


def test_swaps_are_sampled_with_the_seed_plus_their_number(splits):
    model, study = CopyB(), LikenessStudy(Halves())
    study.add_swaps(model, splits[1], [(0, 4), (4, 0)], seed=30, **OPTIONS)
    assert model.seen_seeds == [30, 31]


def test_frames_that_are_no_numbers_are_refused(splits):
    study = LikenessStudy(Halves())
    with pytest.raises(ModelError, match="frames that hold NaN"):
        measure_reconstruction(Broken(), splits[1], watch=study.watch, **OPTIONS)
    with pytest.raises(ModelError, match="frames that hold NaN"):
        measure_reconstruction(Broken(), splits[1], **OPTIONS)
    with pytest.raises(ModelError, match="in random swap 2"):
        study.add_swaps(Broken(), splits[1], [(0, 4), (1, 8), (2, 4)], **OPTIONS)


def test_one_clip_has_no_distribution(splits):
    study = LikenessStudy(Halves())
    measure_reconstruction(CopyB(), splits[1].subset([0]), watch=study.watch, **OPTIONS)
    with pytest.raises(DatasetError, match="at least 2 clips on each side, got 1"):
        study.result()
