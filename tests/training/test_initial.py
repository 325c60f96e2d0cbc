import pytest
import torch

from divid.baselines.dbse import DBSEModel
from divid.config import ModelConfig, SamplingConfig
from divid.errors import ConfigError, ModelError
from divid.export import save_model
from divid.model_parts import BottleneckConfig, DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.training.initial import take_weights


def make_model(width=16, **options):
    return DividModel(
        ModelConfig(
            image_size=16,
            channels=1,
            encoder=EncoderConfig(base_channels=8, static_hidden=16, lstm_hidden=16),
            tokens=TokenConfig(static_dim=12, dynamic_dim=6),
            denoiser=DenoiserConfig(channels=(width, 32), attention_levels=(1,), attention_width=16, norm_groups=8),
            **options,
        )
    )


@pytest.fixture
def trained(tmp_path):
    model = make_model(max_frame_spacing=7)
    save_model(model, SamplingConfig(), tmp_path / "trained", "a model")
    return model, tmp_path / "trained"


def test_every_weight_is_taken(trained):
    torch.manual_seed(1)
    model = make_model()
    take_weights(model, str(trained[1]))
    for name, value in trained[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.options.max_frame_spacing == 0  # what the data say stays as the new run has it


def test_the_bottleneck_rate_may_begin_in_a_model_that_was_trained_without_it(trained):
    torch.manual_seed(1)
    model = make_model(bottleneck=BottleneckConfig(kind="rate"))
    grids = {name: value.clone() for name, value in model.state_dict().items() if "grid" in name}
    take_weights(model, str(trained[1]))
    for name, value in {**trained[0].state_dict(), **grids}.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert len(grids) == 6


def test_another_architecture_is_one_line_that_says_what_to_set(trained):
    with pytest.raises(ConfigError) as caught:
        take_weights(make_model(width=24), str(trained[1]))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("--set model.denoiser.channels=[16,32]")


def test_another_method_is_one_line(trained):
    dbse = DBSEModel({"image_size": 16, "channels": 1, "perceptual": {"network": "none"}})
    with pytest.raises(ConfigError, match="is a DividModel, but the recipe trains a DBSEModel"):
        take_weights(dbse, str(trained[1]))


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="no model"):
        take_weights(make_model(), str(tmp_path / "nothing"))
