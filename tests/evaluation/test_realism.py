"""Similarity, feature distances and flicker where their values are known."""

import math
import sys

import pytest
import torch

from divid.errors import DatasetError, MissingExtraError, ModelError
from divid.evaluation.quality import compare
from divid.evaluation.realism import (
    LEVELS,
    Flicker,
    Gaussian,
    GaussianFit,
    MapNetwork,
    clip_features,
    frechet_distance,
    measure_flicker,
    measure_realism,
    perceptual_distance,
    structural_similarity,
)


class Pixels:
    """A feature network whose features are mean and spread of the pixels, and whose maps are two channels made of them."""

    name = "pixels"

    def features(self, frames):
        return torch.stack([frames.flatten(1).mean(1), frames.flatten(1).std(1)], dim=1)

    def maps(self, frames):
        grey = frames.mean(1)
        return [torch.stack([grey, torch.zeros_like(grey)], dim=1), torch.stack([grey, 1 - grey.abs()], dim=1)]


def random_clips(count=3, num_frames=4, seed=0):
    return torch.rand(count, num_frames, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_equal_clips_have_similarity_1_and_distance_0():
    video = random_clips()
    torch.testing.assert_close(structural_similarity(video, video), torch.ones(3, dtype=torch.float64))
    assert perceptual_distance(Pixels(), video, video).tolist() == [0, 0, 0]


def test_similarity_of_two_even_greys_is_the_luminance_term():
    a, b, c1 = 0.2, 0.7, 0.01**2
    video, reference = (torch.full((2, 3, 1, 16, 16), 2 * grey - 1) for grey in (a, b))
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert structural_similarity(video, reference).tolist() == pytest.approx([expected] * 2, abs=1e-5)


def test_similarity_of_each_clip_is_its_own():
    video = random_clips(2)
    values = structural_similarity(video, torch.stack([video[0], video[0]]))
    assert values[0].item() == pytest.approx(1)
    assert values[1].item() < 0.3


def test_similarity_without_torchmetrics_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(MissingExtraError, match=r"torchmetrics: run pip install 'divid\[eval\]'"):
        structural_similarity(random_clips(), random_clips())


@pytest.mark.parametrize(("made", "expected"), [(0.25, 0.0), (-0.25, 4.0)])
def test_perceptual_distance_of_parallel_and_of_opposite_features(made, expected):
    class OneMap(Pixels):
        def maps(self, frames):
            return [frames]

    video, reference = torch.full((2, 3, 1, 4, 4), made), torch.full((2, 3, 1, 4, 4), 0.5)
    assert perceptual_distance(OneMap(), video, reference).tolist() == pytest.approx([expected] * 2)


def test_perceptual_distance_is_the_sum_over_maps():
    class Maps(Pixels):
        def maps(self, frames):
            zero = torch.zeros_like(frames)
            turned = torch.cat([frames.clamp_min(0), (-frames).clamp_min(0)], dim=1)  # orthogonal for opposite signs
            return [torch.cat([frames, zero], dim=1), turned]

    video, reference = torch.full((1, 2, 1, 4, 4), -0.5), torch.full((1, 2, 1, 4, 4), 0.5)
    assert perceptual_distance(Maps(), video, reference).item() == pytest.approx(4 + 2)


def test_a_network_of_maps_has_the_last_maps_means_as_features():
    frames = random_clips(2)[0]
    network = MapNetwork("pixels, maps only", Pixels().maps)
    torch.testing.assert_close(
        network.features(frames), torch.stack([frames.mean((1, 2, 3)), 1 - frames.abs().mean((1, 2, 3))], 1)
    )
    assert torch.equal(network.maps(frames)[0], Pixels().maps(frames)[0])
    assert measure_realism([frames[None].expand(2, -1, -1, -1, -1)], [random_clips(4)], network).network == "pixels, maps only"


def gaussian(mean, covariance):
    return Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64), 100)


def test_frechet_distance_of_one_dimensional_gaussians():
    """(m_1 - m_2)^2 + (sigma_1 - sigma_2)^2."""
    assert frechet_distance(gaussian([1.0], [[4.0]]), gaussian([4.0], [[25.0]])) == pytest.approx(9 + 9)


def test_frechet_distance_of_independent_dimensions_is_their_sum():
    a = gaussian([0.0, 1.0, 2.0], [[1.0, 0, 0], [0, 9, 0], [0, 0, 0]])
    b = gaussian([0.0, 1.0, 0.0], [[4.0, 0, 0], [0, 1, 0], [0, 0, 16]])
    assert frechet_distance(a, b) == pytest.approx(4 + (1 + 4 + 16))


def test_frechet_distance_of_correlated_dimensions():
    """For 2x2 matrices tr (A B)^1/2 = (tr AB + 2 (det AB)^1/2)^1/2, whether or not they commute."""
    a, b = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 3.0]]), gaussian([1.0, -1.0], [[5.0, -2.0], [-2.0, 1.0]])
    product = a.covariance @ b.covariance
    overlap = math.sqrt(product.trace().item() + 2 * math.sqrt(torch.linalg.det(product).item()))
    expected = 2 + 5 + 6 - 2 * overlap
    assert not torch.allclose(product, product.T)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_a_fit_in_parts_is_the_fit_of_all():
    rows = 1000 + torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fit = GaussianFit()
    for part in rows.split([1, 7, 30, 12]):
        fit.add(part)
    whole = fit.result()
    torch.testing.assert_close(whole.mean, rows.mean(0))
    torch.testing.assert_close(whole.covariance, torch.cov(rows.T))
    assert whole.count == 50


def test_one_vector_has_no_covariance():
    fit = GaussianFit()
    fit.add(torch.zeros(1, 3))
    with pytest.raises(DatasetError, match="at least 2 clips on each side, got 1"):
        fit.result()


def test_clips_are_described_by_mean_and_change():
    features = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [0.0, 4.0]]])
    assert clip_features(features).tolist() == [[pytest.approx(2 / 3), 2.0, 2.0, 1.5]]


def test_realism_of_equal_of_brighter_and_of_shuffled_clips():
    video = random_clips(12)
    network = Pixels()
    same = measure_realism(video.split(5), [video], network)
    assert (same.frame, same.clip) == pytest.approx((0, 0), abs=1e-9)
    assert (same.network, same.frame_dim) == ("pixels", 2)
    assert (same.num_made_clips, same.num_made_frames, same.num_real_clips, same.num_real_frames) == (12, 48, 12, 48)
    brighter = measure_realism([0.5 * video + 0.3], [0.5 * video], network)
    assert brighter.frame == pytest.approx(0.09, rel=1e-4)
    assert brighter.clip == pytest.approx(0.09, rel=1e-4)
    assert "(pixels; 12 made, 12 real clips)" in brighter.to_text()


def test_the_clip_distance_sees_a_wrong_order_of_frames_and_the_frame_distance_does_not():
    ramp = torch.linspace(-0.5, 0.5, 8).view(1, 8, 1, 1, 1) + 0.1 * random_clips(10, 8)
    shuffled = ramp[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    result = measure_realism([shuffled], [ramp], Pixels())
    assert result.frame == pytest.approx(0, abs=1e-6)
    assert result.clip > 0.05


def flickering(amplitude, num_frames=6):
    """A block that moves over a still background, and all of it brighter and darker in turn by so many levels."""
    video = torch.full((2, num_frames, 3, 8, 8), 0.1, dtype=torch.float64)
    for frame in range(num_frames):
        video[:, frame, :, 2:4, frame : frame + 2] = 0.9
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(num_frames // 2)
    return video + 0.5 * amplitude / LEVELS * sign.view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 3.0])
def test_flicker_is_the_ratio_of_the_changes_where_the_real_clip_is_still(factor):
    result = measure_flicker(flickering(2 * factor), flickering(2.0))
    assert result.ratio == pytest.approx(factor)
    assert result.made_levels == pytest.approx(2 * factor)
    assert result.real_levels == pytest.approx(2)
    assert result.num_places == 2 * 5 * 64
    assert result.num_still == 2 * 5 * (64 - 4)  # each step the block leaves a column of 2 and takes a new one
    assert f"flicker ratio {factor:.3g} (" in result.to_text()


def test_flicker_adds_up_over_clips():
    parts = [measure_flicker(flickering(4.0)[:1], flickering(1.0)[:1]), measure_flicker(flickering(1.0)[1:], flickering(1.0)[1:])]
    assert (Flicker() + parts[0] + parts[1]).ratio == pytest.approx((4 + 1) / 2)


def test_flicker_is_undefined_where_nothing_is_still_and_where_nothing_changes():
    moving = random_clips()
    none_still = measure_flicker(moving, moving, threshold=0.0)
    assert none_still.num_still == 0
    assert none_still.ratio is None
    assert "undefined: nothing in the real clips is still" in none_still.to_text()
    never_changes = measure_flicker(flickering(1.0), torch.zeros(2, 6, 3, 8, 8))
    assert never_changes.ratio is None
    assert never_changes.made_levels > 0
    assert "undefined: the real clips do not change at all" in never_changes.to_text()
    for result in (none_still, never_changes):
        assert "nan" not in result.to_text()
        assert result.to_dict()["ratio"] is None


def test_quality_holds_all_of_it_over_batches():
    real = random_clips(5)
    pairs = [(real[:2] * 0.5, real[:2]), (real[2:] * 0.5, real[2:])]
    result = compare(pairs, Pixels())
    assert result.ssim.mean == pytest.approx(structural_similarity(real * 0.5, real).mean().item())
    assert result.perceptual is not None
    assert result.perceptual.mean == pytest.approx(perceptual_distance(Pixels(), real * 0.5, real).mean().item())
    assert result.psnr.num_clips == result.ssim.num_clips == result.perceptual.num_clips == 5
    assert result.to_dict()["perceptual"]["network"] == "pixels"
    assert "perceptual distance (pixels)" in result.to_text()
    assert compare(pairs).to_dict()["perceptual"] is None


def test_one_clip_has_no_interval_and_no_nan_is_printed():
    real = random_clips(1)
    result = compare([(real, real)])
    assert result.to_dict()["ssim"] == {"mean": pytest.approx(1), "low": None, "high": None, "num_clips": 1}
    assert "no interval" in result.to_text()
    assert "nan" not in result.to_text()


def test_frames_that_are_no_numbers_are_refused():
    real = random_clips()
    with pytest.raises(ModelError, match="frames that hold NaN"):
        compare([(real * math.nan, real)])
    with pytest.raises(ModelError, match="frames that hold NaN"):
        measure_realism([real * math.nan], [real], Pixels())
