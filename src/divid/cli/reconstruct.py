"""`divid reconstruct`: a video made again from its own codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--input", required=True, help="video of any length")
    parser.add_argument("--out", required=True, help="result: .mp4, .gif, or .png for a sheet of input and reconstruction")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_video_arguments(parser)


def run(args: Namespace) -> None:
    """Reconstruct."""
    common.early_path_check(args.out, [args.input])
    pipeline = common.load_pipeline(args)
    with common.progress_bar() as progress:
        result = pipeline.reconstruct(args.input, args.out, **common.render_options(args, pipeline, progress))
    common.say(f"{result.path}: {result.num_frames} frames at {result.fps:g} a second")
