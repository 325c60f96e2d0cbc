from __future__ import annotations

import pytest
import yaml

from divid.benchmark.plan import cell_settings, cells_of, dump_plan, load_plan, plan_from_dict
from divid.errors import ConfigError
from divid.recipes import list_recipes, load_recipe


def values(**changes):
    return {
        "seeds": [0, 1],
        "data": {"one": {"path": "data/one", "recipe": "puppets-cpu"}},
        "methods": {"divid": {}, "dbse": {}},
        **changes,
    }


def test_cells_are_the_product_in_an_order_that_fills_a_table_first():
    plan = plan_from_dict(values(data={name: {"path": name, "recipe": "puppets-cpu"} for name in ("one", "two")}))
    names = [cell.name for cell in cells_of(plan)]
    assert names[:4] == ["one/divid/seed-0", "one/dbse/seed-0", "one/divid/seed-1", "one/dbse/seed-1"]
    assert len(names) == len(set(names)) == 8


def test_cells_have_their_method_seed_and_values_of_which_the_nearest_win():
    plan = plan_from_dict(
        values(
            set={"training.num_steps": 5, "training.batch_size": 4, "training.warmup_steps": 1},
            data={"one": {"path": "x", "recipe": "puppets-cpu", "set": {"training.num_steps": 6, "training.batch_size": 2}}},
            methods={"narrow": {"method": "divid", "set": {"training.num_steps": 7, "model.tokens.dynamic_dim": 8}}, "dbse": {}},
        )
    )
    narrow, dbse = cells_of(plan)[2:]
    assert (narrow.recipe.method, narrow.recipe.seed, dbse.recipe.method) == ("divid", 1, "dbse")
    assert narrow.recipe.model.tokens.dynamic_dim == 8
    assert (narrow.recipe.training.num_steps, narrow.recipe.training.batch_size, narrow.recipe.training.warmup_steps) == (7, 2, 1)
    assert dbse.recipe.training.num_steps == 6
    assert cell_settings(narrow, plan)["training.num_steps"] == 7


def test_a_method_may_have_values_on_one_data_set_that_win_over_all_others():
    data = {name: {"path": name, "recipe": "puppets-cpu", "set": {"training.num_steps": 5}} for name in ("one", "two")}
    longer = {"set": {"training.num_steps": 6}, "set_on": {"two": {"training.num_steps": 7}}}
    key = "sampling.num_inference_steps"
    sampled = {"model_of": "divid", "set": {key: 3}, "set_on": {"one": {key: 4}}}
    plan = plan_from_dict(values(seeds=[0], data=data, methods={"divid": longer, "few": sampled, "dbse": {}}))
    cells = {cell.name: cell.recipe for cell in cells_of(plan)}
    steps = {name: recipe.training.num_steps for name, recipe in cells.items()}
    assert [steps[f"{name}/divid/seed-0"] for name in data] == [6, 7]
    assert [steps[f"{name}/few/seed-0"] for name in data] == [6, 7]
    assert [steps[f"{name}/dbse/seed-0"] for name in data] == [5, 5]
    assert [cells[f"{name}/few/seed-0"].sampling.num_inference_steps for name in data] == [4, 3]


def test_a_cell_that_takes_anothers_model_differs_in_sampling_only():
    switch = {"model.diffusion.shared_sampling": False, "sampling.num_inference_steps": 3}
    methods = {"divid": {"set": {"model.tokens.dynamic_dim": 8}}, "own-noise": {"model_of": "divid", "set": switch}}
    full, own = cells_of(plan_from_dict(values(seeds=[4], methods=methods)))
    assert (full.trainer, own.trainer) == ("one/divid/seed-4", "one/divid/seed-4")
    assert own.recipe.model.tokens.dynamic_dim == 8
    assert (full.recipe.model.diffusion.shared_sampling, own.recipe.model.diffusion.shared_sampling) == (True, False)
    assert own.recipe.training == full.recipe.training


def test_a_data_set_may_have_a_judge_of_its_own():
    data = {"one": {"path": "a", "recipe": "puppets-cpu"}, "two": {"path": "b", "recipe": "puppets-cpu", "judge": {"seed": 5}}}
    plan = plan_from_dict(values(data=data, judge={"num_steps": 70}))
    assert [(plan.judge_of(name).num_steps, plan.judge_of(name).seed) for name in data] == [(70, 0), (70, 5)]
    assert {cell_settings(cell, plan)["judge.seed"] for cell in cells_of(plan) if cell.data == "two"} == {5}


def test_a_plan_reads_back_as_it_was_written(tmp_path):
    plan = plan_from_dict(values(set={"training.learning_rate": 1e-3}, methods={"divid": {}, "b": {"model_of": "divid"}}))
    (tmp_path / "plan.yaml").write_text(dump_plan(plan))
    assert load_plan(tmp_path / "plan.yaml") == plan


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metods": {}}, "unknown key 'metods' (did you mean 'methods'?)"),
        ({"judge": {"num_step": 3}}, "unknown key 'judge.num_step' (did you mean 'num_steps'?)"),
        ({"evaluation": {"swap_pair": 3}}, "unknown key 'evaluation.swap_pair' (did you mean 'swap_pairs'?)"),
        ({"data": {"one": {"pth": "x"}}}, "unknown key 'data.one.pth' (did you mean 'path'?)"),
        ({"methods": {"divid": {"recip": "x"}}}, "unknown key 'methods.divid.recip' (did you mean 'recipe'?)"),
        ({"methods": {"dbs": {}}}, "methods.dbs.method is 'dbs' (did you mean 'dbse'?)"),
        ({"methods": {}}, "the plan names no methods"),
        ({"data": {}}, "the plan names no data"),
        ({"seeds": []}, "the plan names no seeds"),
        ({"seeds": [1, 1]}, "each may come once"),
        ({"seeds": "one"}, "seeds must be a list"),
        ({"data": [1]}, "data must be a mapping of keys to values"),
        ({"data": {"one": {"path": "x"}}}, "data.one.recipe is missing"),
        ({"data": {"a/b": {"path": "x", "recipe": "puppets-cpu"}}}, "a name becomes a folder"),
        ({"methods": {"divid": {"label": "A"}, "dbse": {"label": "A"}}}, "the tables need one of its own"),
        ({"methods": {"divid": {}, "b": {"model_of": "divd"}}}, "model_of is 'divd' (did you mean 'divid'?)"),
        ({"methods": {"divid": {}, "b": {"model_of": "b"}}}, "trains no model of its own"),
        ({"methods": {"divid": {}, "b": {"model_of": "divid", "set": {"training.num_steps": 1}}}}, "sets 'training.num_steps'"),
        ({"methods": {"divid": {}, "b": {"model_of": "divid", "method": "dbse"}}}, "sets 'method'"),
        ({"methods": {"divid": {}, "b": {"model_of": "divid", "set_on": {"one": {"seed": 1}}}}}, "sets 'seed'"),
        ({"methods": {"divid": {"set_on": {"oen": {}}}}}, "methods.divid.set_on names the data set 'oen' (did you mean 'one'?)"),
        ({"methods": {"divid": {"set_on": {"one": 3}}}}, "methods.divid.set_on.one must be a mapping of keys to values, not 3"),
        ({"judge": {"architecture": "lstm"}}, "architecture is 'lstm'"),
        (
            {"data": {"one": {"path": "a", "recipe": "puppets", "judge": {"num_step": 3}}}},
            "unknown key 'data.one.judge.num_step'",
        ),
        ({"data": {"one": {"path": "a", "recipe": "puppets", "judge": {"num_steps": 0}}}}, "num_steps of the judge is 0"),
        ({"evaluation": {"swap_pairs": 0}}, "evaluation.swap_pairs is 0, must be 1 or more"),
    ],
)
def test_bad_plans_are_one_line_errors(tmp_path, changes, expected):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values(**changes)))
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"set": {"training.num_stps": 5}}, "cell one/divid/seed-0: unknown key 'training.num_stps' (did you mean 'num_steps'?)"),
        ({"data": {"one": {"path": "x", "recipe": "pupets-cpu"}}}, "did you mean 'puppets-cpu'?"),
        ({"methods": {"divid": {}, "dbse": {"set": {"model.image_size": 64}}}}, "one judge sees both"),
        ({"methods": {"divid": {}, "dbse": {"set": {"model.tokens.dynamic_dim": 3}}}}, "cell one/dbse/seed-0: unknown key"),
    ],
)
def test_bad_recipes_of_cells_are_errors_that_name_the_cell(changes, expected):
    with pytest.raises(ConfigError) as caught:
        cells_of(plan_from_dict(values(**changes)))
    assert expected in str(caught.value)


def test_a_missing_plan_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"plan .*none\.yaml cannot be read"):
        load_plan(tmp_path / "none.yaml")


def test_the_example_plan_is_whole_and_explains_every_key(repository):
    path = repository / "configs/benchmarks/puppets-cpu.yaml"
    plan = load_plan(path)
    assert [cell.method for cell in cells_of(plan)] == ["divid", "dbse", "spyl", "divid-separate"]
    text = path.read_text()
    for line in text.splitlines():
        is_value = ":" in line and not line.startswith("#") and not line.rstrip().endswith(":")
        named_above = line.strip().startswith(("label:", "model_of:", "set: {model"))
        assert not is_value or "# " in line or named_above, line
    for section in (plan.judge, plan.evaluation):
        for key in vars(section):
            assert f"  {key}: " in text


def test_plans_are_no_recipes():
    assert list_recipes().count("puppets-cpu") == 1
    assert load_recipe("puppets-cpu").method == "divid"
