from __future__ import annotations

import errno
import pickle

import pytest
import torch
from tiny import TinyMethod, tiny_recipe

from divid.errors import ModelError, OutputError, TrainingError
from divid.training import checkpoints
from divid.training.checkpoints import LAST, PREVIOUS, AtomicCheckpointIO, find_checkpoint, read_checkpoint


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("module", "name"), [(torch, "save"), (checkpoints.os, "fsync"), (checkpoints.os, "replace")])
def test_a_full_disk_leaves_the_old_checkpoint_as_it_was(monkeypatch, tmp_path, module, name):
    path = tmp_path / LAST
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    before = path.read_bytes()
    monkeypatch.setattr(module, name, no_space)
    with pytest.raises(OutputError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [LAST]


def test_a_full_disk_ends_training_in_one_line(fit, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints.torch, "save", no_space)
    with pytest.raises(OutputError, match="free some space, then go on with --resume"):
        fit()
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_saving_again_keeps_the_one_before(tmp_path):
    for step in (1, 2, 3):
        AtomicCheckpointIO().save_checkpoint({"step": step}, tmp_path / LAST)
    assert torch.load(tmp_path / LAST)["step"] == 3
    assert torch.load(tmp_path / PREVIOUS)["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    path = tmp_path / LAST
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_damaged_files_are_one_line_errors(tmp_path, content):
    (tmp_path / LAST).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        find_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_program_is_an_error(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / LAST)
    with pytest.raises(ModelError, match="not a checkpoint of a divid training run"):
        find_checkpoint(tmp_path)


def test_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint"):
        find_checkpoint(tmp_path)


def spoil(run, change):
    path = run / "checkpoints" / LAST
    checkpoint = read_checkpoint(path)
    change(checkpoint["current_model_state"])
    torch.save(checkpoint, path)


def test_another_architecture_is_named(fit):
    run = fit(num_steps=2)
    spoil(run, lambda weights: weights.update({"model.encoder.weight": torch.zeros(3, 5)}))
    with pytest.raises(ModelError, match=r"another architecture: model.encoder.weight has shape \(3, 5\), expected \(6, 64\)"):
        fit(resume=True)


def test_missing_weights_are_named(fit):
    run = fit(num_steps=2)
    spoil(run, lambda weights: weights.pop("model.encoder.bias"))
    with pytest.raises(ModelError, match=r"model.encoder.bias has shape none, expected \(6,\)"):
        fit(resume=True)


def test_weights_that_are_not_numbers_are_refused(fit):
    run = fit(num_steps=2)
    spoil(run, lambda weights: weights["model.encoder.bias"].fill_(float("nan")))
    with pytest.raises(ModelError, match=r"not numbers in model.encoder.bias"):
        fit(resume=True)


def test_bad_weights_never_overwrite_a_good_checkpoint(fit, monkeypatch, tmp_path):
    """A weight may go bad though loss and gradient are fine."""
    good = TinyMethod.losses

    def spoiling(self, video, randomness, num_decoded_frames=0):
        terms = good(self, video, randomness)
        if randomness.step == 4:
            self.encoder.bias.data.fill_(float("inf"))
        return terms

    monkeypatch.setattr(TinyMethod, "losses", spoiling)
    with pytest.raises(TrainingError, match="after step 5"):
        fit(checkpoint_minutes=0.0)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / LAST)["global_step"] == 4


def test_checkpoint_minutes_0_saves_every_step(fit):
    run = fit(checkpoint_minutes=0.0, num_steps=3)
    assert [read_checkpoint(run / "checkpoints" / name)["global_step"] for name in (PREVIOUS, LAST)] == [2, 3]
    assert tiny_recipe().training.checkpoint_minutes > 0
