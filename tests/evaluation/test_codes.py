"""Encoding and decoding in batches: the same clips with the same seeds in any batch, and nothing that is no number."""

import pytest
import torch

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.errors import ModelError
from divid.evaluation import codes as batches
from divid.evaluation.codes import check_clips, decode_clips, encode_clips
from divid.types import Codes
from labelled_clips import NUM_FRAMES, SIZE, Broken, CopyB, prepare_clips

SHAPE = (NUM_FRAMES, 1, SIZE, SIZE)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("coded")
    return ClipDataset.open(prepare_clips(root / "recordings", root / "set", num_trials=1))


def decode(model, codes, seed=0):
    made = decode_clips(model, codes, sampling=SamplingConfig(), shape=SHAPE, seed=seed, method="vae", what="swap")
    return torch.cat(list(made))


def test_batches_do_not_matter_and_clip_i_has_seed_plus_i(clips, monkeypatch):
    model, heard = CopyB(), []
    whole = encode_clips(model, clips, num_frames=NUM_FRAMES)
    video = decode(model, whole, seed=50)
    monkeypatch.setattr(batches, "BATCH_CLIPS", 4)
    parts = encode_clips(model, clips, num_frames=NUM_FRAMES, told=lambda *words: heard.append(words))
    assert torch.equal(parts.static, whole.static)
    assert torch.equal(decode(model, parts, seed=50), video)
    assert model.seen_seeds == [*range(50, 59), *range(50, 59)]
    assert heard == [("encoding", 4, 9), ("encoding", 8, 9), ("encoding", 9, 9)]


def test_chosen_clips_are_encoded_in_the_order_given(clips):
    whole, some = (encode_clips(CopyB(), clips, indices, num_frames=NUM_FRAMES) for indices in (None, [7, 2]))
    assert torch.equal(some.dynamic, whole.dynamic[[7, 2]])


def test_codes_that_are_no_numbers_are_refused(clips):
    class Lost(CopyB):
        def encode(self, video):
            codes = super().encode(video)
            return Codes(codes.static * torch.nan, codes.dynamic)

    with pytest.raises(ModelError, match="codes that hold NaN"):
        encode_clips(Lost(), clips, num_frames=NUM_FRAMES)


def test_made_clips_that_are_no_numbers_are_numbered_over_all_batches(clips, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_CLIPS", 4)
    codes = encode_clips(CopyB(), clips, num_frames=NUM_FRAMES)
    with pytest.raises(ModelError, match=r"the method vae gives values that are not numbers .* in swap 2:"):
        decode(Broken(), codes)
    with pytest.raises(ModelError, match="in swap 6:"):
        check_clips(torch.tensor([0.0, 0.0, torch.inf]).view(3, 1, 1, 1, 1), (3, 1, 1, 1, 1), "vae", "swap", 4)


def test_clips_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"shape \(1, 2, 1, 4, 4\) where \(1, 5, 1, 16, 16\) is wanted"):
        check_clips(torch.zeros(1, 2, 1, 4, 4), (1, *SHAPE), "vae", "swap")
