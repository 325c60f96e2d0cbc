"""What several commands share: options, device, model, messages and the progress bar."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from divid.config import Precision, SamplingConfig, SolverName
from divid.errors import ConfigError, ModelError, OutputError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from divid.pipeline import DividPipeline

DEVICES = ("auto", "cpu", "cuda")
FITS = ("crop", "pad", "stretch")
DEFAULT_MODEL = "puppets"
STUDENT_SOLVER = "consistency"
"""The one solver that students of `divid distill` are made for, and nothing else is."""
KNOWN_TO_BUNDLED = {
    "puppets": "8 drawn puppets",
    "sprites": "drawn figures of the Liberated Pixel Cup",
    "utd-mhad-depth": "depth recordings of 8 people",
    "weizmann": "9 people in the open",
}
"""Bundled model -> whom it draws, whatever it is shown."""

SECONDS_BETWEEN_LINES = 30.0
"""Where stderr is a file or a pipe, a stage has a line of progress so often, the first after as long."""


def set_up_logging() -> None:
    """Send what the package has to say to stderr, so that stdout holds results only."""
    from rich.logging import RichHandler

    logger = logging.getLogger("divid")
    for handler in [handler for handler in logger.handlers if isinstance(handler, RichHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(RichHandler(console=error_console(), show_time=False, show_path=False, markup=False))
    logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    logger.propagate = False


def is_main_process() -> bool:
    """Tell whether this is the one of several training processes that speaks for all."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def error_console() -> Console:
    """Give the console for messages and progress."""
    from rich.console import Console

    return Console(stderr=True)


def add_device_argument(parser: ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute; auto takes a GPU if there is one")


def add_model_arguments(parser: ArgumentParser) -> None:
    """Add `--model` and `--device`."""
    parser.add_argument(
        "--model", default=None, help="model or run folder, name of a bundled model, or Hub id (left out: the bundled model)"
    )
    add_device_argument(parser)


def add_sampling_arguments(parser: ArgumentParser) -> None:
    """Add the options of drawing a sample: seed, solver, steps and the two guidance scales."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--steps", type=int, default=None, help="solver steps (left out: the model's own)")
    parser.add_argument("--solver", choices=get_args(SolverName), default=None, help="solver (left out: the model's own)")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=None,
        help="fp32, bf16 (about twice as fast where there are units for it), or auto (left out: the model's own)",
    )
    parser.add_argument("--static-guidance", type=float, default=None, help="strength of the appearance token; 1 is plain")
    parser.add_argument("--dynamic-guidance", type=float, default=None, help="strength of the motion tokens; 1 is plain")


def add_video_arguments(parser: ArgumentParser) -> None:
    """Add the options of reading and writing videos: `--fit`, `--scale` and `--compare`."""
    parser.add_argument("--fit", choices=FITS, default="crop", help="how frames that are not square are made square")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the output by this whole factor")
    parser.add_argument("--compare", action="store_true", help="put the inputs beside the result in an mp4 or gif")


def choose_device(name: str) -> str:
    """Turn `auto` into a device.

    Raises:
        ConfigError: A GPU is asked for where there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("--device cuda: no usable GPU here, use --device cpu or auto")
    return "cuda" if name != "cpu" and has_gpu else "cpu"


def load_pipeline(args: Namespace) -> DividPipeline:
    """Load the model that `--model` names, on the device that `--device` names.

    Raises:
        ModelError: There is no such model, or none is named and none comes with the package.
    """
    quiet_libraries()
    from divid.export import bundled_models
    from divid.pipeline import DividPipeline

    name = args.model
    if name is None:
        bundled = bundled_models()
        if not bundled:
            raise ModelError("no model given and none comes with the package: add --model FOLDER (divid demo or train makes one)")
        name = DEFAULT_MODEL if DEFAULT_MODEL in bundled else next(iter(bundled))
        logging.getLogger("divid").info("using the bundled model %s", name)
    if name in KNOWN_TO_BUNDLED and not Path(name).exists():
        text = "the bundled model %s knows %s and nothing else: train one on clips of your own"
        logging.getLogger("divid").info(text, name, KNOWN_TO_BUNDLED[name])
    return DividPipeline.from_pretrained(name).to(choose_device(args.device))


def quiet_libraries() -> None:
    """Keep diffusers' own notes (optional packages that are not there) off the terminal."""
    import diffusers.utils.logging

    diffusers.utils.logging.set_verbosity_error()


def chosen_sampling(args: Namespace, default: SamplingConfig) -> SamplingConfig:
    """Give a model's default sampling with what the options change.

    Raises:
        ConfigError: A value is outside its range, or the solver is not one for this model.
    """
    options = {
        "num_inference_steps": args.steps,
        "solver": args.solver,
        "precision": args.precision,
        "static_guidance": args.static_guidance,
        "dynamic_guidance": args.dynamic_guidance,
    }
    chosen = replace(default, **{key: value for key, value in options.items() if value is not None}).validate()
    if (chosen.solver == STUDENT_SOLVER) != (default.solver == STUDENT_SOLVER):
        whose = f"this model is a student of divid distill and has {STUDENT_SOLVER} alone"
        if chosen.solver == STUDENT_SOLVER:
            whose = f"that is for students of divid distill, and this model is none: its solver is {default.solver}"
        raise ConfigError(f"--solver {chosen.solver}: {whose}; leave --solver out")
    return chosen


def render_options(args: Namespace, pipeline: DividPipeline, progress: Any) -> dict[str, Any]:
    """Give the options of `divid.rendering.RenderOptions` from the command line."""
    return {
        "seed": args.seed,
        "sampling": chosen_sampling(args, pipeline.sampling),
        "fit": args.fit,
        "scale": args.scale,
        "compare": args.compare,
        "progress": progress,
    }


def output_folder(out: str) -> Path:
    """Make the folder that `--out` names, if it is not there.

    Raises:
        OutputError: It cannot be made.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}: give another one with --out") from error
    return folder


def early_path_check(out: str, inputs: Sequence[str | None], endings: tuple[str, ...] = (".mp4", ".gif", ".png")) -> None:
    """Refuse an output path, or an input that is missing, before the model is loaded, which takes seconds."""
    from divid.decoding import check_exists
    from divid.video import check_output

    paths = [Path(path) for path in inputs if path]
    check_output(Path(out), inputs=paths, endings=endings)
    for path in paths:
        check_exists(path)


class ProgressLines:
    """Progress for a log: a line every `SECONDS_BETWEEN_LINES` of a stage, so that short work writes none.

    Args:
        now: Clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: dict[str, tuple[float, int]] = {}
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Tell how far a stage is.

        Args:
            stage: Its name.
            done: How many of its parts are done.
            total: How many there are; None: not known.
        """
        now = self._now()
        began, first = self._began.setdefault(stage, (now, done))
        if now - self._told.setdefault(stage, now) < SECONDS_BETWEEN_LINES or done == total:
            return
        self._told[stage] = now
        line = f"{stage}  {done}" if total is None else f"{stage}  {done}/{total}"
        if total is not None and done > first:
            line += f"  {(now - began) / (done - first) * (total - done) / 60:.1f} min left"
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar a stage on stderr while the work runs; where stderr is no terminal, a line now and then."""
    if not sys.stderr.isatty():
        yield ProgressLines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console(), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield update


def say(text: str) -> None:
    """Print a result, once where several processes have it."""
    if is_main_process():
        print(text, flush=True)
