"""Bad input at the command line: exit code 2, one line that says what to do, and every file as it was.

Beside it, odd input that is not bad, which must work.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clip_files import make_clip, unprivileged
from divid.cli.main import main
from divid.codes_table import read_codes
from divid.data.clips import ClipDataset
from divid.video import read_video, write_video
from made_data import write_images


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file of an earlier call, where the result is to go."""
    path = tmp_path / "results" / "c.mp4"
    path.parent.mkdir()
    path.write_bytes(b"keep me")
    return path


def video_command(name: str, video: Path, good: Path, out: Path) -> list[object]:
    """Words of a command that takes a video's motion."""
    return {
        "swap": ["swap", "--appearance", good, "--motion", video, "--out", out],
        "reconstruct": ["reconstruct", "--input", video, "--out", out],
        "interpolate": ["interpolate", "--appearance", good, "--motion", good, "--to-motion", video, "--out", out],
        "encode": ["encode", "--input", video, "--out", out.with_suffix(".parquet")],
    }[name]


def make_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_bad_video(kind: str, folder: Path, good: Path) -> Path:
    whole = good.read_bytes()
    path = folder / ("bad.gif" if "gif" in kind else "bad.mp4")
    if kind == "audio only":
        make_sound(path)
    elif kind == "one frame":
        write_video(path, make_clip(1), 10)
    elif kind == "gif with one frame":
        Image.new("P", (16, 16), 3).save(path)
    else:
        path.write_bytes(
            {
                "truncated": whole[: len(whole) * 3 // 4],
                "without its index": whole[: whole.index(b"moov") - 4],
                "zero bytes": b"",
                "text named mp4": b"no video\n" * 50,
            }[kind]
        )
    return path


BAD_VIDEOS = {
    "truncated": "cut off|copy it again|copy or download",
    "without its index": "copy it again|check the file",
    "zero bytes": "is empty .*copy or download it again",
    "audio only": "holds sound only: give a file with a picture",
    "text named mp4": "check the file|give a file with a picture|copy it again",
    "one frame": "only one frame.*give a video with 2 frames or more",
    "gif with one frame": "only one frame.*give a video with 2 frames or more",
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
@pytest.mark.parametrize("command", ["swap", "reconstruct", "interpolate", "encode"])
def test_bad_videos(command, kind, clips, model_folder, out, tmp_path, refused):
    bad = make_bad_video(kind, tmp_path, clips / "b.mp4")
    out.with_suffix(".parquet").write_bytes(b"keep me too")
    words = video_command(command, bad, clips / "a.mp4", out)
    refused([*words, "--model", model_folder, "--device", "cpu"], BAD_VIDEOS[kind])


@pytest.mark.parametrize("command", ["swap", "reconstruct", "interpolate"])
def test_missing_videos_are_named_before_a_model_is_loaded(command, clips, out, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("divid.cli.common.load_pipeline", lambda args: pytest.fail("the model was loaded first"))
    words = video_command(command, tmp_path / "absent.mp4", clips / "a.mp4", out)
    refused(words, "absent.mp4: there is no such file or folder: check the path")


def test_prepare_skips_and_reports_bad_videos(clips, tmp_path, refused, capfd):
    kinds = [kind for kind in BAD_VIDEOS if "one frame" not in kind]
    (tmp_path / "clips").mkdir()
    for kind in kinds:
        make_bad_video(kind, tmp_path, clips / "b.mp4").rename(tmp_path / "clips" / f"{kind}.mp4")
    shutil.copy(clips / "a.mp4", tmp_path / "clips")
    words = ["prepare", "folder", "--source", tmp_path / "clips", "--out", tmp_path / "set", "--size", "16", "--processes", "1"]
    refused([*words, "--strict"], "--strict; without it the recording is skipped", is_logged=True)
    assert main([str(word) for word in words]) == 0
    skipped = [line for line in capfd.readouterr().out.splitlines() if line.startswith("  skipped")]
    assert [line.split(".mp4: ")[0].removeprefix("  skipped  ") for line in skipped] == sorted(kinds)
    assert ClipDataset.open(tmp_path / "set").info.num_clips == 1


def make_odd_video(kind: str, folder: Path, good: Path) -> Path:
    if kind == "wrong extension":
        return Path(shutil.copy(good, folder / "odd.gif"))
    if kind == "grey and alpha":
        (folder / "odd").mkdir()
        for number in range(4):
            Image.new("LA", (20, 16), (200, 60 * number)).save(folder / "odd" / f"{number}.png")
        return folder / "odd"
    if kind == "ten minutes":
        write_video(folder / "odd.mp4", make_clip(60, 16, 16).repeat(20, axis=0), 2)
        return folder / "odd.mp4"
    with av.open(str(folder / "odd.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.pix_fmt, stream.height, stream.width = "yuvj420p", 4320, 7680
        picture = av.VideoFrame.from_ndarray(np.full((4320, 7680, 3), 90, np.uint8), format="rgb24")
        for _ in range(2):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return folder / "odd.avi"


@pytest.mark.parametrize(
    ("kind", "num_frames"), [("wrong extension", 12), ("grey and alpha", 4), ("ten minutes", 1200), ("8K", 2)]
)
def test_odd_videos_work(kind, num_frames, clips, model_folder, tmp_path, capfd):
    odd = make_odd_video(kind, tmp_path, clips / "b.mp4")
    base = ["--model", str(model_folder), "--device", "cpu"]
    assert main(["encode", "--input", str(odd), "--out", str(tmp_path / "c.parquet"), *base]) == 0
    (codes,) = read_codes(tmp_path / "c.parquet").values()
    assert codes.num_frames == num_frames
    sheet = tmp_path / "sheets" / "c.png"
    sheet.parent.mkdir()
    assert main(["reconstruct", "--input", str(odd), "--out", str(sheet), "--steps", "1", *base]) == 0
    assert sheet.stat().st_size > 1000
    source = tmp_path / "recordings"
    source.mkdir()
    odd.rename(source / odd.name)
    words = ["prepare", "folder", "--source", str(source), "--out", str(tmp_path / "set"), "--size", "16", "--processes", "1"]
    assert main(words) == 0
    assert ClipDataset.open(tmp_path / "set").info.num_frames == num_frames
    assert "divid: " not in capfd.readouterr().err


def test_a_gif_with_one_frame_is_an_appearance(clips, model_folder, tmp_path):
    Image.new("P", (16, 16), 3).save(tmp_path / "one.gif")
    words = ["swap", "--appearance", tmp_path / "one.gif", "--motion", clips / "a.mp4", "--out", tmp_path / "c.gif"]
    assert main([str(word) for word in [*words, "--steps", "1", "--model", model_folder, "--device", "cpu"]]) == 0
    assert len(read_video(tmp_path / "c.gif")[0]) == 8


@pytest.mark.parametrize("command", ["swap", "reconstruct", "interpolate", "encode"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("missing folder", "does not exist: create it"),
        ("the input", "is the input .* give the output another name"),
        ("a folder", "is a folder: give the name of a file"),
        ("ending", "use one of"),
    ],
)
def test_bad_outputs_of_videos(command, wrong, message, clips, tmp_path, refused):
    ending = ".parquet" if command == "encode" else ".mp4"
    video = Path(shutil.copy(clips / "a.mp4", tmp_path / f"a{ending}"))
    place = {"missing folder": f"missing/c{ending}", "the input": video.name, "a folder": f"folder{ending}", "ending": "c.doc"}
    (tmp_path / f"folder{ending}").mkdir()
    words = video_command(command, video, clips / "b.mp4", tmp_path / place[wrong])
    words[-1] = tmp_path / place[wrong]
    refused([*words, "--model", tmp_path / "never loaded"], message)


@pytest.mark.parametrize("name", ["c.mp4", "c.gif", "c.png", "c.parquet"])
@pytest.mark.usefixtures("full_disk")
def test_full_disk(name, clips, model_folder, tmp_path, refused):
    out = tmp_path / name
    out.write_bytes(b"keep me")
    words = video_command("encode" if name == "c.parquet" else "swap", clips / "b.mp4", clips / "a.mp4", out)
    refused([*words, "--model", model_folder, "--device", "cpu"], "No space left on device.*free some space")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepare folder --source locked --out set", "locked: cannot be read (Permission denied): check its permissions"),
        ("encode --input locked --out c.parquet", "locked: cannot be read (Permission denied): check its permissions"),
        ("info locked", "Permission denied: check its permissions"),
        ("swap --appearance a.mp4 --motion b.mp4 --out locked/c.mp4", "(Permission denied): choose another place"),
        ("train --config recipe.yaml --data set --out locked/run", "locked/run: Permission denied: check its permissions"),
    ],
)
def test_unreadable_folders(words, message, tmp_path, monkeypatch, capfd):
    load_modules(tmp_path)
    before = Path.cwd()
    with unprivileged() as folder:
        monkeypatch.chdir(folder)
        Path("locked").mkdir(mode=0)
        Path("recipe.yaml").write_text("seed: 0\n")
        capfd.readouterr()
        try:
            assert main(words.split()) == 2
        finally:
            Path("locked").chmod(0o700)
        assert sorted(str(path) for path in Path().rglob("*")) == ["locked", "recipe.yaml"]
        monkeypatch.chdir(before)
    error = capfd.readouterr().err
    assert error.startswith("divid: error: ")
    assert error.endswith(f"{message}\n")
    assert error.count("\n") == 1


def load_modules(folder: Path) -> None:
    """Load what commands load, which a process without rights may not be able to."""
    names = "cli.prepare cli.encode cli.info cli.swap cli.train codes_table data.prepare pipeline training.fit"
    for name in names.split():
        importlib.import_module(f"divid.{name}")
    for words in (["prepare", "folder", "--source", "nowhere", "--out", "set"], ["info", "nowhere"]):
        assert main([*words[:-1], str(folder / words[-1])]) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--out", "missing/set"], "does not exist: create it"),
        (["--out", "clips"], "lies in the source folder .* give an --out outside of it"),
        (["--out", "letter.txt"], "is a file: --out is the folder"),
        (["--out", "mine"], "holds files that are no data set of divid's: give --out a new folder"),
        (["--source", "nowhere"], "does not exist: give the folder"),
        (["--source", "hollow"], "holds no video and no folder of images: check --source"),
        (["--source", "damaged"], "none of the 1 recordings could be read"),
        (["--labels-csv", "absent.csv"], "line 2: names 'nobody.mp4', which is not in .* correct it or take the line out"),
        (["--labels-csv", "outside.csv"], "letter.txt, which is not under .* name files relative to that folder"),
        (["--labels-csv", "nowhere.csv"], "No such file.* give a CSV file"),
    ],
)
def test_bad_calls_of_prepare(wrong, message, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "clips" / "anna", 3)
    for name in ("hollow", "damaged", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "absent.csv").write_text("file,static.person\nnobody.mp4,anna\n")
    (tmp_path / "outside.csv").write_text(f"file,static.person\n{tmp_path / 'letter.txt'},anna\n")
    words = ["prepare", "folder", "--source", "clips", "--out", "set", "--size", "16", "--processes", "1", *wrong]
    refused(words, message, is_logged="damaged" in wrong)
