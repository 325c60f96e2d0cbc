"""The demo, with the training cut to two steps: what a stranger's first command does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from divid.cli.main import main
from divid.errors import InputError, ModelError
from divid.model_parts import DenoiserConfig, EncoderConfig, TokenConfig
from divid.video import read_video

FILES = {"a.mp4", "b.mp4", "a_moves_like_b.mp4", "b_moves_like_a.mp4", "swap.gif", "swap.png"}


@pytest.fixture
def short_recipe(monkeypatch):
    """Make every recipe tiny and two steps long, and the data set small."""
    from divid import recipes
    from divid.data.sources import puppets

    monkeypatch.setattr(puppets, "NUM_CLIPS", 16)

    load = recipes.load_recipe

    def load_short(name, overrides=None):
        recipe = load(name, overrides)
        model = replace(
            recipe.model,
            image_size=16,
            encoder=EncoderConfig(base_channels=8, multipliers=(1, 2), static_hidden=16, lstm_hidden=16, attention_heads=2),
            tokens=TokenConfig(static_dim=16, dynamic_dim=8),
            denoiser=DenoiserConfig(
                channels=(8, 16), attention_levels=(1,), attention_heads=2, attention_width=16, norm_groups=8
            ),
        )
        training = replace(recipe.training, num_steps=2, warmup_steps=1, num_validation_clips=2, compile="off", precision="fp32")
        return replace(recipe, model=model, training=training)

    monkeypatch.setattr(recipes, "load_recipe", load_short)


def bundle_model_as_puppets(model_folder, tmp_path, monkeypatch):
    from divid import export

    monkeypatch.setattr(export, "ZOO_FOLDER", tmp_path / "zoo")
    return export.bundle_model(model_folder, "puppets", {"title": "Tiny"})


def check_files(out) -> None:
    assert {path.name for path in out.iterdir() if path.is_file()} == FILES
    assert read_video(out / "a_moves_like_b.mp4")[0].shape[0] == read_video(out / "b.mp4")[0].shape[0]
    height, width = read_video(out / "swap.gif")[0].shape[1:3]
    assert height == width
    with Image.open(out / "swap.png") as sheet:
        assert sheet.width > sheet.height > 4 * 96


def test_with_a_model_it_swaps_both_ways(model_folder, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", str(model_folder), "--device", "cpu", "--steps", "1"]) == 0
    check_files(tmp_path / "demo")
    text = capsys.readouterr().out
    for word in ("a_moves_like_b.mp4", "swap.gif", "swap.png", str(model_folder), "never saw"):
        assert word in text


@pytest.mark.slow
def test_without_a_model_it_trains_once(short_recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("divid.export.ZOO_FOLDER", tmp_path / "no-zoo")
    words = ["demo", "--out", str(tmp_path / "demo"), "--device", "cpu", "--steps", "1", "--minutes", "5"]
    assert main(words) == 0
    check_files(tmp_path / "demo")
    weights = tmp_path / "demo" / "run" / "model" / "model" / "diffusion_pytorch_model.safetensors"
    made = weights.stat().st_mtime_ns
    assert main(words) == 0
    assert weights.stat().st_mtime_ns == made
    assert str(tmp_path / "demo" / "run") in capsys.readouterr().out
    for name, words in (("data", ("clips", "look", "action", "16x16, RGB")), ("run", ("DividModel", "seed", "16x16, RGB"))):
        assert main(["info", str(tmp_path / "demo" / name)]) == 0
        text = capsys.readouterr().out
        for word in words:
            assert word in text


def test_a_bundled_model_is_taken_unless_training_is_asked_for(model_folder, tmp_path, monkeypatch):
    from divid.cli import demo

    zoo = bundle_model_as_puppets(model_folder, tmp_path, monkeypatch)
    assert demo.find_or_train(tmp_path, 1.0, "cpu") == zoo.name
    (tmp_path / "run").symlink_to(model_folder.parent)
    assert demo.find_or_train(tmp_path, 1.0, "cpu", use_bundled=False) == str(tmp_path / "run")


def test_training_and_a_model_exclude_each_other(model_folder, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", str(model_folder), "--train"]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_an_output_that_is_a_file(model_folder, tmp_path, capsys):
    (tmp_path / "demo").write_text("a file")
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", str(model_folder)]) == 2
    assert "cannot make the folder" in capsys.readouterr().err


def test_a_bundled_model_brings_its_sheet(model_folder, tmp_path, monkeypatch):
    from divid import export

    monkeypatch.setattr(export, "ZOO_FOLDER", tmp_path / "zoo")
    Image.effect_noise((40, 60), 90).convert("RGB").save(tmp_path / "swaps.png")
    folder = export.bundle_model(model_folder, "tiny", {"title": "Tiny"}, tmp_path / "swaps.png")
    with Image.open(folder / export.SHEET_NAME) as sheet:
        assert sheet.size == (40, 60)
    assert export.resolve_model("tiny") == folder
    (folder / export.SHEET_NAME).write_bytes(b"other")
    with pytest.raises(ModelError, match="damaged: samples"):
        export.resolve_model("tiny")
    with pytest.raises(InputError, match=r"recipe\.yaml is no picture"):
        export.bundle_model(model_folder, "tiny", {"title": "Tiny"}, tmp_path / "recipe.yaml")


def test_a_bundled_model_is_known_to_info_by_its_name(capsys):
    assert main(["info", "puppets"]) == 0
    assert "DividModel" in capsys.readouterr().out
