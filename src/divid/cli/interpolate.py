"""`divid interpolate`: from one appearance to another, or from one motion to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divid.cli import common

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--appearance", required=True, help="video, image or folder of images: who and where")
    parser.add_argument("--motion", required=True, help="video: what happens; gives length and frame rate")
    parser.add_argument("--to-appearance", default=None, help="the appearance to go to, or")
    parser.add_argument("--to-motion", default=None, help="the motion to go to")
    parser.add_argument("--num-steps", type=int, default=5, help="clips in all, both ends included")
    parser.add_argument("--path", choices=("linear", "slerp"), default="linear", help="straight, or along the sphere")
    parser.add_argument("--out", required=True, help="result: .mp4 or .gif with the clips side by side, or .png with a row each")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_video_arguments(parser)


def run(args: Namespace) -> None:
    """Interpolate."""
    common.early_path_check(args.out, [args.appearance, args.motion, args.to_appearance, args.to_motion])
    pipeline = common.load_pipeline(args)
    with common.progress_bar() as progress:
        result = pipeline.interpolate(
            args.appearance,
            args.motion,
            args.out,
            to_appearance=args.to_appearance,
            to_motion=args.to_motion,
            num_steps=args.num_steps,
            path=args.path,
            **common.render_options(args, pipeline, progress),
        )
    common.say(f"{result.path}: {args.num_steps} clips of {result.num_frames} frames at {result.fps:g} a second")
