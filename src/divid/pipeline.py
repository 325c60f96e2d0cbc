"""`DividPipeline`: from files to files, or from arrays to arrays, whatever the length of the recordings."""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from divid.allocator import keep_freed_memory
from divid.arrays import frames_to_video, video_to_frames
from divid.config import SamplingConfig, from_dict, to_dict
from divid.errors import ConfigError, InputError, VideoReadError, nearest
from divid.export import CARD_NAME, load_model, resolve_model, save_model
from divid.interpolation import InterpolationPath, interpolate_tokens, resample_tokens
from divid.long_encoding import encode_recording
from divid.models.layout import channels_last
from divid.rendering import SHEET_COLUMNS, Recording, RenderOptions, Result, enlarge, runs
from divid.sheets import contact_sheet, pick_evenly
from divid.types import Codes
from divid.video import VideoReader, VideoWriter, check_output, open_video, write_image

ENCODE_CHUNK_FRAMES = 64
APPEARANCE_FRAMES = 256
"""How much of the appearance video is looked at: its token comes from the start, the rest is only for show."""


class DividPipeline(DiffusionPipeline):
    """Splits videos into appearance and motion, and puts them together again.

    The process keeps memory that it frees, for speed on a CPU (`divid.allocator`).

    Args:
        model: A method of `divid.methods.METHODS`; its kernels are laid out anew, channels last.
        sampling: How it samples unless told otherwise.
    """

    model: Any
    model_cpu_offload_seq = "model"

    def __init__(self, model: ModelMixin, sampling: dict[str, Any] | SamplingConfig | None = None) -> None:
        super().__init__()
        if not isinstance(sampling, SamplingConfig):
            sampling = from_dict(SamplingConfig, sampling or {}, "sampling")
        assert isinstance(sampling, SamplingConfig)
        keep_freed_memory()
        self.register_modules(model=channels_last(model))
        self.register_to_config(sampling=to_dict(sampling.validate()))
        self._card: str | None = None

    # Loading goes through our own reader, which checks every weight: diffusers' fills missing ones with uninitialised memory.

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike, **options: Any) -> DividPipeline:
        """Load a pipeline.

        Args:
            name: A model or run folder, a bundled model's name, or a Hub id.
            options: `torch_dtype`, and options of `huggingface_hub.snapshot_download` (revision, token, cache_dir, ...).

        Raises:
            ModelError: It cannot be found or loaded; see `divid.export.load_model`.
        """
        dtype = options.pop("torch_dtype", None)
        folder = resolve_model(name if isinstance(name, str) else Path(name), **options)
        model, sampling = load_model(folder)
        pipeline = cls(model=cast(ModelMixin, model), sampling=sampling)
        card = folder / CARD_NAME
        pipeline._card = card.read_text(encoding="utf-8") if card.is_file() else None
        pipeline.register_to_config(_name_or_path=str(name))
        return pipeline if dtype is None else pipeline.to(dtype)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **options: Any) -> None:
        """Write a model folder (safetensors and JSON), atomically.

        Args:
            save_directory: Where to.
            push_to_hub: Upload it as well; `options` are then those of `push_to_hub`.
            options: `repo_id` and so on.
        """
        save_model(self.model, self.sampling, Path(save_directory), self._card or {"title": "DiViD model"})
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", Path(save_directory).name), **options)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any) -> str:
        """Upload the model folder to the Hugging Face Hub.

        Args:
            repo_id: `owner/name`.
            private: Whether the repository, if made now, is private.
            token: Access token; default: that of `hf auth login`.
            options: `commit_message`, `create_pr`.

        Returns:
            The commit's address.
        """
        from huggingface_hub import create_repo, upload_folder

        full_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(Path(name) / "model")
            return str(upload_folder(repo_id=full_id, folder_path=Path(name) / "model", token=token, **options))

    @property
    def sampling(self) -> SamplingConfig:
        """How this model samples unless told otherwise."""
        return from_dict(SamplingConfig, self.config.sampling, "sampling")

    # Videos in memory.

    def __call__(
        self, appearance: np.ndarray, motion: np.ndarray, *, seed: int = 0, sampling: SamplingConfig | None = None
    ) -> np.ndarray:
        """Give A's appearance doing B's motion.

        Args:
            appearance: A, uint8 F H W C at the model's size.
            motion: B, the same; the result has its length.
            seed: The sample's seed.
            sampling: Solver, steps and guidance; default: the model's own.

        Returns:
            uint8 F H W C.
        """
        codes = self.encode_frames(appearance).with_motion_of(self.encode_frames(motion))
        return self.decode_frames(codes, seed=seed, sampling=sampling)

    def encode_frames(self, frames: np.ndarray) -> Codes:
        """Split frames into codes.

        Args:
            frames: uint8 F H W C at the model's size; one frame has an appearance and stands still.

        Raises:
            InputError: The array has another type or shape.
        """
        options = self.model.options
        expected = (options.image_size, options.image_size, options.channels)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != expected or not len(frames):
            allowed = ", ".join(map(str, expected))
            raise InputError(f"frames must be uint8 of shape (F, {allowed}), got {frames.dtype} {frames.shape}")
        chunks = (frames[start : start + ENCODE_CHUNK_FRAMES] for start in range(0, len(frames), ENCODE_CHUNK_FRAMES))
        return self._encode(chunks)[0]

    def decode_frames(self, codes: Codes, *, seed: int = 0, sampling: SamplingConfig | None = None) -> np.ndarray:
        """Make frames from the codes of one clip; arguments as for `__call__`.

        Returns:
            uint8 F H W C.
        """
        chunks = self._decode(codes, RenderOptions(seed=seed, sampling=sampling))
        return np.concatenate([chunk[0] for _, chunk in chunks])

    # Files.

    def swap(self, appearance: str | Path, motion: str | Path, out: str | Path | None = None, **options: Any) -> Result:
        """Make A's appearance do B's motion; the result has B's length and frame rate.

        Args:
            appearance: Video, image or folder of images A.
            motion: Video B; any length, in constant memory.
            out: `.mp4`, `.gif` or `.png` (a sheet of appearance, motion and result). Default: the frames are returned.
            options: Fields of `RenderOptions`.

        Raises:
            DividError: An input cannot be read or the output not be written.
        """
        render = _render_options(options)
        out = _checked_output(out, [appearance, motion])
        looks = self.encode(appearance, render, is_appearance=True)
        moves = self.encode(motion, render)
        codes = looks.codes.with_motion_of(moves.codes)
        sources = [("appearance", looks), ("motion", moves)]
        return self._render(codes, ["swap"], moves.fps, out, sources, render)

    def reconstruct(self, video: str | Path, out: str | Path | None = None, **options: Any) -> Result:
        """Make a video from its own codes: what is lost on the way shows what the codes hold.

        Args:
            video: The video.
            out: As for `swap`.
            options: Fields of `RenderOptions`.
        """
        render = _render_options(options)
        out = _checked_output(out, [video])
        recording = self.encode(video, render)
        return self._render(recording.codes, ["reconstruction"], recording.fps, out, [("input", recording)], render)

    def interpolate(
        self,
        appearance: str | Path,
        motion: str | Path,
        out: str | Path | None = None,
        *,
        to_appearance: str | Path | None = None,
        to_motion: str | Path | None = None,
        num_steps: int = 5,
        path: InterpolationPath = "linear",
        **options: Any,
    ) -> Result:
        """Go from one appearance to another with one motion, or from one motion to another with one appearance.

        Args:
            appearance: The (first) appearance.
            motion: The (first) motion; it gives length and frame rate.
            out: As for `swap`: an mp4 or gif shows the steps side by side, a png one row each.
            to_appearance: The other appearance, or
            to_motion: the other motion, stretched in time to the first one's length.
            num_steps: Clips in all, both ends included.
            path: `linear`, or `slerp` along the sphere.
            options: Fields of `RenderOptions`.

        Raises:
            ConfigError: Both or none of the second videos are given, or there are fewer than 2 steps.
        """
        render = _render_options(options)
        if (to_appearance is None) == (to_motion is None):
            raise ConfigError("interpolation needs a second appearance or a second motion, and not both: give exactly one")
        if not 2 <= num_steps <= 64:
            raise ConfigError(f"interpolation steps are {num_steps}, must lie between 2 and 64")
        other = to_appearance if to_motion is None else to_motion
        assert other is not None
        out = _checked_output(out, [appearance, motion, other])
        looks = self.encode(appearance, render, is_appearance=True)
        moves = self.encode(motion, render)
        codes = looks.codes.with_motion_of(moves.codes)
        last = self.encode(other, render, is_appearance=to_motion is None).codes
        shares = [step / (num_steps - 1) for step in range(num_steps)]
        static, dynamic = codes.static.expand(num_steps, -1), codes.dynamic.expand(num_steps, -1, -1)
        if to_motion is None:
            static = torch.cat([interpolate_tokens(codes.static, last.static, share, path) for share in shares])
        else:
            end = resample_tokens(last.dynamic, codes.num_frames)
            dynamic = torch.cat([interpolate_tokens(codes.dynamic, end, share, path) for share in shares])
        sources = [("appearance", looks), ("motion", moves)]
        labels = [f"{share:.2f}" for share in shares]
        return self._render(Codes(static, dynamic), labels, moves.fps, out, sources, render)

    def encode(self, video: str | Path, options: RenderOptions | None = None, *, is_appearance: bool = False) -> Recording:
        """Split a video file into codes, as a stream: memory does not grow with the pictures.

        Args:
            video: The video.
            options: `fit` and `progress` are used.
            is_appearance: Only who and where is wanted: one frame is enough, and a long video is not read to its end.

        Raises:
            VideoReadError: It cannot be read, or has one frame where a motion is wanted.
        """
        render = options or RenderOptions()
        with self._open(video, render, APPEARANCE_FRAMES if is_appearance else None) as reader:
            told = functools.partial(render.progress, f"reading {Path(video).name}") if render.progress else None
            codes, num_frames = self._encode(reader.chunks(ENCODE_CHUNK_FRAMES), told, reader.num_frames)
        if num_frames == 1 and not is_appearance:
            raise VideoReadError(f"{video} has only one frame, so it shows no motion: give a video with 2 frames or more")
        return Recording(Path(video), codes, reader.fps, num_frames)

    def _open(self, video: str | Path, render: RenderOptions, max_frames: int | None = None) -> VideoReader:
        options = self.model.options
        return open_video(video, channels=options.channels, size=options.image_size, fit=render.fit, max_frames=max_frames)

    @torch.no_grad()
    def _encode(
        self, chunks: Iterable[np.ndarray], told: Callable[[int, int | None], None] | None = None, total: int | None = None
    ) -> tuple[Codes, int]:
        """Encode a recording that comes in chunks; only its features are kept."""
        parts: list[torch.Tensor] = []
        num_frames = 0
        like = next(self.model.parameters())
        for chunk in chunks:
            parts.append(self.model.frame_features(frames_to_video(chunk).to(like)))
            num_frames += len(chunk)
            if told:
                told(num_frames, total)
        features = torch.cat(parts, dim=1)
        if num_frames == 1:
            features = features.expand(-1, 2, -1)  # a still picture is a clip that does not move
        options = self.model.options
        codes = encode_recording(self.model, features, options.frames_per_sequence, options.max_frame_spacing)
        return Codes(codes.static.cpu(), codes.dynamic[:, :num_frames].cpu()), num_frames

    def _decode(
        self, codes: Codes, render: RenderOptions, positions: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Give (positions, uint8 B F H W C) chunk by chunk; the result does not depend on the chunks."""
        sampling = (render.sampling or self.sampling).validate()
        wanted = list(range(codes.num_frames)) if positions is None else sorted(set(positions))
        like = next(self.model.parameters())
        clips = len(codes.static)
        done = 0
        for run in runs(wanted, max(1, sampling.chunk_frames // clips)):
            part = Codes(codes.static, codes.dynamic[:, run[0] : run[-1] + 1]).to(like)
            video = self.model.decode(part, seeds=[render.seed] * clips, sampling=sampling, first_frame=run[0])
            done += len(run)
            if render.progress:
                render.progress("making frames", done, len(wanted))
            yield run, video_to_frames(video)

    def _render(
        self,
        codes: Codes,
        labels: Sequence[str],
        fps: float,
        out: Path | None,
        sources: Sequence[tuple[str, Recording]],
        render: RenderOptions,
    ) -> Result:
        """Make the clips of `codes` and write them: a sheet by the ending .png, else one video with the clips side by side."""
        num_frames = codes.num_frames
        if out is not None and out.suffix.lower() == ".png":
            self._write_sheet(codes, labels, out, sources, render)
            return Result(num_frames, fps, out)
        if out is None:
            frames = np.concatenate([np.concatenate(list(chunk), axis=2) for _, chunk in self._decode(codes, render)])
            return Result(num_frames, fps, frames=enlarge(frames, render.scale))
        beside = [self._looped(recording, render) for _, recording in sources] if render.compare else []
        with VideoWriter(out, fps=fps) as writer:
            for run, chunk in self._decode(codes, render):
                columns = [np.stack(list(itertools.islice(source, len(run)))) for source in beside]
                writer.write(enlarge(np.concatenate([*columns, *chunk], axis=2), render.scale))
        return Result(num_frames, fps, out)

    def _write_sheet(
        self, codes: Codes, labels: Sequence[str], out: Path, sources: Sequence[tuple[str, Recording]], render: RenderOptions
    ) -> None:
        rows = [(label, self._picked(recording, render)) for label, recording in sources]
        made = [chunk for _, chunk in self._decode(codes, render, pick_evenly(codes.num_frames, SHEET_COLUMNS))]
        rows += list(zip(labels, np.concatenate(made, axis=1), strict=True))
        write_image(out, contact_sheet(rows, max_columns=SHEET_COLUMNS, cell=96 * render.scale))

    def _picked(self, recording: Recording, render: RenderOptions) -> np.ndarray:
        positions = set(pick_evenly(recording.num_frames, SHEET_COLUMNS))
        with self._open(recording.path, render, recording.num_frames) as reader:
            return np.stack([frame for position, frame in enumerate(reader) if position in positions])

    def _looped(self, recording: Recording, render: RenderOptions) -> Iterator[np.ndarray]:
        """Give a video's frames again and again, for showing it beside one that may be longer."""
        while True:
            with self._open(recording.path, render, recording.num_frames) as reader:
                yield from reader


def _render_options(options: dict[str, Any]) -> RenderOptions:
    unknown = sorted(options.keys() - {field.name for field in fields(RenderOptions)})
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}{nearest(unknown[0], [field.name for field in fields(RenderOptions)])}")
    return RenderOptions(**options)


def _checked_output(out: str | Path | None, inputs: Sequence[str | Path]) -> Path | None:
    return None if out is None else check_output(Path(out), inputs=[Path(path) for path in inputs])
