from __future__ import annotations

import pytest

from divid.cli.main import main
from made_data import write_images


@pytest.fixture
def command(tmp_path):
    write_images(tmp_path / "clips" / "anna" / "walk" / "1")
    write_images(tmp_path / "clips" / "ben" / "run" / "1")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"x")
    words = ["prepare", "folder", "--source", str(tmp_path / "clips"), "--out", str(tmp_path / "set"), "--size", "16"]
    return [*words, "--layout", "{subject}/{action}", "--processes", "1"]


def test_the_summary_says_what_was_made(command, tmp_path, capsys):
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'set'}: 2 clips of 2 recordings, 8 frames" in said
    assert "16x16 RGB" in said
    assert "splits   " in said
    assert "static   subject: 2 classes: anna 1, ben 1" in said
    assert "skipped  broken.mp4: " in said
    assert main(command) == 0
    assert "is complete already" in capsys.readouterr().out
    assert main([*command, "--channels", "1", "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--strict"], "broken.mp4"),
        (["--size", "3"], "image size is 3"),
        (["--sise", "3"], "did you mean '--size'"),
        (["--labels-csv", "nowhere.csv"], "give one of them"),
        (["--out", "missing/set"], "does not exist"),
        (["--processes", "0"], "number of processes is 0"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_with_2(command, change, message, capsys):
    assert main([*command, *change]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("divid: error: ")
    assert message in said


def test_unknown_sources_are_named(command, capsys):
    assert main([command[0], "utd-mhat", *command[2:]]) == 2
    assert "did you mean 'utd-mhad'?" in capsys.readouterr().err
