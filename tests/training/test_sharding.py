"""Weights shared out among processes; that they train to the same as one process does stands in `test_processes.py`."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyMethod, divid_recipe, tiny_recipe
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from baselines.small_models import make_model
from divid.config import to_dict
from divid.errors import ConfigError
from divid.models.divid import DividModel
from divid.recipes import recipe_from_values
from divid.training.fit import train
from divid.training.sharding import HasBlocks, local, part_like, share_out, whole

NUM_PROCESSES = 4
MODELS = {
    "tiny": lambda: TinyMethod(tiny_recipe().resolve().model),
    "divid": lambda: DividModel(divid_recipe({"static_dim": 48}).model),
    "dbse": lambda: make_model("dbse"),
    "spyl": lambda: make_model("spyl", "dcgan"),
}


@pytest.fixture
def mesh():
    """The first of several processes, the others being made up."""
    distributed.init_process_group("fake", rank=0, world_size=NUM_PROCESSES, store=FakeStore())
    yield init_device_mesh("cpu", (NUM_PROCESSES,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", MODELS)
def test_each_process_keeps_its_share(mesh, name):
    model = MODELS[name]()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    share_out(model, mesh)
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    for weight in model.parameters():
        assert isinstance(weight, DTensor)
        assert len(local(weight)) == -(-len(weight) // NUM_PROCESSES)


@pytest.mark.parametrize("name", ["divid", "dbse", "spyl"])
def test_most_weights_are_gathered_block_by_block(name):
    model = MODELS[name]()
    assert isinstance(model, HasBlocks)
    weights = [weight for block in model.blocks() for weight in block.parameters()]
    assert len({id(weight) for weight in weights}) == len(weights)
    assert sum(weight.numel() for weight in weights) > 0.5 * sum(weight.numel() for weight in model.parameters())


def test_a_part_is_taken_as_another_tensor_is_shared_out(mesh):
    matrix = torch.arange(14.0).view(7, 2)
    zeros = distribute_tensor(torch.zeros(7, 2), mesh, [Shard(0)], src_data_rank=None)
    part = part_like(matrix, zeros)
    assert part.shape == matrix.shape
    assert torch.equal(local(part), matrix[:2])
    assert part_like(matrix, matrix) is whole(matrix) is local(matrix) is matrix


def test_sharding_twice_is_refused():
    with pytest.raises(ConfigError, match=r"set training\.shard_optimizer to false"):
        tiny_recipe(shard_weights=True, shard_optimizer=True).resolve()


def test_compiling_what_is_sharded_is_refused(data, tmp_path):
    recipe = recipe_from_values(to_dict(divid_recipe({})), {"training.compile": "on", "training.shard_weights": True})
    with pytest.raises(ConfigError, match=r"training\.compile=on does not work here"):
        train(recipe, [data], tmp_path / "run", device="cpu", devices=2, progress=False)


def test_one_process_keeps_all(fit):
    run = fit(num_steps=2, shard_weights=True)
    other = fit("other", num_steps=2)
    weights = "model/model/diffusion_pytorch_model.safetensors"
    assert (run / weights).read_bytes() == (other / weights).read_bytes()
