"""Writing: what is written can be read again, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from divid.errors import ConfigError, OutputError
from divid.video import VideoWriter, read_video, write_video


def smooth_clip(num_frames: int = 20, height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack([128 + 100 * np.sin((x + 3 * f) / 9 + c) * np.cos((y - f) / 11 + c) for c in range(channels)], axis=-1)
        for f in range(num_frames)
    ]
    return np.stack(frames).round().astype(np.uint8)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))


@pytest.fixture
def no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of each write meets a full disk."""

    def replace(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr(os, "replace", replace)


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses every file to grow above 4,000 bytes: the real thing, as near as it gets without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestMp4:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("fps", [12.5, 25, 30000 / 1001, 60])
    def test_round_trip(self, tmp_path: Path, channels: int, fps: float) -> None:
        clip = smooth_clip(channels=channels)
        write_video(tmp_path / "a.mp4", clip, fps)
        frames, rate = read_video(tmp_path / "a.mp4", channels=channels)
        assert rate == pytest.approx(fps, rel=1e-5)
        assert frames.shape == clip.shape
        assert psnr(frames, clip) > (43 if channels == 1 else 35)

    def test_colours_keep_their_mean(self, tmp_path: Path) -> None:
        """Wrong matrices or ranges shift flat colours by far more than compression does."""
        colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]], dtype=np.uint8)
        clip = np.repeat(colours, 32 * 32, axis=0).reshape(6, 32, 32, 3)
        write_video(tmp_path / "a.mp4", clip, 5)
        frames, _ = read_video(tmp_path / "a.mp4")
        assert np.abs(frames.astype(int) - clip).mean(axis=(1, 2)).max() < 4

    def test_browsers_can_play_it(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", smooth_clip(), 25)
        data = (tmp_path / "a.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")
        with av.open(str(tmp_path / "a.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
            assert (context.colorspace, context.color_range) == (1, 1)

    @pytest.mark.parametrize("shape", [(33, 64), (32, 65), (1, 1), (3, 5)])
    def test_odd_sizes_are_padded_and_logged(
        self, tmp_path: Path, shape: tuple[int, int], caplog: pytest.LogCaptureFixture
    ) -> None:
        height, width = shape
        clip = smooth_clip(4, height, width, channels=1)
        with caplog.at_level(logging.WARNING, logger="divid"):
            write_video(tmp_path / "a.mp4", clip, 25)
        assert "padded" in caplog.text
        frames, _ = read_video(tmp_path / "a.mp4", channels=1)
        even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert frames.shape == even.shape
        assert psnr(frames, even) > 38

    def test_even_sizes_are_not_remarked_on(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_video(tmp_path / "a.mp4", smooth_clip(2), 25)
        assert not caplog.records

    def test_chunks_equal_the_whole(self, tmp_path: Path) -> None:
        """Written without loss: what x264 leaves out of a lossy file is its own choice, and differs now and then between runs."""
        clip = smooth_clip()
        with VideoWriter(tmp_path / "whole.mp4", fps=25, quality=0) as writer:
            writer.write(clip)
        with VideoWriter(tmp_path / "chunks.mp4", fps=25, quality=0) as writer:
            for start in range(0, 20, 7):
                writer.write(clip[start : start + 7])
        assert writer.num_frames == 20
        np.testing.assert_array_equal(read_video(tmp_path / "whole.mp4")[0], read_video(tmp_path / "chunks.mp4")[0])

    def test_quality_costs_bytes(self, tmp_path: Path) -> None:
        sizes = []
        for quality in (10, 40):
            with VideoWriter(tmp_path / "a.mp4", fps=25, quality=quality) as writer:
                writer.write(smooth_clip())
            sizes.append((tmp_path / "a.mp4").stat().st_size)
        assert sizes[0] > 1.5 * sizes[1]


class TestGif:
    def test_grey_is_lossless(self, tmp_path: Path) -> None:
        clip = smooth_clip(channels=1)
        write_video(tmp_path / "a.gif", clip, 20)
        frames, fps = read_video(tmp_path / "a.gif", channels=1)
        np.testing.assert_array_equal(frames, clip)
        assert fps == pytest.approx(20)

    def test_colour_palette_is_good(self, tmp_path: Path) -> None:
        clip = smooth_clip()
        write_video(tmp_path / "a.gif", clip, 20)
        frames, _ = read_video(tmp_path / "a.gif")
        assert frames.shape == clip.shape
        assert psnr(frames, clip) > 32

    @pytest.mark.parametrize("fps", [7, 12, 25, 30, 45, 50])
    def test_durations_add_up_and_it_loops(self, tmp_path: Path, fps: int) -> None:
        write_video(tmp_path / "a.gif", smooth_clip(30, 8, 8, channels=1), fps)
        with Image.open(tmp_path / "a.gif") as image:
            assert image.info["loop"] == 0
            durations = []
            for number in range(image.n_frames):
                image.seek(number)
                durations.append(image.info["duration"])
        assert len(durations) == 30
        assert sum(durations) == pytest.approx(30 * 1000 / fps, abs=10)
        assert max(durations) - min(durations) <= 10
        assert min(durations) >= 20

    def test_still_frames_are_kept(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.gif", smooth_clip(1, 8, 8).repeat(6, axis=0), 10)
        assert len(read_video(tmp_path / "a.gif")[0]) == 6

    def test_too_fast_keeps_its_length(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        clip = smooth_clip(60, 8, 8, channels=1)
        with caplog.at_level(logging.WARNING, logger="divid"):
            write_video(tmp_path / "a.gif", clip, 60)
        assert "at most 50 of 60" in caplog.text
        frames, fps = read_video(tmp_path / "a.gif", channels=1)
        assert len(frames) / fps == pytest.approx(1.0, abs=0.05)

    def test_one_frame(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.gif", smooth_clip(1), 10)
        assert len(read_video(tmp_path / "a.gif")[0]) == 1


def test_webp_is_lossless_and_animated(tmp_path: Path) -> None:
    clip = smooth_clip(6)
    write_video(tmp_path / "a.webp", clip, 10)
    frames, fps = read_video(tmp_path / "a.webp")
    np.testing.assert_array_equal(frames, clip)
    assert fps == pytest.approx(10)


def test_png_is_a_contact_sheet(tmp_path: Path) -> None:
    write_video(tmp_path / "a.png", smooth_clip(), 10)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height > 72


class TestFailure:
    @pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png"])
    @pytest.mark.usefixtures("no_space")
    def test_full_disk_leaves_the_old_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(OutputError, match=r"No space left on device.*free some space") as caught:
            write_video(tmp_path / name, smooth_clip(3), 10)
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes() == b"old"

    @pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png"])
    @pytest.mark.usefixtures("small_files")
    def test_disk_fills_up_while_writing(self, tmp_path: Path, name: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
        with pytest.raises(OutputError, match="cannot be written"):
            write_video(tmp_path / name, noise, 25)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
    def test_exception_of_the_caller_leaves_nothing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / name, fps=25) as writer:  # noqa: PT012 - one statement
            writer.write(smooth_clip(3))
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_no_frame(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no frame"), VideoWriter(tmp_path / "a.mp4", fps=25):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="No such file"):
            write_video(tmp_path / "absent" / "a.mp4", smooth_clip(2), 25)

    def test_unknown_ending(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"'\.xyz'.*\.mp4, \.gif, \.webp, \.png"):
            write_video(tmp_path / "a.xyz", smooth_clip(2), 25)

    def test_size_may_not_change(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="got"), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:  # noqa: PT012
            writer.write(smooth_clip(2, 16, 16))
            writer.write(smooth_clip(2, 16, 18))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)])
    def test_wrong_frames(self, tmp_path: Path, frames: np.ndarray) -> None:
        with pytest.raises(ValueError, match="uint8 F H W C"):
            write_video(tmp_path / "a.mp4", frames, 25)

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
    def test_wrong_fps(self, tmp_path: Path, fps: float) -> None:
        with pytest.raises(ConfigError, match="fps"):
            VideoWriter(tmp_path / "a.mp4", fps=fps)

    def test_wrong_quality(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="quality"):
            VideoWriter(tmp_path / "a.mp4", fps=25, quality=52)
