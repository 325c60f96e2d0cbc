"""Overlap where it is known: codes that share nothing, codes that are the same, a bent copy, codes all alike."""

import json

import pytest
import torch

from divid.data.clips import ClipDataset
from divid.errors import DatasetError
from divid.evaluation import overlap
from divid.evaluation.overlap import measure_overlap, overlap_of_codes
from divid.types import Codes
from labelled_clips import NUM_FRAMES, LabelCodes, prepare_clips


def codes(shared, num_clips=400, seed=0):
    """Give s of 2 numbers and 4 frames of d of 3, which are noise but for what `shared` makes of s."""
    generator = torch.Generator().manual_seed(seed)
    static, noise = torch.randn(num_clips, 2, generator=generator), torch.randn(num_clips, 4, 3, generator=generator)
    return Codes(static, shared(static, noise))


def both(shared):
    result = overlap_of_codes(codes(shared), codes(shared, 200, seed=1))
    return result.static_from_dynamic, result.dynamic_from_static


def test_independent_codes_tell_nothing():
    for explained in both(lambda static, noise: noise):
        assert explained.low < 0.02
        assert explained.share < 0.02


def test_a_copy_tells_all():
    for explained in both(lambda static, noise: static[:, None, [0, 1, 0]].expand(-1, 4, -1)):
        assert 0.97 < explained.low <= explained.share <= explained.high <= 1


def test_a_bent_copy_is_seen_too():
    """The second number's square alone is in d: a linear map would find nothing."""
    static, dynamic = both(lambda static, noise: static[:, None, 1:].square().expand(-1, 4, 3) + 0 * noise)
    assert dynamic.share > 0.9
    assert static.share < 0.1


def test_half_a_token_is_half_its_variance():
    def one_of_two(static, noise):
        return torch.cat([static[:, None, :1].expand(-1, 4, -1), noise[..., 1:]], dim=-1)

    static, _ = both(one_of_two)
    assert static.share == pytest.approx(0.5, abs=0.06)
    assert static.low < 0.5 < static.high


def test_tokens_that_never_vary_have_nothing_to_tell():
    static, dynamic = both(lambda static, noise: torch.ones_like(noise))
    assert (dynamic.share, dynamic.low, dynamic.high) == (0, 0, 0)
    assert static.share < 0.02


def test_clips_and_bad_input(tmp_path, monkeypatch):
    folder = prepare_clips(tmp_path / "recordings", tmp_path / "set")
    held_in, held_out = (ClipDataset.open(folder, split=split) for split in ("train", "test"))
    result = measure_overlap(LabelCodes(), held_in, held_out, num_frames=NUM_FRAMES)
    assert (result.num_held_in, result.num_held_out) == (len(held_in), len(held_out))
    assert max(result.static_from_dynamic.share, result.dynamic_from_static.share) < 0.1
    assert json.loads(json.dumps(result.to_dict()))["static_from_dynamic"].keys() == {"share", "low", "high"}
    assert result.to_text().startswith("overlap  static from dynamic")
    monkeypatch.setattr(overlap, "LEAST_CLIPS", len(held_out) + 1)
    with pytest.raises(DatasetError, match=f"clips or more, there are {len(held_out)}"):
        measure_overlap(LabelCodes(), held_in, held_out, num_frames=NUM_FRAMES)
