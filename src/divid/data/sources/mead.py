"""MEAD: talking faces by subject and emotion, cropped to the face (Wang et al., ECCV 2020); also folders of people in images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from divid.data.faces import find_face, require_opencv
from divid.data.sources.base import CHUNK_FRAMES, Item, Recording, SourceOptions, held_out, require_folder
from divid.data.sources.listing import find_recordings, recording_ids
from divid.errors import InputError

EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
OTHER_VIEWS = ("down", "left_30", "left_60", "right_30", "right_60", "top")
"""Cameras that do not see the face from the front: their recordings are left out."""
MAX_CHECKED_FRAMES = 100
"""About so many frames of a recording are searched for the face, evenly picked."""


class MeadSource:
    """Recordings of faces: videos, or folders of images.

    Three layouts are read: the release's `<subject>/video/front/<emotion>/level_<n>/NNN.mp4`; folders of extracted images,
    with the subject first and the emotion somewhere in the path; and, where no emotion is named, `.../<subject>/*.jpg`,
    unlabelled in motion.

    Args:
        folder: Where to look, subfolders included.
        options: Size, channels, and the share held out.

    Raises:
        InputError: The folder is missing.
        MissingExtraError: OpenCV is not installed.
    """

    name = "mead"
    static_factors: tuple[str, ...] = ("subject",)
    dynamic_factors: tuple[str, ...] = ("emotion",)

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        self.folder = require_folder(folder, self.name)
        self.options = options
        require_opencv()

    def items(self) -> list[Item]:
        """List the recordings seen from the front.

        Raises:
            InputError: There are none.
        """
        paths = [path for path in find_recordings(self.folder) if not set(self._parts(path)) & set(OTHER_VIEWS)]
        if not paths:
            raise InputError(f"{self.folder} holds no video and no folder of images of a face seen from the front")
        ids = recording_ids(paths, self.folder)
        test = held_out(ids, self.options.test_fraction)
        items = [self._item(name, path, "test" if name in test else "train") for name, path in zip(ids, paths, strict=True)]
        if not any("emotion" in item.labels for item in items):
            self.dynamic_factors = ()
        return items

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Read one recording; see `Source.load`."""
        recording = self.stream(item)
        return np.concatenate(list(recording.chunks)), recording.fps

    def stream(self, item: Item) -> Recording:
        """Find the face, then open the recording anew, cropped; see `StreamingSource.stream`."""
        from divid.video import fit_frame, open_video

        path = item.paths[0]
        with open_video(path) as reader:
            step = max(1, round((reader.num_frames or 1) / MAX_CHECKED_FRAMES))
            face = find_face((frame for place, frame in enumerate(reader) if place % step == 0), str(path))
        rows, columns = slice(face.top, face.top + face.side), slice(face.left, face.left + face.side)
        opened = open_video(path, channels=self.options.channels)

        def chunks() -> Iterator[np.ndarray]:
            with opened:
                for chunk in opened.chunks(CHUNK_FRAMES):
                    yield np.stack([fit_frame(frame[rows, columns], self.options.image_size, "stretch") for frame in chunk])

        details = {
            "face_box": [face.left, face.top, face.side, face.side],
            "num_frames_with_face": face.num_found,
            "num_frames_searched": face.num_checked,
        }
        return Recording(chunks(), opened.fps, details)

    def _parts(self, path: Path) -> tuple[str, ...]:
        inside = path.relative_to(self.folder)
        return tuple(part.lower() for part in (inside if path.is_dir() else inside.parent).parts)

    def _item(self, name: str, path: Path, split: str) -> Item:
        parts = self._parts(path)
        emotions = [part for part in parts if part in EMOTIONS]
        item = Item(id=name, paths=(path,), labels={}, split=split)
        if emotions:
            # A folder given as --source may be one subject's own.
            is_subject_folder = parts[0] in (*EMOTIONS, "video")
            subject = self.folder.resolve().name if is_subject_folder else path.relative_to(self.folder).parts[0]
            trial = int(path.stem) if path.stem.isdecimal() else None
            return replace(item, labels={"subject": subject, "emotion": emotions[0]}, trial=trial)
        holder = path if path.is_dir() else path.parent
        return replace(item, labels={"subject": holder.resolve().name})
