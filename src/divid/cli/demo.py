"""`divid demo`: two puppets swap their motions, in clips that training never saw."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from divid.cli import common
from divid.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from jsonargparse import ArgumentParser, Namespace

    from divid.pipeline import DividPipeline

RECIPE = "puppets-cpu"
BUNDLED = "puppets"
NUM_LOOKS = 8
"""Looks in the set that the demo trains on: few, so that in minutes there is time left to learn motion."""
CLIPS = {"a": (5, "bow"), "b": (6, "jumping_jack")}
"""Name -> (look, action). Training sees both looks and all actions, but not these performances."""
NUM_FRAMES = 24
CLIP_SEED = 1
CLIP_SIZE = 256
SCALE = 4
SCENERY: Final = "plain"
"""One colour behind the puppets: at 32x32 a place would take most of what a small model can learn in minutes."""
MAX_MINUTES = 12.0
SHORTENED = {
    "model.tokens.motion_augmentation_proportions": 0.0,
    "model.tokens.dynamic_invariance": 0.0,
    "model.tokens.static_invariance": 0.0,
    "model.bottleneck.kind": "none",
    "training.learning_rate_decay_start": 0.0,
}
"""What the recipe does without here: in half of its steps or less, changed proportions cost puppets some of their motion, and
what else the recipe does late has not been tried."""

_logger = logging.getLogger("divid")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--out", default="demo", help="folder for all that is made")
    parser.add_argument("--train", action="store_true", help="train a small model here, even where a bundled one is there")
    parser.add_argument("--minutes", type=float, default=MAX_MINUTES, help="longest training, where it trains")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)


def run(args: Namespace) -> None:
    """Make clips, get a model, swap, write, and say what was done."""
    if args.train and args.model:
        raise ConfigError("--train makes a model and --model names one: give one of the two")
    out = common.output_folder(args.out)
    paths = make_clips(out)
    args.model = args.model or find_or_train(out, args.minutes, args.device, use_bundled=not args.train)
    pipeline = common.load_pipeline(args)
    with common.progress_bar() as progress:
        files = swap_both_ways(pipeline, paths, out, args, progress)
    common.say(f"model    {args.model}")
    for name, path in paths.items():
        look, action = CLIPS[name]
        common.say(f"clip {name}   {path}: look_{look:03d} in a performance of {action} that training never saw")
    for text, path in files:
        common.say(f"{text:<8} {path}")


def make_clips(out: Path) -> dict[str, Path]:
    """Draw the two clips, by a seed that no prepared set uses."""
    from divid.data.sources.puppets import FPS, render_clip
    from divid.video import write_video

    paths = {}
    for name, (look, action) in CLIPS.items():
        paths[name] = out / f"{name}.mp4"
        frames = render_clip(look, action, CLIP_SEED, num_frames=NUM_FRAMES, size=CLIP_SIZE, scenery=SCENERY)
        write_video(paths[name], frames, FPS)
    return paths


def find_or_train(out: Path, minutes: float, device: str, use_bundled: bool = True) -> str:
    """Give the bundled model, or that of an earlier demo, or train one; a training that was cut off goes on.

    Args:
        out: The demo's folder; data and run lie in it.
        minutes: Longest training.
        device: As `--device`.
        use_bundled: Whether a bundled model will do.

    Returns:
        The model's name or folder.
    """
    from divid.export import INDEX_NAME, bundled_models

    if use_bundled and BUNDLED in bundled_models():
        return BUNDLED
    run_folder, data = out / "run", out / "data"
    if (run_folder / "model" / INDEX_NAME).is_file():
        _logger.info("using the model that an earlier demo trained: %s", run_folder)
        return str(run_folder)
    from divid.data.prepare import prepare
    from divid.data.sources import SourceOptions
    from divid.recipes import load_recipe
    from divid.training.fit import train

    recipe = load_recipe(RECIPE, SHORTENED)
    _logger.info("training recipe %s, shortened, for at most %g minutes (once; a later demo --train uses it)", RECIPE, minutes)
    begun = time.monotonic()
    size = recipe.resolve().model.image_size
    assert size is not None
    options = SourceOptions(image_size=size, channels=recipe.model.channels, num_looks=NUM_LOOKS, scenery=SCENERY)
    with common.progress_bar() as progress:
        prepare("puppets", None, data, options=options, progress=functools.partial(progress, "drawing puppets"))
    left = max(0.1, minutes - (time.monotonic() - begun) / 60)
    recipe = replace(recipe, training=replace(recipe.training, fit_minutes=left, max_minutes=left))
    train(recipe, [data], run_folder, resume=run_folder.exists(), device=device)
    return str(run_folder)


def swap_both_ways(
    pipeline: DividPipeline, paths: dict[str, Path], out: Path, args: Namespace, progress: Any
) -> list[tuple[str, Path]]:
    """Swap the two clips and write videos, one GIF of all four and a contact sheet.

    Returns:
        (What it is, where it is).
    """
    import numpy as np

    from divid.data.sources.puppets import FPS
    from divid.video import contact_sheet, read_video, write_image, write_video

    sampling = common.chosen_sampling(args, pipeline.sampling)
    options = {"seed": args.seed, "sampling": sampling, "progress": progress, "scale": SCALE}
    size, channels = pipeline.model.options.image_size * SCALE, pipeline.model.options.channels
    inputs = {name: read_video(path, size=size, channels=channels)[0] for name, path in paths.items()}
    made: dict[str, np.ndarray] = {}
    files = []
    for look, motion in (("a", "b"), ("b", "a")):
        frames = pipeline.swap(paths[look], paths[motion], **options).frames
        assert frames is not None
        made[look] = frames
        path = out / f"{look}_moves_like_{motion}.mp4"
        write_video(path, made[look], FPS)
        files.append(("swap", path))
    grid = [np.concatenate([clips["a"], clips["b"]], axis=2) for clips in (inputs, made)]
    write_video(out / "swap.gif", np.concatenate(grid, axis=1), FPS)
    rows = [("A", inputs["a"]), ("B", inputs["b"]), ("A moves like B", made["a"]), ("B moves like A", made["b"])]
    write_image(out / "swap.png", contact_sheet(rows, title="Two clips that training never saw"))
    return [*files, ("all four", out / "swap.gif"), ("sheet", out / "swap.png")]
