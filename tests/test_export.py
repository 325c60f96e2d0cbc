from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file

from divid import export
from divid.config import ModelConfig, SamplingConfig
from divid.errors import ModelError, OutputError
from divid.export import bundle_model, find_model_folder, load_model, render_card, resolve_model, save_model
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel

CONFIG = ModelConfig(
    image_size=16,
    frames_per_sequence=5,
    encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
    tokens=TokenConfig(static_dim=16, dynamic_dim=8),
    denoiser=DenoiserConfig(channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8),
)
SAMPLING = SamplingConfig(solver="ddim", num_inference_steps=3, eta=0.5)


@pytest.fixture
def model() -> DividModel:
    return DividModel(CONFIG)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    save_model(model, SAMPLING, tmp_path / "model", {"title": "Tiny"})
    return tmp_path / "model"


def weights_path(folder: Path) -> Path:
    return folder / "model" / export.WEIGHTS_NAME


def change_weights(folder: Path, change) -> None:
    weights = load_file(weights_path(folder))
    change(weights)
    save_file(weights, weights_path(folder))


def test_a_loaded_model_has_channels_last_and_the_numbers_of_any_other_layout(tmp_path):
    torch.manual_seed(0)
    # An untrained network blows the rounding of an input up that is scaled to nearly nothing.
    model = DividModel(replace(CONFIG, diffusion=replace(CONFIG.diffusion, scale_input=False))).eval()
    save_model(model, SAMPLING, tmp_path / "model", {"title": "Tiny"})
    loaded, _ = load_model(tmp_path / "model")
    kernels = [weight for weight in loaded.parameters() if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2] > 1]
    assert kernels and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    video = 2 * torch.rand(2, 5, 3, 16, 16) - 1
    with torch.no_grad():
        loaded_codes, codes = loaded.encode(video), model.encode(video)
    torch.testing.assert_close(loaded_codes.static, codes.static, rtol=0, atol=1e-5)
    torch.testing.assert_close(loaded_codes.dynamic, codes.dynamic, rtol=0, atol=1e-5)
    drawn, expected = (one.decode(codes, seeds=[0, 1], sampling=SAMPLING) for one in (loaded, model))
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)


def test_what_is_saved_is_what_is_loaded(model, folder):
    loaded, sampling = load_model(folder)
    assert sampling == SAMPLING
    assert loaded.options == model.options
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_model_saved_before_presets_chose_its_heads_has_as_many_as_then(folder):
    assert load_model(folder)[0].options.denoiser.attention_head_width == 16
    path = folder / "model" / "config.json"
    saved = json.loads(path.read_text())
    del saved["options"]["denoiser"]["attention_head_width"]
    path.write_text(json.dumps(saved))
    model = load_model(folder)[0]
    assert model.options.denoiser.attention_head_width == 0
    assert {module.heads for module in model.denoiser.unet.modules() if isinstance(module, Attention)} == {2}


def test_the_folder_holds_safetensors_and_json_only(folder):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == ["README.md", "model/config.json", "model/diffusion_pytorch_model.safetensors", "model_index.json"]


def test_all_files_have_the_permissions_that_new_files_have(model, tmp_path):
    before = os.umask(0o027)
    try:
        save_model(model, SAMPLING, tmp_path / "model", "# Card\n")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert len(files) == 4 and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_a_run_folder_stands_for_its_model(folder):
    assert find_model_folder(folder.parent) == folder
    assert load_model(folder.parent)[1] == SAMPLING


def test_a_model_folder_is_replaced_and_nothing_is_left_beside_it(folder):
    other = DividModel(CONFIG)
    save_model(other, SamplingConfig(), folder, "# New card\n")
    loaded, sampling = load_model(folder)
    assert sampling == SamplingConfig()
    assert (folder / "README.md").read_text() == "# New card\n"
    assert torch.equal(loaded.state_dict()["empty_static"], other.state_dict()["empty_static"])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_another_folder_is_never_replaced(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a model folder"):
        save_model(model, SAMPLING, tmp_path / "thesis", {})
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_old_model(model, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = weights_path(folder).read_bytes()
    monkeypatch.setattr(DividModel, "save_pretrained", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_model(model, SamplingConfig(), folder, {})
    assert weights_path(folder).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_rename_puts_the_old_model_back(model, folder, monkeypatch):
    replace = export.os.replace

    def fail_for_new(source, target):
        if Path(source).name == "new":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(export.os, "replace", fail_for_new)
    with pytest.raises(OutputError):
        save_model(model, SamplingConfig(), folder, {})
    assert load_model(folder)[1] == SAMPLING


def test_a_missing_parameter_is_named(folder):
    change_weights(folder, lambda weights: weights.pop("empty_static"))
    with pytest.raises(ModelError, match=r"another architecture.*lacks parameter 'empty_static'"):
        load_model(folder)


def test_an_unknown_parameter_is_named(folder):
    change_weights(folder, lambda weights: weights.update(surplus=torch.zeros(2)))
    with pytest.raises(ModelError, match="unknown parameter 'surplus'"):
        load_model(folder)


def test_a_parameter_of_another_shape_is_named(folder):
    change_weights(folder, lambda weights: weights.update(empty_dynamic=torch.zeros(9)))
    with pytest.raises(ModelError, match=r"'empty_dynamic' has shape \(9,\), expected \(8,\)"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(value, folder):
    change_weights(folder, lambda weights: weights["empty_static"].fill_(value))
    with pytest.raises(ModelError, match="'empty_static' holds NaN or infinite"):
        load_model(folder)


def test_a_truncated_weights_file(folder):
    content = weights_path(folder).read_bytes()
    weights_path(folder).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)


def test_pickles_are_never_loaded(folder):
    weights_path(folder).rename(weights_path(folder).with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(ModelError, match="pickle, which divid never loads"):
        load_model(folder)
    (folder / "last.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file"):
        load_model(folder / "last.ckpt")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "holds a StableDiffusionPipeline, not a DividPipeline"),
        ("model_index.json", {"model": ["diffusers", "UNet2DModel"]}, "UNet2DModel, which is no method"),
        ("model_index.json", {"sampling": {"solvr": "ddim"}}, "did you mean 'solver'"),
        ("model_index.json", {"sampling": {"num_inference_steps": 0}}, "num_inference_steps is 0"),
        ("model/config.json", {"_class_name": "UNet2DModel"}, "config.json is of UNet2DModel"),
        ("model/config.json", {"options": {"preset": "huge"}}, "'huge'"),
        ("model/config.json", {"surplus": 1}, "does not describe a DividModel"),
    ],
)
def test_json_of_something_else(name, change, message, folder):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, **change}))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_broken_json(content, folder):
    (folder / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=r"model_index\.json"):
        load_model(folder)


def test_folders_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="check the path"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match="not a model folder"):
        load_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelError, match="no model yet"):
        load_model(tmp_path)


@pytest.fixture
def zoo(folder, monkeypatch) -> Path:
    """A bundled model `tiny`, and nothing else bundled."""
    monkeypatch.setattr(export, "ZOO_FOLDER", folder.parent / "zoo")
    return bundle_model(folder, "tiny", {"title": "Tiny", "Limits": "very small"})


def test_a_model_is_found_by_path_or_bundled_name(folder, zoo):
    assert resolve_model(str(folder)) == folder
    assert export.bundled_models() == {"tiny": zoo}
    assert resolve_model("tiny") == zoo
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        resolve_model("tinny")


def test_a_bundled_model_has_half_the_size_and_is_loaded_as_float32(model, folder, zoo):
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(weights_path(zoo)).values())
    assert "very small" in (zoo / "README.md").read_text()
    loaded, sampling = load_model(zoo)
    assert sampling == SAMPLING
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=2**-8, atol=1e-8)
    assert next(model.parameters()).dtype == torch.float32


def test_a_bundled_model_that_is_not_as_shipped_is_refused(zoo):
    change_weights(zoo, lambda weights: weights["empty_static"].add_(1))
    with pytest.raises(ModelError, match=r"bundled model tiny is damaged: .*safetensors .*install divid again"):
        resolve_model("tiny")
    weights_path(zoo).unlink()
    with pytest.raises(ModelError, match="bundled model tiny is incomplete"):
        resolve_model("tiny")


def test_a_bundled_model_may_be_made_again(folder, zoo):
    assert bundle_model(folder, "tiny", {"title": "Second"}) == zoo
    assert "Second" in (zoo / "README.md").read_text()
    assert resolve_model("tiny") == zoo


def test_the_hub_is_asked_last_and_says_so_when_it_is_away():
    with pytest.raises(ModelError, match=r"Hugging Face Hub did not give it .*check the name and the connection"):
        resolve_model("nobody/no-such-model")


def test_the_hub_gives_only_what_is_read(folder, monkeypatch):
    import huggingface_hub

    asked = {}

    def download(hub_id, **options):
        asked.update(options, id=hub_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model("someone/model", revision="v1") == folder
    assert asked["id"] == "someone/model"
    assert asked["revision"] == "v1"
    assert all(name.endswith((".json", ".safetensors", ".md")) for name in asked["allow_patterns"])


def test_the_card_shows_every_section():
    text = render_card({"title": "Puppets", "trained_on": "2,000 clips", "recipe": {"seed": 0}, "limits": ["small"], "no": ""})
    assert text.startswith("---\nlibrary_name: divid\n")
    for line in ("# Puppets", "## Trained on\n\n2,000 clips", "## Recipe\n\n```yaml\nseed: 0\n```", "## Limits\n\n- small"):
        assert line in text
    assert "## No" not in text
