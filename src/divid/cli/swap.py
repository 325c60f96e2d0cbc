"""`divid swap`: one video's appearance does another's motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--appearance",
        required=True,
        help="video, image or folder of images: who and where (models by the recipes see its first frame alone)",
    )
    parser.add_argument("--motion", required=True, help="video of any length: what happens")
    parser.add_argument("--out", required=True, help="result: .mp4, .gif, or .png for a sheet of appearance, motion and swap")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_video_arguments(parser)


def run(args: Namespace) -> None:
    """Swap."""
    common.early_path_check(args.out, [args.appearance, args.motion])
    pipeline = common.load_pipeline(args)
    with common.progress_bar() as progress:
        result = pipeline.swap(args.appearance, args.motion, args.out, **common.render_options(args, pipeline, progress))
    common.say(f"{result.path}: {result.num_frames} frames at {result.fps:g} a second")
