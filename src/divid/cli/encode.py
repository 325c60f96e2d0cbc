"""`divid encode`: codes of a video or of a folder of videos as Parquet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common
from divid.errors import InputError, VideoReadError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.pipeline import DividPipeline
    from divid.rendering import Recording, RenderOptions

ENDINGS = (".parquet",)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--input", required=True, help="a video, or a folder of videos (searched with its subfolders)")
    parser.add_argument("--out", required=True, help="the Parquet file: a row a video with file, fps, static and dynamic")
    parser.add_argument("--strict", action="store_true", help="stop at the first video that cannot be read; else it is skipped")
    parser.add_argument("--fit", choices=common.FITS, default="crop", help="how frames that are not square are made square")
    common.add_model_arguments(parser)


def run(args: Namespace) -> None:
    """Encode."""
    from divid.codes_table import write_codes
    from divid.rendering import RenderOptions

    folder = Path(args.input)
    paths = find_videos(folder)
    common.early_path_check(args.out, [str(path) for path in paths], ENDINGS)
    pipeline = common.load_pipeline(args)
    skipped: list[Path] = []
    with common.progress_bar() as progress:
        options = RenderOptions(fit=args.fit, progress=progress if len(paths) == 1 else None)
        recordings = _encode_all(pipeline, paths, options, skipped, is_strict=args.strict or len(paths) == 1)
        root = folder if paths != [folder] else None
        num_rows = write_codes(
            _counted(recordings, len(paths), progress, skipped), Path(args.out), root=root, model=str(args.model or "")
        )
    common.say(f"{args.out}: codes of {num_rows} videos" + (f", {len(skipped)} skipped" if skipped else ""))


def find_videos(path: Path) -> list[Path]:
    """Give the videos that a path means: itself, or all inside, folders of images included.

    Raises:
        InputError: There is nothing that could be a video, or the folder cannot be read.
    """
    from divid.data.sources.listing import find_recordings

    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"no file or folder {path}: check the path")
    videos = find_recordings(path)
    if not videos:
        raise InputError(f"{path} holds no videos: give a folder with video files, GIFs or folders of images")
    return videos


def _encode_all(
    pipeline: DividPipeline, paths: list[Path], options: RenderOptions, skipped: list[Path], *, is_strict: bool
) -> Iterator[Recording]:
    last: VideoReadError | None = None
    for path in paths:
        try:
            yield pipeline.encode(path, options)
        except VideoReadError as error:
            if is_strict:
                raise
            logging.getLogger("divid").warning("skipped: %s", error)
            skipped.append(path)
            last = error
    if last is not None and len(skipped) == len(paths):
        raise InputError(f"none of the {len(paths)} videos could be encoded; the last one: {last}")


def _counted(recordings: Iterator[Recording], total: int, progress: Any, skipped: list[Path]) -> Iterator[Recording]:
    for done, recording in enumerate(recordings, start=1):
        if total > 1:
            progress("videos", done + len(skipped), total)
        yield recording
