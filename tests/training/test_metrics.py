from __future__ import annotations

import pytest

from divid.errors import OutputError
from divid.training.metrics import MetricsFile, last_values, plot_loss, read_metrics, write_text

THIRD = 1 / 3


def test_rows_come_back_at_full_precision(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"train/total": THIRD}, 1)
    file.log_metrics({"validation/psnr": 20.5}, 1)
    file.log_metrics({"train/total": 1e-30}, 2)
    assert read_metrics(file.path) == [
        {"step": 1, "train/total": THIRD},
        {"step": 1, "validation/psnr": 20.5},
        {"step": 2, "train/total": 1e-30},
    ]
    assert last_values(file.path) == {"step": 2, "train/total": 1e-30, "validation/psnr": 20.5}


def test_going_on_drops_what_comes_after_the_checkpoint_and_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step in (1, 2, 3, 4):
        file.log_metrics({"a": float(step)}, step)
    with path.open("a") as end:
        end.write("5,1.2")
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]
    file = MetricsFile(path, last_step=2)
    file.log_metrics({"a": 3.0, "b": 1.0}, 3)
    assert [(row["step"], row["a"]) for row in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert read_metrics(path)[2]["b"] == 1.0


def test_a_new_run_begins_afresh(tmp_path):
    path = tmp_path / "metrics.csv"
    MetricsFile(path).log_metrics({"a": 1.0}, 1)
    MetricsFile(path)
    assert read_metrics(path) == []
    assert read_metrics(tmp_path / "none.csv") == []


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "old")

    def no_space(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_loss_is_drawn_even_of_an_empty_run(tmp_path):
    from PIL import Image

    file = MetricsFile(tmp_path / "metrics.csv")
    plot_loss(file.path, tmp_path / "empty.png")
    for step in range(1, 20):
        file.log_metrics({"train/total": 1 / step}, step)
    file.log_metrics({"validation/total": 0.1}, 19)
    plot_loss(file.path, tmp_path / "loss.png")
    pictures = [Image.open(tmp_path / name) for name in ("empty.png", "loss.png")]
    assert pictures[0].size == pictures[1].size
    assert pictures[0].tobytes() != pictures[1].tobytes()
