from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from divid.codes_table import read_codes, write_codes
from divid.errors import InputError
from divid.rendering import Recording
from divid.types import Codes


def recordings(folder: Path) -> list[Recording]:
    return [Recording(folder / f"{n}.mp4", Codes(torch.randn(1, 4), torch.randn(1, n, 3)), 25.0, n) for n in (2, 5)]


def test_round_trip(tmp_path):
    made = recordings(tmp_path / "videos")
    assert write_codes(made, tmp_path / "c.parquet", root=tmp_path / "videos", model="tiny") == 2
    read = read_codes(tmp_path / "c.parquet")
    assert list(read) == ["2.mp4", "5.mp4"]
    for recording, codes in zip(made, read.values(), strict=True):
        assert torch.equal(codes.static, recording.codes.static)
        assert torch.equal(codes.dynamic, recording.codes.dynamic)
    assert pyarrow.parquet.read_schema(tmp_path / "c.parquet").metadata[b"divid.model"] == b"tiny"


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path):
    out = tmp_path / "c.parquet"
    write_codes(recordings(tmp_path), out)
    before = out.read_bytes()

    def fail():
        yield recordings(tmp_path)[0]
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        write_codes(fail(), out)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_parquet_of_another_project(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(InputError, match="holds no codes of divid"):
        read_codes(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot read"):
        read_codes(path)
