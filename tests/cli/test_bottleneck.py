"""`divid bottleneck` from end to end, and what it refuses."""

import csv
import json

import pytest
from PIL import Image

from divid.cli.main import main
from made_data import make_set, write_depth


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for place, name in enumerate(("a1_s1", "a1_s2", "a2_s1", "a2_s2")):
        for trial in (1, 2):
            write_depth(folder, f"{name}_t{trial}", num_frames=5 + 2 * place)
    out = tmp_path_factory.mktemp("sets") / "set"
    make_set(folder, out, channels=3)
    return out


def test_numbers_plot_and_table_are_written_and_repeat(model_folder, prepared, tmp_path, capfd):
    words = ["bottleneck", "--model", str(model_folder), "--data", str(prepared), "--device", "cpu", "--clips", "3", "--points=4"]
    for name in ("one", "two"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    tables = [(tmp_path / name / "bottleneck.csv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert len(rows) == 4
    assert all(float(row["dynamic_nats"]) != 0 for row in rows)
    result = json.loads((tmp_path / "one" / "bottleneck.json").read_text())
    assert len(result["clips"]) == result["num_clips"] == 3
    assert result["tokens"]["dynamic"]["nats"] == pytest.approx(float(rows[0]["dynamic_cumulative_nats"]))
    with Image.open(tmp_path / "one" / "bottleneck.png") as picture:
        assert picture.width > 1000
    output = capfd.readouterr().out
    assert f"{result['tokens']['dynamic']['nats']:.4g}" in output
    assert "where SNR < 1" in output


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--clips", "1"], "--clips is 1, must be 2 or more"),
        (["--points", "0"], "--points is 0, must be 1 or more"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_calls(wrong, message, model_folder, prepared, tmp_path, refused):
    words = ["bottleneck", "--model", model_folder, "--data", prepared, "--out", tmp_path / "out", "--device", "cpu", *wrong]
    refused(words, message, is_logged=True)
