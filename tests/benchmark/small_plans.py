"""A tiny method, plans of seconds over labelled clips, and `divid` with that method as a script."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny import TinyMethod, tiny_recipe

from divid.methods import METHODS
from divid.recipes import dump_recipe

SCRIPT = Path(__file__)


class NanLoss(TinyMethod):
    """Its loss is not a number from the third step on."""

    def losses(self, video, randomness, num_decoded_frames=0):
        terms = super().losses(video, randomness)
        return terms | {"total": terms["total"] * float("nan")} if randomness.step >= 2 else terms


class NanSwaps(TinyMethod):
    """Trains well, and decodes more than four clips at once to values that are not numbers."""

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        video = super().decode(codes, seeds=seeds)
        return video if len(seeds) <= 4 else video * float("nan")


SMALL_METHODS = {"tiny": TinyMethod, "nan-loss": NanLoss, "nan-swaps": NanSwaps}


def write_plan(folder, data, *, methods=None, seeds=(0,), evaluation=None, judge=None, extra=None, **training) -> Path:
    """Write a recipe and a plan over data sets (name -> folder) beside each other."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_recipe(tiny_recipe(**{"num_steps": 6, "validate_every_steps": 0, **training})))
    plan = {
        "seeds": list(seeds),
        "data": {name: {"path": str(path), "recipe": str(recipe)} for name, path in data.items()},
        "methods": methods or {"tiny": {}, "fast": {"method": "tiny", "set": {"training.learning_rate": 0.1}}},
        "judge": judge or {"num_steps": 3},
        "evaluation": {"swap_pairs": 12, **(evaluation or {})},
        **(extra or {}),
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    return path


def wait_at(barrier: Path, count: int) -> None:
    """Wait until so many processes have come here."""
    barrier.mkdir(exist_ok=True)
    (barrier / str(os.getpid())).touch()
    while len(list(barrier.iterdir())) < count:
        time.sleep(0.01)


def main() -> None:
    from divid.cli.main import main as divid

    METHODS.update(SMALL_METHODS)
    torch.set_num_threads(1)
    if os.environ.get("BARRIER"):
        wait_at(Path(os.environ["BARRIER"]), 2)
    sys.exit(divid(sys.argv[1:]))


if __name__ == "__main__":
    main()
