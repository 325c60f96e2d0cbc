"""Options of the baselines: what is filled in, what is refused, and the recipes that come with divid."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import yaml

from divid.baselines.dbse import DBSEModel
from divid.baselines.options import DBSEConfig, DBSEWeights, PerceptualConfig, SPYLConfig, SPYLWeights
from divid.baselines.spyl import SPYLModel
from divid.config import ModelConfig, from_dict, to_dict
from divid.errors import ConfigError
from divid.model_parts import EncoderConfig


def changed(options, values):
    """Set values after construction, which checks types while tests run."""
    for key, value in values.items():
        *sections, last = key.split(".")
        target = options
        for section in sections:
            target = getattr(target, section)
        setattr(target, last, value)
    return options


CONFIGS = [DBSEConfig, SPYLConfig]
RECIPES = {"dbse": DBSEConfig, "spyl": SPYLConfig}


def test_options_load_no_torch():
    code = "import sys, divid.baselines.options; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("cls", CONFIGS)
def test_nothing_is_left_open(cls):
    def leaves(values):
        return [leaf for v in values.values() for leaf in (leaves(v) if isinstance(v, dict) else [v])]

    resolved = cls().resolve()
    assert None not in leaves(to_dict(resolved))
    assert resolved.resolve() == resolved
    assert from_dict(cls, to_dict(resolved)) == resolved


@pytest.mark.parametrize("cls", CONFIGS)
def test_size_and_encoder_are_divids(cls):
    for preset in ("tiny", "small", "base", "paper"):
        divid, own = ModelConfig(preset=preset).resolve(), cls(preset=preset).resolve()
        assert own.image_size == divid.image_size
        assert own.encoder == divid.encoder
    assert cls(image_size=16, encoder=EncoderConfig(base_channels=24)).resolve().encoder.base_channels == 24


@pytest.mark.parametrize("cls", CONFIGS)
def test_what_any_recipe_says_fits_the_baselines_too(cls):
    shared = {f.name: f.type for f in fields(ModelConfig)}
    own = {f.name: f.type for f in fields(cls)}
    for name in ("preset", "image_size", "channels", "max_frame_spacing", "frames_per_sequence", "encoder"):
        assert own[name] == shared[name]


def test_the_papers_objective_has_a_perceptual_part_and_the_original_none():
    assert DBSEConfig().resolve().perceptual.network == "efficientnet_lite0"
    assert DBSEConfig(objective="original").resolve().perceptual.network == "none"
    assert DBSEConfig(perceptual=PerceptualConfig("none")).resolve().perceptual.network == "none"


@pytest.mark.parametrize("cls", CONFIGS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "tinny"}, "did you mean 'tiny'"),
        ({"objective": "papr"}, "did you mean 'paper'"),
        ({"backbone": "dcgn"}, "did you mean 'dcgan'"),
        ({"pixel_loss": "l3"}, "model.pixel_loss is 'l3'"),
        ({"channels": 2}, r"model.channels is 2 \(allowed: 1, 3\)"),
        ({"static_dim": 0}, "model.static_dim is 0"),
        ({"perceptual.network": "vgg"}, "did you mean 'vgg16'"),
        ({"perceptual.network": "vgg16"}, "weights_file is empty"),
        ({"perceptual.weight": -1}, "model.perceptual.weight is -1"),
        ({"backbone": "dcgan", "image_size": 48}, "power of two"),
        ({"image_size": 30}, "multiple of 4"),
        ({"image_size": 4}, "model.image_size is 4"),
    ],
)
def test_bad_options_are_one_line_errors(cls, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        changed(cls(), change).resolve()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DBSEConfig(weights=DBSEWeights(static_kl=-1)), "model.weights.static_kl is -1"),
        (DBSEConfig(sequence_starts_at=3), "model.sequence_starts_at is 3"),
        (changed(DBSEConfig(), {"first_position": "noises"}), "did you mean 'noise'"),
        (SPYLConfig(weights=SPYLWeights(contrast=-1)), "model.weights.contrast is -1"),
        (SPYLConfig(contrast_starts_at=2), "model.contrast_starts_at is 2"),
        (SPYLConfig(temperature=0), "model.temperature is 0"),
        (SPYLConfig(bank_size=1), "model.bank_size is 1"),
    ],
)
def test_bad_options_of_one_method(options, message):
    with pytest.raises(ConfigError, match=message):
        options.resolve()


def test_models_take_options_as_they_are_stored():
    for model_class, options in ((DBSEModel, DBSEConfig(image_size=16)), (SPYLModel, SPYLConfig(image_size=16))):
        options = replace(options, perceptual=PerceptualConfig("none"))
        assert model_class(to_dict(options.resolve())).options == model_class(options).options
        with pytest.raises(ConfigError, match="unknown key 'weight'"):
            model_class({"weight": 3})


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_originals(repository, name):
    recipe = yaml.safe_load((repository / "configs" / "baselines" / f"{name}.yaml").read_text())
    assert recipe["method"] == name
    options = from_dict(RECIPES[name], recipe["model"], "model").resolve()
    assert (options.backbone, options.objective, options.image_size) == ("dcgan", "original", 64)
    assert recipe["training"]["batch_size"] == 128
    assert recipe["training"]["weight_decay"] == recipe["training"]["gradient_clip"] == 0
