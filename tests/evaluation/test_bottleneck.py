"""The bottleneck curve where it is known: a token that is ignored, and one that tells everything."""

import csv
import math

import pytest
import torch
from PIL import Image

from divid.config import ModelConfig
from divid.data.clips import ClipDataset
from divid.diffusion.schedule import alphas_cumprod, prediction_target, prior_divergence, signal_to_noise
from divid.errors import ConfigError, DatasetError, ModelError, OutputError
from divid.evaluation import bottleneck
from divid.evaluation.bottleneck import derangement, information_curve, measure_bottleneck, timestep_blocks
from divid.evaluation.bottleneck_report import plot_curve, write_csv
from divid.model_parts import DenoiserConfig, DiffusionConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.types import Codes
from made_data import make_set, write_depth
from pixel_method import PixelMethod

SHAPE = (1, 4, 4)
T = 50
CONFIGS = {
    "v_prediction": DiffusionConfig(prediction_type="v_prediction", schedule="cosine", num_train_timesteps=T),
    "epsilon": DiffusionConfig(prediction_type="epsilon", schedule="linear", num_train_timesteps=T),
}
COSINE = CONFIGS["v_prediction"]


def made_clips(count=5, num_frames=3):
    """Clips whose frames differ, and tokens that hold them: s the first frame, d_f each frame."""
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(count, num_frames, *SHAPE, dtype=torch.float64, generator=generator) * 2 - 1
    return video, Codes(video[:, 0].flatten(1), video.flatten(2))


def oracle(token, diffusion):
    """A denoiser that believes the clean frame to be what a token says."""
    abar = alphas_cumprod(diffusion.schedule, T)

    def predict(x_t, t, static, dynamic):
        x_0 = (static if token == "static" else dynamic).view_as(x_t)
        abar_t = abar[t][:, None, None, None]
        noise = (x_t - abar_t.sqrt() * x_0) / (1 - abar_t).sqrt()
        return prediction_target(x_0, noise, abar_t, diffusion.prediction_type)

    return predict


@pytest.mark.parametrize("num_points", [7, T])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_token_that_tells_everything_gives_the_closed_form(name, num_points):
    """Own error 0, with a foreign token ||x - x'||^2 at every t: in all times (SNR(0) - SNR(T-1)) / 2, which telescopes."""
    diffusion, (video, codes) = CONFIGS[name], made_clips()
    curve = information_curve(oracle("dynamic", diffusion), video, codes, diffusion, num_points=num_points, seed=3)
    distance = (video - video[derangement(5, 3)]).square().sum((2, 3, 4)).mean(1)
    snr = signal_to_noise(alphas_cumprod(diffusion.schedule, T))
    torch.testing.assert_close(curve.rises["dynamic"], distance.expand(len(curve.blocks), -1), rtol=1e-8, atol=1e-8)
    assert curve.error.max() < 1e-15
    middle = torch.tensor([block.middle for block in curve.blocks])
    torch.testing.assert_close(curve.nats("dynamic"), (snr[middle - 1] - snr[middle]) / 2 * distance.mean())
    share = curve.share("dynamic")
    assert share.total.mean == pytest.approx(distance.mean().item() * (snr[0] - snr[-1]).item() / 2)
    assert curve.cumulative("dynamic")[0].item() == pytest.approx(share.total.mean)
    assert share.noisy + share.clear == pytest.approx(share.total.mean)
    assert torch.equal(curve.rises["static"], torch.zeros_like(curve.rises["static"]))


def test_the_parts_above_and_below_snr_1_are_closed_forms_too():
    video, codes = made_clips()
    curve = information_curve(oracle("dynamic", COSINE), video, codes, COSINE, num_points=T, seed=0)
    snr = signal_to_noise(alphas_cumprod("cosine", T))
    first_noisy = int((snr < 1).nonzero()[0])
    distance = (video - video[derangement(5, 0)]).square().sum((2, 3, 4)).mean()
    share = curve.share("dynamic")
    assert share.noisy == pytest.approx(float(distance * (snr[first_noisy - 1] - snr[-1]) / 2))
    assert share.noisy_share == pytest.approx(share.noisy / share.total.mean)
    assert share.noisy_share + share.clear_share == pytest.approx(1)


def test_a_static_token_that_tells_one_frame_is_worth_what_it_tells_of_all():
    """s claims the first frame for every frame: the rise is ||x_f - s'||^2 - ||x_f - s||^2."""
    video, codes = made_clips()
    curve = information_curve(oracle("static", COSINE), video, codes, COSINE, num_points=T, seed=1)
    static = codes.static.view(5, 1, *SHAPE)
    own = (video - static).square().sum((2, 3, 4)).mean(1)
    foreign = (video - static[derangement(5, 1)]).square().sum((2, 3, 4)).mean(1)
    torch.testing.assert_close(curve.rises["static"], (foreign - own).expand(T - 1, -1))
    torch.testing.assert_close(curve.error, own.mean().expand(T - 1))
    assert torch.equal(curve.rises["dynamic"], torch.zeros_like(curve.rises["dynamic"]))


@pytest.mark.parametrize("ignored", ["static", "dynamic"])
def test_a_token_that_is_ignored_is_worth_exactly_nothing(ignored):
    video, codes = made_clips()

    def predict(x_t, t, static, dynamic):
        heard = dynamic if ignored == "static" else static
        return torch.tanh(x_t + heard.mean(1)[:, None, None, None]) * (t / T)[:, None, None, None]

    other = "dynamic" if ignored == "static" else "static"
    curve = information_curve(predict, video, codes, COSINE, num_points=10)
    assert torch.equal(curve.rises[ignored], torch.zeros_like(curve.rises[ignored]))
    assert curve.rises[other].abs().min() > 0
    share = curve.share(ignored)
    assert (share.total.mean, share.noisy, share.clear) == (0, 0, 0)
    assert share.noisy_share is share.clear_share is None
    assert "no share" in curve.to_text()
    assert "nan" not in curve.to_text()


def test_the_real_models_exact_zero():
    config = ModelConfig(
        image_size=16,
        channels=1,
        frames_per_sequence=3,
        encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
        tokens=TokenConfig(static_dim=16, dynamic_dim=8),
        denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
    )
    torch.manual_seed(0)
    model = DividModel(config).eval()
    torch.nn.init.zeros_(model.denoiser.dynamic_projection.weight)
    video = torch.rand(3, 3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        codes = model.encode(video)
    curve = information_curve(model.predict, video, codes, model.options.diffusion, num_points=3)
    assert torch.equal(curve.rises["dynamic"], torch.zeros_like(curve.rises["dynamic"]))
    assert curve.rises["static"].abs().min() > 0


def test_batches_do_not_matter_and_the_seed_does(monkeypatch):
    video, codes = made_clips()

    def predict(x_t, t, static, dynamic):
        return x_t * (static.mean(1) + dynamic.mean(1))[:, None, None, None]

    whole = information_curve(predict, video, codes, COSINE, num_points=6)
    monkeypatch.setattr(bottleneck, "BATCH_CLIPS", 2)
    parts = information_curve(predict, video, codes, COSINE, num_points=6)
    torch.testing.assert_close(parts.rises, whole.rises)
    again = information_curve(predict, video, codes, COSINE, num_points=6, seed=1)
    assert not torch.allclose(again.rises["static"], whole.rises["static"])


def test_the_schedules_own_divergence_stands_beside_it():
    video, codes = made_clips()
    curve = information_curve(oracle("static", COSINE), video, codes, COSINE, num_points=6)
    abar = alphas_cumprod("cosine", T)[[block.middle for block in curve.blocks]]
    torch.testing.assert_close(curve.divergence, prior_divergence(video.flatten(0, 1), abar))
    assert (curve.divergence.diff() < 0).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_points", [1, 5, 40, 2000])
def test_blocks_hold_every_timestep_but_the_first_once(schedule, num_points):
    blocks = timestep_blocks(alphas_cumprod(schedule, 1000), num_points)
    assert [t for block in blocks for t in range(block.first, block.last + 1)] == list(range(1, 1000))
    assert all(block.first <= block.middle <= block.last for block in blocks)
    assert len(blocks) <= num_points
    assert len(blocks) == 999 or num_points < 999


def test_blocks_are_exact_enough_for_an_error_that_falls_with_the_snr():
    """For a rise of 1/SNR the sum over all timesteps is about ln SNR(0) - ln SNR(T-1), over 2; 40 blocks find it."""
    snr = signal_to_noise(alphas_cumprod("linear", 1000))
    exact = ((snr[:-1] - snr[1:]) / 2 / snr[1:]).sum().item()
    blocks = timestep_blocks(alphas_cumprod("linear", 1000), 40)
    blocked = sum((snr[b.first - 1] - snr[b.last]).item() / 2 / snr[b.middle].item() for b in blocks)
    assert blocked == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_every_clip_gets_another_ones_token(count):
    partner = derangement(count, 0).tolist()
    assert sorted(partner) == list(range(count))
    assert all(own != other for own, other in enumerate(partner))
    assert partner == derangement(count, 0).tolist()


def test_partners_depend_on_the_seed():
    assert len({tuple(derangement(10, seed).tolist()) for seed in range(5)}) == 5


def test_csv_holds_nats_and_bits_at_full_precision(tmp_path):
    video, codes = made_clips()
    curve = information_curve(oracle("dynamic", COSINE), video, codes, COSINE, num_points=6)
    write_csv(curve, tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [int(row["timestep"]) for row in rows] == [block.middle for block in curve.blocks]
    assert [row["dynamic_nats"] for row in rows] == curve.nats("dynamic").tolist()
    assert [row["dynamic_cumulative_bits"] * math.log(2) for row in rows] == pytest.approx(curve.cumulative("dynamic").tolist())
    assert [row["schedule_kl_bits"] * math.log(2) for row in rows] == pytest.approx(curve.divergence.tolist())


def test_the_plot_is_a_picture_or_an_error(tmp_path):
    video, codes = made_clips()
    curve = information_curve(oracle("dynamic", COSINE), video, codes, COSINE, num_points=6)
    plot_curve(curve, tmp_path / "curve.png", "made clips")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 2 * picture.height
    with pytest.raises(OutputError, match="cannot be written"):
        plot_curve(curve, tmp_path / "missing" / "curve.png")


def test_what_cannot_be_measured_is_refused():
    video, codes = made_clips()
    with pytest.raises(DatasetError, match="only one clip: take 2 or more"):
        information_curve(oracle("static", COSINE), video[:1], Codes(codes.static[:1], codes.dynamic[:1]), COSINE)
    with pytest.raises(ConfigError, match="0 timesteps"):
        information_curve(oracle("static", COSINE), video, codes, COSINE, num_points=0)
    with pytest.raises(ModelError, match=r"timestep \d+ holds NaN"):
        information_curve(lambda x_t, t, static, dynamic: x_t * math.nan, video, codes, COSINE)


def test_a_method_without_a_denoiser_is_refused(tmp_path):
    (tmp_path / "recordings").mkdir()
    write_depth(tmp_path / "recordings", "a1_s1_t1")
    make_set(tmp_path / "recordings", tmp_path / "set")
    with pytest.raises(ConfigError, match="PixelMethod has no denoiser"):
        measure_bottleneck(PixelMethod(), ClipDataset.open(tmp_path / "set"))
