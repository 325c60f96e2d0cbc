"""Self-consistency where it is known: codes that hold exactly the label, methods that give back A or B, codes all alike."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import ConfigError, DatasetError, ModelError
from divid.evaluation.consistency import draw_any_pairs, measure_consistency
from divid.types import Codes
from labelled_clips import NUM_FRAMES, Broken, CopyA, CopyB, LabelCodes, prepare_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("consistency")
    return ClipDataset.open(prepare_clips(root / "recordings", root / "set"), split="test")


class Collapsed(CopyA):
    """The same tokens for every clip."""

    def encode(self, video):
        codes = super().encode(video)
        return Codes(codes.static * 0, codes.dynamic * 0)


def measure(model, clips, num_pairs=10_000, **options):
    return measure_consistency(model, clips, num_pairs=num_pairs, num_frames=NUM_FRAMES, sampling=SamplingConfig(), **options)


def rates(result):
    return result.static.rate, result.dynamic.rate, result.joint.rate


def test_a_method_that_copies_keeps_one_and_loses_the_other(clips):
    assert rates(measure(CopyA(), clips)) == (1, 0, 0)
    assert rates(measure(CopyB(), clips)) == (0, 1, 0)


def test_codes_that_hold_exactly_the_label_keep_what_differs(clips):
    result = measure(LabelCodes(), clips)
    labels = [clips.labels(index) for index in range(len(clips))]
    pairs = draw_any_pairs(len(clips), 10_000)
    for factor, rate in (("subject", result.static), ("action", result.dynamic)):
        differing = np.mean([labels[a][factor] != labels[b][factor] for a, b in pairs])
        assert 0 < differing < 1
        assert rate.rate == pytest.approx(differing)
    assert result.joint.rate < min(result.static.rate, result.dynamic.rate)


def test_a_collapsed_encoder_keeps_nothing(clips):
    assert rates(measure(Collapsed(), clips)) == (0, 0, 0)


class Reader(LabelCodes):
    """Sees everything that the labels say, and has the options of a model."""

    def __init__(self, image_size, channels):
        super().__init__()
        self.options = SimpleNamespace(image_size=image_size, channels=channels)


def test_another_models_encoder_reads_the_swaps(clips):
    reader = Reader(clips.info.image_size, clips.info.channels)
    own, other = measure(CopyB(), clips), measure(CopyB(), clips, reader=reader)
    assert rates(own) == (0, 1, 0)
    pairs = draw_any_pairs(len(clips), 10_000).tolist()
    differing = np.mean([clips.labels(a)["action"] != clips.labels(b)["action"] for a, b in pairs])
    assert 0 < differing < 1
    assert rates(other) == (0, pytest.approx(differing), 0)
    assert replace(other, reader="runs/other").to_text().splitlines()[0].endswith("swaps, read by runs/other")


def test_a_reader_of_another_size_is_refused(clips):
    with pytest.raises(ConfigError, match="reads the swaps was made for 8x8 clips of 3 channels"):
        measure(CopyA(), clips, reader=Reader(8, 3))


def test_every_pair_is_of_two_clips_and_comes_once():
    pairs = draw_any_pairs(5, 100, seed=3)
    assert len(pairs) == 20
    assert len({tuple(pair) for pair in pairs.tolist()}) == 20
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.flatten()) == set(range(5))
    np.testing.assert_array_equal(draw_any_pairs(5, 7, seed=3), pairs[:7])
    assert (draw_any_pairs(5, 20, seed=4) != pairs).any()


def test_numbers_repeat_and_seeds_count_over_all_pairs(clips):
    model = CopyA()
    one, two = measure(model, clips, 20), measure(CopyA(), clips, 20)
    assert one == two
    assert one.static.num == 20
    assert model.seen_seeds == list(range(20))
    assert json.loads(json.dumps(one.to_dict()))["joint"]["num"] == 20
    assert "look kept    100.0%" in one.to_text()


def test_bad_input_is_one_line(clips):
    with pytest.raises(DatasetError, match="a swap needs two clips, there is 1"):
        draw_any_pairs(1, 5)
    with pytest.raises(ModelError, match="in swap 2"):
        measure(Broken(), clips)
