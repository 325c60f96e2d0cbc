from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from divid.arrays import frames_to_video, video_to_frames
from divid.config import ModelConfig, SamplingConfig
from divid.errors import ConfigError, InputError, VideoReadError
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.pipeline import DividPipeline
from divid.rendering import RenderOptions, enlarge, runs
from divid.video import VideoWriter, read_video, write_video

CONFIG = ModelConfig(
    image_size=16,
    frames_per_sequence=5,
    max_frame_spacing=3,
    encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
    tokens=TokenConfig(static_dim=16, dynamic_dim=8),
    denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
)
FAST = SamplingConfig(num_inference_steps=2)


def clip(num_frames: int, seed: int, size: int = 16, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    start = generator.integers(0, 256, (1, size, size, channels))
    return ((start + 7 * np.arange(num_frames)[:, None, None, None]) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> DividPipeline:
    torch.manual_seed(1)
    return DividPipeline(DividModel(CONFIG).eval(), FAST)


@pytest.fixture
def videos(tmp_path):
    write_video(tmp_path / "a.mp4", clip(6, 0, size=24), 10.0)
    write_video(tmp_path / "b.mp4", clip(23, 1, size=24), 25.0)
    return tmp_path / "a.mp4", tmp_path / "b.mp4"


def test_frames_and_video_are_one_another():
    frames = clip(4, 0)
    video = frames_to_video(frames)
    assert video.shape == (1, 4, 3, 16, 16)
    assert -1 <= video.min() < video.max() <= 1
    assert np.array_equal(video_to_frames(video)[0], frames)


def test_save_load_equal(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    loaded = DividPipeline.from_pretrained(tmp_path / "model")
    assert loaded.sampling == FAST
    for name, tensor in pipeline.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    frames = [each(clip(5, 0), clip(5, 1), seed=3) for each in (pipeline, loaded)]
    assert np.array_equal(*frames)


def test_half_precision_makes_nearly_the_same_frames(tmp_path):
    # At high noise a scaled input is nearly nothing, which an untrained network's norms blow up, rounding included.
    torch.manual_seed(1)
    config = dataclasses.replace(CONFIG, diffusion=dataclasses.replace(CONFIG.diffusion, scale_input=False))
    pipeline = DividPipeline(DividModel(config).eval(), FAST)
    pipeline.save_pretrained(tmp_path / "model")
    half = DividPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.bfloat16)
    frames = [each(clip(5, 0), clip(5, 1), seed=3).astype(int) for each in (pipeline, half)]
    assert np.abs(frames[0] - frames[1]).mean() < 5


def test_the_card_survives_loading_and_saving(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "README.md").write_text("# What I know\n")
    DividPipeline.from_pretrained(str(tmp_path / "first")).save_pretrained(tmp_path / "second")
    assert (tmp_path / "second" / "README.md").read_text() == "# What I know\n"


def test_push_to_hub_uploads_the_model_folder(pipeline, monkeypatch):
    import huggingface_hub

    sent = {}

    def upload(repo_id, folder_path, token, **options):
        sent.update(options, repo_id=repo_id, files=sorted(p.name for p in folder_path.iterdir()))
        return "address"

    created = type("Created", (), {"repo_id": "me/model"})
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda *args, **options: created)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    assert pipeline.push_to_hub("model", commit_message="first") == "address"
    assert sent == {
        "repo_id": "me/model",
        "files": ["README.md", "model", "model_index.json"],
        "commit_message": "first",
    }


def test_a_swap_takes_static_from_one_and_dynamic_from_the_other(pipeline):
    a, b = clip(5, 0), clip(5, 1)
    codes = pipeline.encode_frames(a).with_motion_of(pipeline.encode_frames(b))
    assert np.array_equal(pipeline(a, b, seed=2), pipeline.decode_frames(codes, seed=2))
    assert torch.equal(codes.static, pipeline.encode_frames(a).static)
    assert torch.equal(codes.dynamic, pipeline.encode_frames(b).dynamic)


def test_the_seed_decides_the_sample(pipeline):
    first, again, other = (pipeline(clip(5, 0), clip(5, 1), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("solver", ["dpmsolver++", "ddpm"])
def test_chunks_change_nothing(solver, pipeline):
    codes = pipeline.encode_frames(clip(23, 1))
    whole, pieces = (
        pipeline.decode_frames(codes, sampling=SamplingConfig(solver=solver, num_inference_steps=3, chunk_frames=size))
        for size in (100, 4)
    )
    assert np.abs(whole.astype(int) - pieces).max() <= 1


def test_a_swap_of_files_has_the_motions_length_and_rate(pipeline, videos, tmp_path):
    result = pipeline.swap(*videos, tmp_path / "c.mp4")
    assert (result.num_frames, result.path) == (23, tmp_path / "c.mp4")
    frames, fps = read_video(result.path)
    assert frames.shape == (23, 16, 16, 3)
    assert fps == result.fps == pytest.approx(25.0)


def test_files_and_arrays_give_the_same(pipeline, videos):
    a, b = (read_video(path, size=16)[0] for path in videos)
    assert np.array_equal(pipeline.swap(*videos, seed=5).frames, pipeline(a, b, seed=5))


def test_compare_shows_the_shorter_appearance_again_and_again(pipeline, videos, tmp_path, monkeypatch):
    written = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, frames: written.append(frames) or write(self, frames))
    pipeline.swap(*videos, tmp_path / "c.mp4", compare=True, sampling=SamplingConfig(num_inference_steps=2, chunk_frames=10))
    frames = np.concatenate(written)
    assert frames.shape == (23, 16, 48, 3)
    a, b = (read_video(path, size=16)[0] for path in videos)
    assert np.array_equal(frames[:, :, :16], a[np.arange(23) % 6])
    assert np.array_equal(frames[:, :, 16:32], b)
    assert np.abs(frames[:, :, 32:].astype(int) - pipeline.swap(*videos).frames).max() <= 1


def test_a_sheet_shows_frames_of_the_very_same_sample(pipeline, videos, tmp_path, monkeypatch):
    rows = {}

    def note_rows(given, **options):
        rows.update(given)
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("divid.pipeline.contact_sheet", note_rows)
    pipeline.swap(*videos, tmp_path / "c.png", seed=7)
    whole = pipeline.swap(*videos, seed=7).frames
    assert list(rows) == ["appearance", "motion", "swap"]
    picked = [round(k * 22 / 9) for k in range(10)]
    assert np.abs(rows["swap"].astype(int) - whole[picked]).max() <= 1
    assert np.array_equal(rows["motion"], read_video(videos[1], size=16)[0][picked])


def test_reconstruction_is_the_swap_with_itself(pipeline, videos):
    assert np.array_equal(pipeline.reconstruct(videos[1]).frames, pipeline.swap(videos[1], videos[1]).frames)


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_interpolation_goes_from_one_swap_to_the_other(path, pipeline, videos):
    a, b = videos
    wide = pipeline.interpolate(a, b, to_appearance=b, num_steps=3, path=path).frames
    assert wide.shape == (23, 16, 48, 3)
    assert np.abs(wide[:, :, :16].astype(int) - pipeline.swap(a, b).frames).max() <= 1
    assert np.abs(wide[:, :, 32:].astype(int) - pipeline.swap(b, b).frames).max() <= 1
    assert not np.array_equal(wide[:, :, 16:32], wide[:, :, :16])


def test_interpolation_between_motions_keeps_the_first_ones_length(pipeline, videos):
    a, b = videos
    assert pipeline.interpolate(a, b, to_motion=a, num_steps=2).frames.shape == (23, 16, 32, 3)


@pytest.mark.parametrize("options", [{}, {"to_appearance": "a", "to_motion": "b"}, {"to_motion": "b", "num_steps": 1}])
def test_interpolation_that_makes_no_sense(options, pipeline, videos):
    with pytest.raises(ConfigError):
        pipeline.interpolate(*videos, **options)


@pytest.mark.parametrize(
    "options", [{"scale": 0}, {"seed": -1}, {"sede": 1}, {"sampling": SamplingConfig(num_inference_steps=0)}]
)
def test_options_out_of_range(options, pipeline, videos, tmp_path):
    with pytest.raises(ConfigError):
        pipeline.swap(*videos, tmp_path / "c.mp4", **options)
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize("frames", [clip(5, 0).astype(np.float32), clip(5, 0, size=8), clip(5, 0, channels=1), clip(5, 0)[0]])
def test_arrays_of_another_kind(frames, pipeline):
    with pytest.raises(InputError, match=r"must be uint8 of shape \(F, 16, 16, 3\)"):
        pipeline.encode_frames(frames)


def test_one_frame_is_an_appearance_but_no_motion(pipeline, videos, tmp_path):
    write_video(tmp_path / "one.gif", clip(1, 2), 10.0)
    assert pipeline.swap(tmp_path / "one.gif", videos[0]).num_frames == 6
    with pytest.raises(VideoReadError, match="only one frame"):
        pipeline.swap(videos[0], tmp_path / "one.gif")


def test_progress_is_told_to_the_end(pipeline, videos, tmp_path):
    told = {}
    pipeline.swap(*videos, tmp_path / "c.mp4", progress=lambda stage, done, total: told.update({stage: (done, total)}))
    assert told == {"reading a.mp4": (6, 6), "reading b.mp4": (23, 23), "making frames": (23, 23)}


def test_a_failure_while_making_frames_leaves_the_old_file(pipeline, videos, tmp_path, monkeypatch):
    out = tmp_path / "c.mp4"
    out.write_bytes(b"keep me")
    decode = pipeline.model.decode
    calls = []

    def fail_later(*args, **options):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("out of luck")
        return decode(*args, **options)

    monkeypatch.setattr(pipeline.model, "decode", fail_later)
    with pytest.raises(RuntimeError):
        pipeline.swap(*videos, out, sampling=SamplingConfig(num_inference_steps=1, chunk_frames=8))
    assert out.read_bytes() == b"keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(pipeline, tmp_path):
    peaks = {}
    for num_frames in (40, 320):
        motion = tmp_path / f"{num_frames}.mp4"
        with VideoWriter(motion, fps=25.0) as writer:
            for start in range(0, num_frames, 40):
                writer.write(clip(40, start, size=64))
        options = RenderOptions(sampling=SamplingConfig(num_inference_steps=1, chunk_frames=16))
        pipeline.swap(motion, motion, tmp_path / "c.mp4", sampling=options.sampling)
        tracemalloc.start()
        assert pipeline.swap(motion, motion, tmp_path / "c.mp4", sampling=options.sampling).num_frames == num_frames
        peaks[num_frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    frame_bytes = 64 * 64 * 3
    assert peaks[320] - peaks[40] < 280 * frame_bytes / 4


def test_runs_are_neighbours_and_never_too_long():
    assert list(runs([0, 1, 2, 3, 7, 9, 10], 3)) == [[0, 1, 2], [3], [7], [9, 10]]


def test_enlarging_keeps_flat_colours():
    frames = np.full((2, 4, 4, 1), 77, np.uint8)
    assert np.array_equal(enlarge(frames, 3), np.full((2, 12, 12, 1), 77, np.uint8))
