from __future__ import annotations

import pytest

from divid.benchmark.cells import BenchmarkFolder, parse_shard, pick_cells, settle, share_of
from divid.benchmark.locks import try_lock
from divid.benchmark.plan import cells_of, default_settings, plan_from_dict
from divid.errors import ConfigError, InputError
from divid.json_files import write_json


@pytest.fixture
def cells():
    methods = {"divid": {}, "own-noise": {"model_of": "divid"}, "dbse": {}}
    data = {"one": {"path": "x", "recipe": "puppets-cpu"}}
    return cells_of(plan_from_dict({"seeds": [0, 1, 2], "data": data, "methods": methods}))


@pytest.mark.parametrize("count", [1, 2, 4, 7, 30])
def test_shares_cover_all_cells_once_and_keep_models_together(cells, count):
    shares = [share_of(cells, f"{place}/{count}", {}) for place in range(1, count + 1)]
    assert sorted(cell.name for share in shares for cell in share) == sorted(cell.name for cell in cells)
    trainers = [{cell.trainer for cell in share} for share in shares]
    assert sum(map(len, trainers)) == len(set.union(*trainers))


def test_a_slurm_array_deals_out_shares(cells):
    def names(**environment):
        return [cell.name for cell in share_of(cells, None, {f"SLURM_ARRAY_TASK_{k}": v for k, v in environment.items()})]

    by_hand = [[cell.name for cell in share_of(cells, f"{place}/3", {})] for place in (1, 2, 3)]
    assert [names(ID=str(i), COUNT="3") for i in (0, 1, 2)] == by_hand
    assert [names(ID=str(i), COUNT="3", MIN="1") for i in (1, 2, 3)] == by_hand
    assert [names(ID=str(i), COUNT="3", MIN="4", STEP="2") for i in (4, 6, 8)] == by_hand
    assert sorted(map(tuple, (names(ID=str(i), COUNT="3") for i in (1, 2, 3)))) == sorted(map(tuple, by_hand))
    assert names() == [cell.name for cell in cells]
    with pytest.raises(ConfigError, match=r"SLURM_ARRAY_TASK_ID is 'x', must be a whole number: unset it, or .* --shard"):
        names(ID="x", COUNT="3")


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (None, 9),
        (["one"], 9),
        (["one/dbse"], 3),
        (["*/*/seed-1"], 3),
        (["one/d*/seed-0", "one/dbse"], 4),
        (["one/own-noise/seed-2/"], 1),
    ],
)
def test_cells_are_picked_by_name(cells, patterns, count):
    picked = pick_cells(cells, patterns)
    assert len(picked) == count
    assert picked == [cell for cell in cells if cell in picked]


def test_a_pattern_without_a_cell_is_an_error(cells):
    with pytest.raises(ConfigError, match=r"--cells 'one/spyl' names none of the cells: one/divid/seed-0, "):
        pick_cells(cells, ["one/divid", "one/spyl"])


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "/", "-1/2", "1/0"])
def test_bad_shares_are_errors(text):
    with pytest.raises(ConfigError, match="must be i/n"):
        parse_shard(text)


def test_settings_that_differ_are_named(tmp_path):
    path = tmp_path / "cell" / "settings.json"
    settle(path, {"a": 1, "b": (1, 2), "c": None}, "cell x")
    settle(path, {"a": 1, "b": [1, 2], "c": None}, "cell x")
    with pytest.raises(ConfigError, match=r"cell x was begun with other settings: a \(1 then, 2 now\), d \(None then, 3 now\)"):
        settle(path, {"a": 2, "b": [1, 2], "c": None, "d": 3}, "cell x")


def test_a_key_that_was_not_there_had_its_default(tmp_path):
    path = tmp_path / "cell" / "settings.json"
    settle(path, {"a": 1}, "cell x")
    settle(path, {"a": 1, "new": (0, 1)}, "cell x", {"a": 7, "new": (0, 1)})
    with pytest.raises(ConfigError, match=r"cell x was begun with other settings: new \(\[0, 1\] then, 5 now\)"):
        settle(path, {"a": 1, "new": 5}, "cell x", {"a": 7, "new": (0, 1)})
    with pytest.raises(ConfigError, match=r"a \(1 then, 7 now\)"):
        settle(path, {"a": 7}, "cell x", {"a": 7})


def test_defaults_are_the_recipes_and_the_evaluations(cells):
    settings = default_settings(cells[0])
    assert settings["model.tokens.static_flip"] == 0.0
    assert settings["evaluation.sampled"] is False
    assert default_settings(cells[-1])["model.sequence_starts_at"] == 1


def test_states(tmp_path):
    cell = BenchmarkFolder(tmp_path).cell("d/m/seed-0")
    assert cell.state() == ("open", "")
    cell.run.mkdir(parents=True)
    assert cell.state() == ("open", "begun")
    write_json(cell.failure, {"error": "broken"})
    assert cell.state() == ("failed", "broken")
    with try_lock(cell.lock):
        state, remark = cell.state()
        assert state == "held"
        assert "process" in remark
    write_json(cell.result, {"format": "other"})
    assert cell.state() == ("done", "")
    with pytest.raises(InputError, match="no result of this divid"):
        cell.read_result()
    cell.result.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        cell.read_result()
