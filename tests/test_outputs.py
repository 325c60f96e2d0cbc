"""Outputs are checked before the work starts and are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_files import unprivileged
from divid.errors import OutputError
from divid.outputs import atomic_path
from divid.video import check_output, write_image


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    with unprivileged() as folder:
        yield folder


class TestCheckOutput:
    def test_good(self, tmp_path: Path) -> None:
        assert check_output(str(tmp_path / "a.MP4")) == tmp_path / "a.MP4"
        assert list(tmp_path.iterdir()) == []

    def test_existing_file_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"old")
        check_output(tmp_path / "a.mp4", inputs=[tmp_path / "b.mp4"])
        assert (tmp_path / "a.mp4").read_bytes() == b"old"

    def test_name_as_long_as_the_system_allows(self, tmp_path: Path) -> None:
        check_output(tmp_path / ("a" * 251 + ".mp4"))

    def fails(self, path: Path, match: str, **keywords: object) -> None:
        with pytest.raises(OutputError, match=match) as caught:
            check_output(path, **keywords)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    def test_missing_folder(self, tmp_path: Path) -> None:
        self.fails(tmp_path / "absent" / "a.mp4", "does not exist: create it")

    def test_folder_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "b").touch()
        self.fails(tmp_path / "b" / "a.mp4", "is not a folder|Not a directory")

    def test_output_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").mkdir()
        self.fails(tmp_path / "a.mp4", "is a folder")

    @pytest.mark.parametrize("name", ["a.avi", "a"])
    def test_unknown_ending(self, tmp_path: Path, name: str) -> None:
        self.fails(tmp_path / name, r"use one of \.mp4, \.gif, \.png")

    def test_name_too_long(self, tmp_path: Path) -> None:
        self.fails(tmp_path / ("a" * 300 + ".mp4"), "too long")

    @pytest.mark.parametrize("link", [None, "symbolic", "hard"])
    def test_equal_to_an_input(self, tmp_path: Path, link: str | None) -> None:
        source = tmp_path / "in.mp4"
        source.touch()
        path = source if link is None else tmp_path / "out.mp4"
        if link == "symbolic":
            path.symlink_to(source)
        elif link == "hard":
            os.link(source, path)
        self.fails(path, "is the input", inputs=[tmp_path / "other.mp4", source])

    def test_equal_to_an_input_by_another_way(self, tmp_path: Path) -> None:
        (tmp_path / "in.mp4").touch()
        (tmp_path / "sub").mkdir()
        self.fails(tmp_path / "sub" / ".." / "in.mp4", "is the input", inputs=[tmp_path / "in.mp4"])

    def test_among_the_frames_of_an_input(self, tmp_path: Path) -> None:
        self.fails(tmp_path / "out.png", "would become a frame", inputs=[tmp_path])
        assert check_output(tmp_path / "out.mp4", inputs=[tmp_path])

    def test_folder_not_writable(self, unprivileged_folder: Path) -> None:
        unprivileged_folder.chmod(0o500)
        self.fails(unprivileged_folder / "a.mp4", "not writable")

    def test_file_write_protected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.mp4").touch()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        self.fails(tmp_path / "a.mp4", "write-protected")


class TestAtomicPath:
    def test_appears_whole(self, tmp_path: Path) -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
            assert not (tmp_path / "a.txt").exists()
            assert temporary.suffix == ".txt"
        assert (tmp_path / "a.txt").read_text() == "new"
        assert len(list(tmp_path.iterdir())) == 1

    def test_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("old")
        with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:  # noqa: PT012 - one statement
            temporary.write_text("half")
            raise RuntimeError
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


class TestWriteImage:
    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
    def test_lossless(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        write_image(tmp_path / "a.png", pixels)
        with Image.open(tmp_path / "a.png") as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)

    def test_other_endings_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"use one of \.png"):
            write_image(tmp_path / "a.jpg", np.zeros((4, 4), dtype=np.uint8))
