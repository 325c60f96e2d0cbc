"""Every kind of source gives the right pixels, and every bad one an error of one line."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clip_files import encode_at, levels, make_clip, one_line, shown, unprivileged
from divid.errors import VideoReadError
from divid.video import (
    open_video,
    read_video,
    write_image,
    write_video,
)


class TestStills:
    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("1", (255, 255, 255)),
            ("L", (200, 200, 200)),
            ("LA", (100, 100, 100)),
            ("P", (200, 100, 50)),
            ("RGB", (200, 100, 50)),
            ("RGBA", (100, 50, 25)),
            ("I;16", (200, 200, 200)),
        ],
    )
    def test_mode(self, tmp_path: Path, mode: str, expected: tuple[int, ...]) -> None:
        if mode == "I;16":
            image = Image.fromarray(np.full((5, 7), 200 * 257, dtype=np.uint16))
        elif mode == "P":
            image = Image.new("RGB", (7, 5), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE)
        else:
            colours = {"1": 1, "L": 200, "LA": (200, 128), "RGB": (200, 100, 50), "RGBA": (200, 100, 50, 128)}
            image = Image.new(mode, (7, 5), colours[mode])
        image.save(tmp_path / "a.png")
        frames, _ = read_video(tmp_path / "a.png")
        assert frames.shape == (1, 5, 7, 3)
        assert np.abs(frames[0, 2, 3].astype(int) - expected).max() <= 1

    def test_palette_with_transparency_lies_over_black(self, tmp_path: Path) -> None:
        image = Image.new("P", (4, 4), 1)
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((0, 0), 0)
        image.save(tmp_path / "a.png", transparency=1)
        frames, _ = read_video(tmp_path / "a.png")
        assert frames[0, 0, 0].tolist() == [10, 20, 30]
        assert not frames[0, 1:].any()

    def test_camera_orientation_is_applied(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise by 90 degrees
        pixels = np.zeros((16, 32, 3), dtype=np.uint8)
        pixels[:, :16] = 255
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
        frames, _ = read_video(tmp_path / "a.jpg")
        assert frames.shape == (1, 32, 16, 3)
        assert frames[0, :14].min() > 240
        assert frames[0, 18:].max() < 15

    def test_floating_point_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(VideoReadError, match="floating-point") as caught:
            read_video(tmp_path / "a.tiff")
        one_line(caught)


class TestFolder:
    def test_natural_order_lossless_and_other_files_ignored(self, tmp_path: Path) -> None:
        clip = make_clip(12, 9, 13)
        for number, frame in enumerate(clip):
            write_image(tmp_path / f"frame{number}.png", frame)
        (tmp_path / "notes.txt").write_text("not a frame")
        (tmp_path / "._frame0.png").write_bytes(b"left by a file manager")
        (tmp_path / "old.png").mkdir()
        frames, fps = read_video(tmp_path, fps=12)
        np.testing.assert_array_equal(frames, clip)
        assert fps == 12

    def test_info(self, tmp_path: Path) -> None:
        for number, frame in enumerate(make_clip(3, 9, 13)):
            write_image(tmp_path / f"{number}.png", frame)
        with open_video(tmp_path, max_frames=2) as reader:
            info = reader.info
            assert (info.kind, info.num_frames, info.height, info.width, info.fps) == ("folder", 3, 9, 13, 25)
            assert reader.num_frames == 2
            assert len(list(reader)) == 2

    def test_mixed_sizes(self, tmp_path: Path) -> None:
        write_image(tmp_path / "1.png", np.zeros((8, 8, 3), dtype=np.uint8))
        write_image(tmp_path / "2.png", np.zeros((8, 9, 3), dtype=np.uint8))
        with pytest.raises(VideoReadError, match=r"mixed sizes \(1.png is 8x8, 2.png is 9x8\)") as caught:
            open_video(tmp_path)
        one_line(caught)

    @pytest.mark.parametrize("names", [[], ["a.txt", ".hidden.png"]])
    def test_no_images(self, tmp_path: Path, names: list[str]) -> None:
        for name in names:
            (tmp_path / name).write_text("text")
        with pytest.raises(VideoReadError, match="holds no images") as caught:
            open_video(tmp_path)
        one_line(caught)

    def test_damaged_image_is_named(self, tmp_path: Path) -> None:
        for number, frame in enumerate(make_clip(2)):
            write_image(tmp_path / f"{number}.png", frame)
        whole = (tmp_path / "1.png").read_bytes()
        (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(VideoReadError, match=r"1\.png: the image cannot be read") as caught:
            read_video(tmp_path)
        one_line(caught)

    def test_text_named_png_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_text("text")
        with pytest.raises(VideoReadError, match=r"1\.png: the image cannot be read \(not an image"):
            open_video(tmp_path)


class TestGif:
    @pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
    def test_content_decides(self, tmp_path: Path, name: str) -> None:
        write_video(tmp_path / "b.gif", make_clip(5, channels=1), 10)
        shutil.move(tmp_path / "b.gif", tmp_path / name)
        with open_video(tmp_path / name, channels=1) as reader:
            assert reader.info.kind == "gif"
            np.testing.assert_array_equal(np.stack(list(reader)), make_clip(5, channels=1))

    def test_mp4_named_gif(self, tmp_path: Path) -> None:
        write_video(tmp_path / "b.mp4", make_clip(5), 10)
        shutil.move(tmp_path / "b.mp4", tmp_path / "a.gif")
        with open_video(tmp_path / "a.gif") as reader:
            assert (reader.info.kind, len(list(reader))) == ("video", 5)

    def test_one_frame(self, tmp_path: Path) -> None:
        Image.new("P", (6, 4), 0).save(tmp_path / "a.gif")
        assert read_video(tmp_path / "a.gif")[0].shape == (1, 4, 6, 3)

    @pytest.mark.parametrize("ending", [".gif", ".webp"])
    def test_long_pause_does_not_spoil_the_rate(self, tmp_path: Path, ending: str) -> None:
        images = [Image.fromarray(frame) for frame in levels(4)]
        images[0].save(
            tmp_path / f"a{ending}", save_all=True, append_images=images[1:], duration=[100, 100, 100, 400], lossless=True
        )
        frames, fps = read_video(tmp_path / f"a{ending}")
        assert fps == pytest.approx(10)
        assert shown(frames) == [0, 1, 2, 3, 3, 3, 3]

    def test_transparency_and_disposal(self, tmp_path: Path) -> None:
        images = []
        for left in (0, 4):
            image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
            image.paste((250, 10, 10, 255), (left, 0, left + 4, 8))
            images.append(image)
        images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100, disposal=2)
        frames, _ = read_video(tmp_path / "a.gif")
        assert frames[0, :, :4, 0].min() > 240
        assert not frames[0, :, 4:].any()
        assert not frames[1, :, :4].any()

    def test_truncated(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        write_video(tmp_path / "a.gif", rng.integers(0, 256, (4, 32, 32, 1), dtype=np.uint8), 10)
        data = (tmp_path / "a.gif").read_bytes()
        (tmp_path / "a.gif").write_bytes(data[: len(data) * 3 // 5])
        with pytest.raises(VideoReadError) as caught:
            read_video(tmp_path / "a.gif")
        one_line(caught)


class TestBadFiles:
    def check(self, path: Path, match: str) -> None:
        with pytest.raises(VideoReadError, match=match) as caught:
            read_video(path)
        assert str(path) in one_line(caught)

    def test_missing(self, tmp_path: Path) -> None:
        self.check(tmp_path / "a.mp4", "no such file")

    def test_zero_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").touch()
        self.check(tmp_path / "a.mp4", "empty")

    @pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.txt", "a.png"])
    def test_text(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("this is no video\n" * 50)
        self.check(tmp_path / name, "is not a video|holds no video|no frame could be read")

    def test_random_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.avi").write_bytes(np.random.default_rng(0).bytes(20_000))
        self.check(tmp_path / "a.avi", "is not a video|holds no video|holds sound only")

    def test_moov_missing(self, tmp_path: Path) -> None:
        encode_at(tmp_path / "a.mp4", make_clip(20), [k * 40 for k in range(20)])
        data = (tmp_path / "a.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(data[: data.index(b"moov") - 4])
        self.check(tmp_path / "a.mp4", "moov")

    @pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
    def test_cut_off_in_the_middle_says_how_far(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"a{ending}"
        clip = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
        if ending == ".mp4":
            write_video(path, clip, 25)
        else:
            encode_at(path, clip, list(range(60)), tick=Fraction(1, 25))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        self.check(path, r"cut off: [1-5]\d frames could be read")
        assert len(read_video(path, max_frames=10)[0]) == 10

    def test_cut_off_between_two_frames(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        write_video(path, make_clip(60), 25)
        with av.open(str(path)) as container:
            cut = [packet.pos for packet in container.demux(video=0) if packet.pos][30]
        path.write_bytes(path.read_bytes()[:cut])
        self.check(path, "cut off: (29|30|2[0-9]) frames")

    def test_damaged_data(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        write_video(tmp_path / "a.mp4", rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), 25)
        data = bytearray((tmp_path / "a.mp4").read_bytes())
        data[len(data) // 2 : len(data) // 2 + 3000] = rng.bytes(3000)
        (tmp_path / "a.mp4").write_bytes(data)
        self.check(tmp_path / "a.mp4", "damaged")

    def test_sound_only(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        self.check(tmp_path / "a.mp4", "sound only")

    def test_neither_file_nor_folder(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.mp4")
        self.check(tmp_path / "a.mp4", "neither")

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_no_permission(self, kind: str) -> None:
        with unprivileged() as folder:
            path = folder / "a.png"
            if kind == "file":
                path.touch(mode=0)
            else:
                path.mkdir(mode=0)
            try:
                self.check(path, "Permission denied")
            finally:
                path.chmod(0o700)

    def test_unknown_codec(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", make_clip(5), 10)
        data = (tmp_path / "a.mp4").read_bytes()
        assert data.count(b"avc1") > 1, "the codec's name stands in the header too"
        (tmp_path / "a.mp4").write_bytes(data.replace(b"avc1", b"xyz1").replace(b"avcC", b"xyzC"))
        self.check(tmp_path / "a.mp4", "FFmpeg cannot decode: convert the file")

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own about the same damage
    @pytest.mark.parametrize("name", ["a.tiff", "a.gif", "a.png", "a.webp", "a.bmp"])
    def test_an_image_cut_anywhere(self, tmp_path: Path, name: str) -> None:
        Image.fromarray(make_clip(1)[0]).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        for end in range(4, len(data) - 8, max(1, len(data) // 60)):
            (tmp_path / name).write_bytes(data[:end])
            with contextlib.suppress(VideoReadError):
                read_video(tmp_path / name)

    def test_the_picture_changes_its_size(self, tmp_path: Path) -> None:
        images = [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))]
        images[0].save(tmp_path / "a.tiff", save_all=True, append_images=images[1:])
        self.check(tmp_path / "a.tiff", "changes from 8x8 to 9x8 after 1 frames")
        assert read_video(tmp_path / "a.tiff", size=4)[0].shape == (2, 4, 4, 3)

    def test_broken_timestamps_are_bridged_and_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        encode_at(tmp_path / "a.mkv", levels(6), [0, 40, 80, 10_000_000, 10_000_040, 10_000_080])
        with caplog.at_level(logging.WARNING, logger="divid"):
            frames, _ = read_video(tmp_path / "a.mkv", fps=25)
        assert shown(frames) == [0, 1, 2, 3, 4, 5]
        assert "timestamps jump after 3 frames" in caplog.text
