"""Streams of frames: times, sizes, channels and memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clip_files import encode_at, levels, make_clip, shown
from divid.errors import ConfigError
from divid.video import (
    VideoWriter,
    check_arguments,
    fit_frame,
    is_video_like,
    natural_key,
    open_video,
    read_video,
    to_grey,
    write_video,
)


class TestVideo:
    def test_info_and_exact_frame_count(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", make_clip(25, 32, 48), 30000 / 1001)
        with open_video(tmp_path / "a.mp4") as reader:
            info = reader.info
            assert (info.kind, info.num_frames, info.height, info.width, info.has_audio) == ("video", 25, 32, 48, False)
            assert reader.fps == pytest.approx(30000 / 1001, rel=1e-6)
            assert len(list(reader)) == reader.num_frames == 25

    def test_one_frame(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", make_clip(1), 25)
        assert read_video(tmp_path / "a.mp4")[0].shape == (1, 32, 32, 3)

    @pytest.mark.parametrize("turn", [90, 180, -90])
    def test_rotation_flag(self, tmp_path: Path, turn: int) -> None:
        clip = np.full((3, 16, 32, 3), 20, dtype=np.uint8)
        clip[:, :8, :16] = 220  # the top left quarter of what is stored
        encode_at(tmp_path / "a.mp4", clip, [0, 40, 80], rotation=turn)
        frames, _ = read_video(tmp_path / "a.mp4")
        expected = np.rot90(clip, turn // 90, axes=(1, 2))
        assert frames.shape == expected.shape
        assert np.abs(frames.astype(int) - expected).mean() < 4
        with open_video(tmp_path / "a.mp4") as reader:
            assert (reader.info.height, reader.info.width) == expected.shape[1:3]

    def test_rotation_flag_of_a_telephone_turns_clockwise(self, tmp_path: Path) -> None:
        """The matrix that cameras write for a recording held upright, set byte by byte in the track header."""
        clip = np.full((2, 16, 32, 3), 20, dtype=np.uint8)
        clip[:, :8, :16] = 220
        encode_at(tmp_path / "a.mp4", clip, [0, 40])
        data = bytearray((tmp_path / "a.mp4").read_bytes())
        matrix = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
        values = [0, 1 << 16, 0, -(1 << 16), 0, 0, 16 << 16, 0, 1 << 30]
        data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
        (tmp_path / "a.mp4").write_bytes(data)
        frames, _ = read_video(tmp_path / "a.mp4")
        assert frames.shape == (2, 32, 16, 3)
        assert frames[0, :14, 10:].mean() > 200  # top left has become top right
        assert frames[0, :14, :6].mean() < 40

    @pytest.mark.parametrize("ending", [".mp4", ".mkv"])
    def test_variable_frame_rate_is_resampled_by_time(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"a{ending}"
        encode_at(path, levels(8), [0, 100, 200, 500, 600, 700, 900, 1000])
        frames, fps = read_video(path, fps=10)
        assert fps == 10
        assert shown(frames)[:11] == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]

    def test_variable_frame_rate_keeps_its_length_at_its_mean_rate(self, tmp_path: Path) -> None:
        encode_at(tmp_path / "a.mp4", levels(8), [0, 100, 200, 500, 600, 700, 900, 1000])
        frames, fps = read_video(tmp_path / "a.mp4")
        assert len(frames) / fps == pytest.approx(1.1, abs=0.15)

    def test_rounded_timestamps_neither_repeat_nor_drop(self, tmp_path: Path) -> None:
        encode_at(tmp_path / "a.mkv", levels(12), [round(k * 1000 / 30) for k in range(12)])
        frames, _ = read_video(tmp_path / "a.mkv", fps=30)
        assert shown(frames) == list(range(12))

    def test_fps_up_and_down(self, tmp_path: Path) -> None:
        encode_at(tmp_path / "a.mp4", levels(8), [k * 100 for k in range(8)])
        assert shown(read_video(tmp_path / "a.mp4", fps=20)[0])[:8] == [0, 0, 1, 1, 2, 2, 3, 3]
        assert shown(read_video(tmp_path / "a.mp4", fps=5)[0])[:4] == [0, 2, 4, 6]

    def test_avi_with_mpeg4(self, tmp_path: Path) -> None:
        clip = make_clip(8, 48, 64)
        with av.open(str(tmp_path / "a.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=15, options={"qscale": "2"})
            stream.pix_fmt, stream.height, stream.width, stream.bit_rate = "yuv420p", 48, 64, 4_000_000
            for array in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode(None))
        frames, fps = read_video(tmp_path / "a.avi")
        assert fps == 15
        assert np.abs(frames.astype(int) - clip).mean() < 6

    @pytest.mark.parametrize(("codec", "pixels", "values"), [("ffv1", "gray", 1), ("ffv1", "gray16le", 257), ("png", "ya8", 1)])
    def test_grey_formats(self, tmp_path: Path, codec: str, pixels: str, values: int) -> None:
        ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * values
        path = tmp_path / ("a.mov" if codec == "png" else "a.mkv")
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.pix_fmt, stream.height, stream.width = pixels, 16, 16
            array = ramp if values > 1 else ramp.astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="gray16le" if values > 1 else "gray")
            container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode(None))
        frames, _ = read_video(path, channels=1)
        assert np.abs(frames[0, ..., 0].astype(int) - np.arange(256).reshape(16, 16)).max() <= 2

    def test_alpha_lies_over_black(self, tmp_path: Path) -> None:
        rgba = np.full((16, 16, 4), 200, dtype=np.uint8)
        rgba[..., 3] = 128
        rgba[:8, :, 3] = 0
        with av.open(str(tmp_path / "a.mov"), "w") as container:
            stream = container.add_stream("png", rate=25)
            stream.pix_fmt, stream.height, stream.width = "rgba", 16, 16
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
            container.mux(stream.encode(None))
        frames, _ = read_video(tmp_path / "a.mov")
        assert not frames[0, :8].any()
        assert np.abs(frames[0, 8:].astype(int) - 100).max() <= 1

    def test_8k_frame(self, tmp_path: Path) -> None:
        clip = np.full((1, 4320, 7680, 3), 90, dtype=np.uint8)
        clip[:, :, 3840:] = 180
        with av.open(str(tmp_path / "a.avi"), "w") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.pix_fmt, stream.height, stream.width = "yuvj420p", 4320, 7680
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip[0], format="rgb24")))
            container.mux(stream.encode(None))
        frames, _ = read_video(tmp_path / "a.avi", size=64)
        assert frames.shape == (1, 64, 64, 3)
        assert frames[0, :, :30].mean() == pytest.approx(90, abs=3)
        assert frames[0, :, 34:].mean() == pytest.approx(180, abs=3)

    def test_trimmed_by_an_edit_list_is_not_taken_for_cut_off(self, tmp_path: Path) -> None:
        """Telephones trim by telling players to skip the first frames: the file holds more than it shows."""
        write_video(tmp_path / "a.mp4", levels(12), 25)
        with (
            av.open(str(tmp_path / "a.mp4")) as source,
            av.open(str(tmp_path / "b.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as target,
        ):
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            skipped = int(5 / (25 * stream.time_base))
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.pts, packet.dts, packet.stream = packet.pts - skipped, packet.dts - skipped, copy
                    target.mux(packet)
        assert shown(read_video(tmp_path / "b.mp4")[0]) == [5, 6, 7, 8, 9, 10, 11]

    def test_longer_sound_beside_the_picture(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.mkv"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.pix_fmt, stream.height, stream.width = "yuv420p", 32, 32
            sound = container.add_stream("aac", rate=8000, layout="mono")
            for array in make_clip(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode(None))
            for number in range(40):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 8000, number * 1024, Fraction(1, 8000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        with open_video(tmp_path / "a.mkv") as reader:
            assert reader.info.has_audio
            assert reader.num_frames is None
            assert len(list(reader)) == 10

    def test_name_with_colon_and_percent(self, tmp_path: Path) -> None:
        write_video(tmp_path / "http:%03d a.mp4", make_clip(3), 25)
        assert len(read_video(tmp_path / "http:%03d a.mp4")[0]) == 3

    def test_memory_does_not_grow_with_length(self, tmp_path: Path) -> None:
        clip = make_clip(50)
        with VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
            for _ in range(40):
                writer.write(clip)
        count = 0
        tracemalloc.start()
        try:
            with open_video(tmp_path / "a.mp4", size=64) as reader:
                for frame in reader:
                    count += frame.shape == (64, 64, 3)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == 2000
        assert peak < 60 * 64 * 64 * 3  # sixty frames' worth, out of two thousand

    def test_chunks(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", make_clip(10), 25)
        with open_video(tmp_path / "a.mp4") as reader:
            assert [len(chunk) for chunk in reader.chunks(4)] == [4, 4, 2]

    def test_close_before_the_end(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", make_clip(10), 25)
        reader = open_video(tmp_path / "a.mp4")
        next(reader)
        reader.close()
        assert list(reader) == []


class TestShapes:
    @pytest.fixture
    def wide(self) -> np.ndarray:
        frame = np.full((4, 8, 3), 100, dtype=np.uint8)
        frame[:, :2], frame[:, 6:] = 10, 250
        return frame

    def test_crop_takes_the_middle(self, wide: np.ndarray) -> None:
        assert (fit_frame(wide, 4, "crop") == 100).all()

    def test_pad_keeps_all_between_black_bars(self, wide: np.ndarray) -> None:
        result = fit_frame(wide, 8, "pad")
        assert not result[:2].any()
        assert not result[6:].any()
        np.testing.assert_array_equal(result[2:6], wide)

    def test_stretch_keeps_all(self, wide: np.ndarray) -> None:
        assert fit_frame(wide, 4, "stretch")[0, :, 0].tolist() == [10, 100, 100, 250]

    def test_whole_ratios_are_averaged_exactly(self) -> None:
        frame = np.random.default_rng(0).integers(0, 256, (12, 12, 1), dtype=np.uint8)
        expected = frame.reshape(4, 3, 4, 3, 1).mean(axis=(1, 3))
        assert np.abs(fit_frame(frame, 4, "crop") - expected).max() <= 1

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 5), (101, 33)])
    def test_any_shape(self, fit: str, shape: tuple[int, int]) -> None:
        assert fit_frame(np.full((*shape, 3), 9, dtype=np.uint8), 8, fit).shape == (8, 8, 3)  # type: ignore[arg-type]

    def test_luma(self) -> None:
        assert to_grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7]]], dtype=np.uint8)).ravel().tolist() == [
            76, 150, 29, 7,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("channels", 2), ("size", 0), ("fps", 0), ("fps", float("nan")), ("max_frames", 0)],
    )
    def test_wrong_argument(self, tmp_path: Path, argument: str, value: object) -> None:
        with pytest.raises(ConfigError, match=argument):
            open_video(tmp_path, **{argument: value})  # type: ignore[arg-type]

    def test_wrong_fit_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'crop'"):
            check_arguments(3, 8, "cropp", None, None)


def test_natural_key() -> None:
    names = ["f10.png", "F2.png", "f1.png", "10", "9", "f2b.png"]
    assert sorted(names, key=natural_key) == ["9", "10", "f1.png", "F2.png", "f2b.png", "f10.png"]


def test_is_video_like(tmp_path: Path) -> None:
    (tmp_path / "a.MP4").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / ".b.mp4").touch()
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").touch()
    (tmp_path / "other").mkdir()
    found = [path.name for path in sorted(tmp_path.iterdir()) if is_video_like(path)]
    assert found == ["a.MP4", "frames"]
    assert not is_video_like(tmp_path / "missing.mp4")


def test_import_leaves_ffmpeg_alone() -> None:
    code = "import sys, divid.video; sys.exit('av' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
