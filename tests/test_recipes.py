from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest
import yaml

from divid.config import Recipe, to_dict
from divid.errors import ConfigError
from divid.recipes import dump_recipe, flatten, list_recipes, load_recipe, parse_override


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_bundled_recipes_are_found_by_name_and_resolve():
    assert {"utd-mhad-cpu", "puppets-cpu", "utd-mhad", "puppets", "weizmann", "sprites", "paper"} <= set(list_recipes())
    for name in list_recipes():
        assert load_recipe(name).resolve().model.image_size in (32, 64)


def test_paper_recipe_has_the_papers_sizes():
    model = load_recipe("paper").resolve().model
    assert model.denoiser.channels == (128, 256, 384, 512)
    assert model.encoder.base_channels == 128
    assert model.diffusion.shared_training is True


@pytest.mark.parametrize("name", ["utd-mhad-cpu", "puppets-cpu", "utd-mhad", "puppets", "weizmann", "sprites"])
def test_one_recipe_for_all_data_sets(name):
    reference = "puppets-cpu" if name.endswith("-cpu") else "puppets"
    may_differ = {"model.channels", "training.num_steps"}
    one, other = flatten(load_recipe(name)), flatten(load_recipe(reference))
    assert {key for key in one if one[key] != other[key]} <= may_differ


@pytest.mark.parametrize("name", ["utd-mhad-cpu", "puppets-cpu", "utd-mhad", "puppets", "weizmann", "sprites", "paper"])
def test_every_key_of_a_bundled_recipe_is_explained_beside_it(name):
    from divid.recipes import _find

    for line in _find(name).read_text().splitlines():
        is_value = ":" in line and not line.startswith("#") and not line.rstrip().endswith(":")
        assert not is_value or line.split("# ")[-1].strip() != line.strip(), line
        assert len(line) <= 150


def test_dump_reads_back(tmp_path):
    recipe = load_recipe("puppets-cpu", {"training.learning_rate": 1.5e-4, "model.denoiser.channels": [32, 64, 96]}).resolve()
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_overrides_win(tmp_path):
    path = write(tmp_path, "training: {num_steps: 5}\n")
    assert load_recipe(path).training.num_steps == 5
    assert load_recipe(path, {"training.num_steps": 7, "seed": 2}).training.num_steps == 7


def test_numbers_and_words_are_read_as_people_mean_them(tmp_path):
    recipe = load_recipe(write(tmp_path, "training: {learning_rate: 6e-4, compile: off}\n"))
    assert recipe.training.learning_rate == 6e-4
    assert recipe.training.compile == "off"
    assert parse_override("training.compile=off") == ("training.compile", "off")
    assert parse_override("training.learning_rate=1e-3") == ("training.learning_rate", 1e-3)
    assert parse_override("model.denoiser.channels=[32, 64]") == ("model.denoiser.channels", [32, 64])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {num_step: 5}", "'training.num_step' (did you mean 'num_steps'?)"),
        ("trainig: {num_steps: 5}", "'trainig' (did you mean 'training'?)"),
        ("training: {num_steps: ten}", "training.num_steps must be a whole number, got 'ten'"),
        ("training: {num_steps: 5.5}", "training.num_steps must be a whole number, got 5.5"),
        ("training: {num_steps: true}", "training.num_steps must be a whole number, got True"),
        ("training: {learning_rate: fast}", "training.learning_rate must be a number, got 'fast'"),
        ("training: {precision: fp16}", "training.precision must be one of auto, fp32, bf16, got 'fp16'"),
        ("model: {channels: 2}", "model.channels is 2 (allowed: 1, 3)"),
        (
            "model: {tokens: {static_invariance_frame: any}}",
            "model.tokens.static_invariance_frame must be one of same, other, got 'any'",
        ),
        ("model: {tokens: {use_residual: yes}}", "model.tokens.use_residual must be true or false, got 'yes'"),
        ("model: {denoiser: {channels: [64, wide]}}", "each a whole number or null, got [64, 'wide']"),
        ("model: {denoiser: {channels: 64}}", "model.denoiser.channels must be a list"),
        ("training: [1, 2]", "training must be a mapping"),
        ("training:", "training must be a mapping"),
        ("training: {num_steps: 0}", "training.num_steps is 0"),
        ("training: {learning_rate: .nan}", "training.learning_rate is nan"),
        ("training: {log_every_steps: 0}", "training.log_every_steps is 0, must lie between 1 and 100000000"),
        ("training: {learning_rate_decay_start: 1}", "training.learning_rate_decay_start is 1, must lie between 0 and 0.999"),
        (
            "training: {learning_rate_decay_start: 0.5, learning_rate_schedule: constant}",
            "the schedule is constant: set learning_rate_schedule to cosine, or learning_rate_decay_start to 0",
        ),
        ("training: {weight_decay: -1}", "training.weight_decay is -1"),
        ("data: {num_workers: -1}", "data.num_workers is -1"),
        ("model: {diffusion: {num_train_timesteps: 1}}", "num_train_timesteps is 1, must lie between 2"),
        ("seed: 1\nseed: 2", "given twice"),
        ("seed: [1", "is not valid YAML"),
        ("- 1", "must hold keys and values"),
    ],
)
def test_bad_recipes_are_one_line_errors(tmp_path, text, expected):
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(tmp_path, text + "\n"))
    message = str(caught.value)
    assert "\n" not in message
    assert expected in message


def test_bad_overrides_are_errors(tmp_path):
    for key, value in (("training.num_stps", 3), ("seed.deep", 3), ("nothing", 3), ("training.num_steps", "many")):
        with pytest.raises(ConfigError):
            load_recipe("puppets-cpu", {key: value})
    for text in ("training.num_steps", "=3", "a=[1"):
        with pytest.raises(ConfigError, match="--set"):
            parse_override(text)


def test_missing_recipes_name_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'puppets-cpu'"):
        load_recipe("pupets-cpu")
    with pytest.raises(ConfigError, match=r"base is a preset and no recipe: take one of .* with --set model.preset=base"):
        load_recipe("base")
    with pytest.raises(ConfigError, match="there is no recipe file"):
        load_recipe(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(binary)


def test_flatten_holds_every_field():
    def count(config):
        values = (getattr(config, field.name) for field in fields(config))
        return sum(count(value) if is_dataclass(value) else 1 for value in values)

    assert len(flatten(Recipe())) == count(Recipe())
    assert yaml.safe_load(dump_recipe(Recipe())) == to_dict(Recipe())
