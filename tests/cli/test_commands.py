"""Every command that uses a model, run in this process on a tiny one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from divid.cli.main import main
from divid.codes_table import read_codes
from divid.video import read_video


@pytest.fixture
def base(model_folder):
    return ["--model", str(model_folder), "--device", "cpu"]


def test_swap_keeps_the_motions_length_and_rate(clips, base, tmp_path, capsys):
    out = tmp_path / "c.mp4"
    words = ["swap", "--appearance", str(clips / "a.mp4"), "--motion", str(clips / "b.mp4"), "--out", str(out), "--steps", "3"]
    assert main([*words, *base]) == 0
    frames, fps = read_video(out)
    assert frames.shape == (12, 16, 16, 3)
    assert fps == pytest.approx(12.0)
    assert str(out) in capsys.readouterr().out


def test_swap_compares_side_by_side_and_enlarges(clips, base, tmp_path):
    out = tmp_path / "c.gif"
    words = ["swap", "--appearance", str(clips / "a.mp4"), "--motion", str(clips / "b.mp4"), "--out", str(out)]
    assert main([*words, "--compare", "--scale", "2", *base]) == 0
    assert read_video(out)[0].shape == (12, 32, 96, 3)


def test_swap_takes_an_image_as_appearance(clips, base, tmp_path):
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "c.png"
    words = ["swap", "--appearance", str(tmp_path / "a.png"), "--motion", str(clips / "b.mp4"), "--out", str(out)]
    assert main([*words, *base]) == 0
    with Image.open(out) as sheet:
        assert sheet.height > 3 * 96


def test_guidance_solver_and_fit_are_heard(clips, base, tmp_path):
    frames = []
    for name, extra in (("plain", []), ("guided", ["--static-guidance", "3"]), ("solver", ["--solver", "ddim"])):
        out = tmp_path / f"{name}.mp4"
        words = ["reconstruct", "--input", str(clips / "a.mp4"), "--out", str(out), "--fit", "pad", "--seed", "4", *extra]
        assert main([*words, *base]) == 0
        frames.append(read_video(out)[0])
    assert not np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


@pytest.mark.parametrize("to", ["--to-appearance", "--to-motion"])
def test_interpolate(to, clips, base, tmp_path):
    words = ["interpolate", "--appearance", str(clips / "a.mp4"), "--motion", str(clips / "b.mp4"), to, str(clips / "a.mp4")]
    assert main([*words, "--num-steps", "3", "--path", "slerp", "--out", str(tmp_path / "c.mp4"), *base]) == 0
    assert read_video(tmp_path / "c.mp4")[0].shape == (12, 16, 48, 3)


def test_interpolate_wants_one_second_video(clips, base, tmp_path, capsys):
    words = ["interpolate", "--appearance", str(clips / "a.mp4"), "--motion", str(clips / "b.mp4")]
    assert main([*words, "--out", str(tmp_path / "c.mp4"), *base]) == 2
    assert "exactly one" in capsys.readouterr().err


def test_encode_a_folder(clips, base, tmp_path, capsys):
    folder = tmp_path / "videos"
    shutil.copytree(clips, folder / "inner")
    images = folder / "images"
    images.mkdir()
    for k in range(3):
        Image.fromarray(np.full((20, 20, 3), 40 * k, np.uint8)).save(images / f"{k}.png")
    (folder / "broken.mp4").write_bytes(b"not a video")
    out = tmp_path / "codes.parquet"
    assert main(["encode", "--input", str(folder), "--out", str(out), *base]) == 0
    codes = read_codes(out)
    assert sorted(codes) == ["images", "inner/a.mp4", "inner/b.mp4"]
    assert codes["inner/b.mp4"].dynamic.shape == (1, 12, 8)
    assert codes["images"].static.shape == (1, 16)
    assert "codes of 3 videos, 1 skipped" in capsys.readouterr().out
    before = out.read_bytes()
    assert main(["encode", "--input", str(folder), "--out", str(out), "--strict", *base]) == 2
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["codes.parquet", "videos"]


def test_encode_leaves_out_pictures_beside_videos(clips, base, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(clips, folder)
    Image.new("RGB", (20, 20)).save(folder / "poster.png")
    assert main(["encode", "--input", str(folder), "--out", str(tmp_path / "codes.parquet"), *base]) == 0
    assert sorted(read_codes(tmp_path / "codes.parquet")) == ["a.mp4", "b.mp4"]


def test_encode_one_video_gives_the_pipelines_codes(clips, base, model_folder, tmp_path):
    from divid.pipeline import DividPipeline

    out = tmp_path / "codes.parquet"
    assert main(["encode", "--input", str(clips / "a.mp4"), "--out", str(out), *base]) == 0
    (codes,) = read_codes(out).values()
    expected = DividPipeline.from_pretrained(model_folder).encode(clips / "a.mp4").codes
    torch.testing.assert_close(codes.dynamic, expected.dynamic)
    torch.testing.assert_close(codes.static, expected.static)


@pytest.mark.parametrize("arguments", [[], ["model"], ["video"]])
def test_info(arguments, clips, model_folder, capsys):
    paths = {"model": model_folder, "video": clips / "b.mp4"}
    assert main(["info", *(str(paths[name]) for name in arguments)]) == 0
    text = capsys.readouterr().out
    for word in {"": ("torch", "recipes", "extra faces"), "model": ("DividModel", "16x16, RGB"), "video": ("24x24", "12")}[
        arguments[0] if arguments else ""
    ]:
        assert word in text


class TestBadInput:
    """Each is one line with what to do, exit code 2, and leaves existing files as they were."""

    def swap(self, base, clips, out, *, appearance=None, motion=None, extra=()):
        appearance, motion = appearance or clips / "a.mp4", motion or clips / "b.mp4"
        return main(["swap", "--appearance", str(appearance), "--motion", str(motion), "--out", str(out), *base, *extra])

    @pytest.fixture(autouse=True)
    def one_line(self, capsys):
        yield
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("divid: ")]
        assert len(error) == 1
        assert error[0].startswith("divid: error: ")

    @pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing"])
    @pytest.mark.parametrize("place", ["appearance", "motion"])
    def test_unreadable_video(self, kind, place, base, clips, tmp_path):
        bad, out = tmp_path / "bad.mp4", tmp_path / "c.mp4"
        out.write_bytes(b"keep me")
        whole = (clips / "b.mp4").read_bytes()
        content = {"truncated": whole[: len(whole) // 4], "empty": b"", "text": b"hello\n" * 50}.get(kind)
        if content is not None:
            bad.write_bytes(content)
        assert self.swap(base, clips, out, **{place: bad}) == 2
        assert out.read_bytes() == b"keep me"
        assert {p.name for p in tmp_path.iterdir()} <= {"bad.mp4", "c.mp4"}

    def test_one_frame_has_no_motion(self, base, clips, tmp_path):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "one.gif")
        assert self.swap(base, clips, tmp_path / "c.mp4", motion=tmp_path / "one.gif") == 2
        assert not (tmp_path / "c.mp4").exists()

    def test_output_in_a_missing_folder(self, base, clips, tmp_path):
        assert self.swap(base, clips, tmp_path / "missing" / "c.mp4") == 2

    def test_output_equal_to_the_input(self, base, clips, tmp_path):
        copy = tmp_path / "b.mp4"
        shutil.copy(clips / "b.mp4", copy)
        before = copy.read_bytes()
        assert self.swap(base, clips, copy, motion=copy) == 2
        assert copy.read_bytes() == before

    def test_unknown_ending(self, base, clips, tmp_path):
        assert self.swap(base, clips, tmp_path / "c.doc") == 2

    def test_model_that_is_not_there(self, base, clips, tmp_path):
        assert self.swap([], clips, tmp_path / "c.mp4", extra=["--model", str(tmp_path / "nothing")]) == 2

    @pytest.mark.parametrize("extra", [["--steps", "0"], ["--scale", "0"], ["--seed", "-1"], ["--static-guidance", "-2"]])
    def test_value_out_of_range(self, extra, base, clips, tmp_path):
        assert self.swap(base, clips, tmp_path / "c.mp4", extra=extra) == 2

    def test_gpu_where_there_is_none(self, model_folder, clips, tmp_path):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        assert self.swap(["--model", str(model_folder)], clips, tmp_path / "c.mp4", extra=["--device", "cuda"]) == 2

    def test_empty_folder_to_encode(self, base, tmp_path):
        (tmp_path / "empty").mkdir()
        assert main(["encode", "--input", str(tmp_path / "empty"), "--out", str(tmp_path / "c.parquet"), *base]) == 2

    def test_info_on_nothing(self, tmp_path):
        assert main(["info", str(tmp_path / "nothing")]) == 2

    def test_full_disk_while_writing(self, base, clips, tmp_path, monkeypatch):
        import errno

        from divid.video import VideoWriter

        def fail(self, frames):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(VideoWriter, "_encode", fail, raising=True)
        out = tmp_path / "c.mp4"
        out.write_bytes(b"keep me")
        assert self.swap(base, clips, out) == 2
        assert out.read_bytes() == b"keep me"
        assert [p.name for p in tmp_path.iterdir()] == ["c.mp4"]
