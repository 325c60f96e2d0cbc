"""Any folder of videos or of folders of images, labelled by folder names, by a table, or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from divid.data.sources.base import Item, Recording, SourceOptions, held_out, open_recording, require_folder
from divid.data.sources.labels import Label, Layout, read_labels_csv
from divid.data.sources.listing import find_recordings, recording_ids
from divid.errors import ConfigError, InputError

logger = logging.getLogger("divid")


class FolderSource:
    """Every video under a folder, and every folder of images, is a recording.

    Args:
        folder: Where to look, subfolders included.
        options: Size, channels, fit, and where labels come from.

    Raises:
        InputError: The folder is missing.
        ConfigError: Two origins of labels are given, or the layout is wrong.
    """

    name = "folder"
    static_factors: tuple[str, ...] = ()
    dynamic_factors: tuple[str, ...] = ()

    def __init__(self, folder: Path | None, options: SourceOptions) -> None:
        self.folder = require_folder(folder, self.name)
        self.options = options
        origins = [options.labels == "folders", options.layout is not None, options.labels_csv is not None]
        if sum(origins) > 1:
            raise ConfigError("labels come from --labels folders, from --layout or from --labels-csv: give one of them")
        self.layout = None if options.layout is None else Layout(options.layout)

    def items(self) -> list[Item]:
        """List the recordings in natural order.

        Raises:
            InputError: There are none, or the table of labels is wrong.
        """
        paths = find_recordings(self.folder)
        table: dict[Path, Label] = {}
        if self.options.labels_csv is not None:
            table, self.static_factors, self.dynamic_factors = read_labels_csv(self.options.labels_csv, self.folder)
            # A file that a person names is read whatever its ending.
            known = {path.resolve() for path in paths}
            named = [path for path in table if path.resolve() not in known]
            for path in named:
                if not path.is_relative_to(self.folder):
                    text = f"names {path}, which is not under {self.folder}"
                    raise InputError(f"{self.options.labels_csv}: {text}: name files relative to that folder")
            paths += named
            table = {path.resolve(): label for path, label in table.items()}
        elif self.layout is not None:
            self.static_factors, self.dynamic_factors = self.layout.static_factors, self.layout.dynamic_factors
        elif self.options.labels == "folders":
            self.dynamic_factors = ("action",)
        if not paths:
            raise InputError(f"{self.folder} holds no video and no folder of images: check --source")
        ids = recording_ids(paths, self.folder)
        labels = [table.get(path.resolve()) or Label(self._path_labels(path)) for path in paths]
        self._report_unlabelled(labels)
        undecided = [name for name, label in zip(ids, labels, strict=True) if label.split is None]
        test = held_out(undecided, self.options.test_fraction)
        return [
            Item(
                id=name,
                paths=(path,),
                labels=label.classes,
                split=label.split or ("test" if name in test else "train"),
                trial=label.trial,
            )
            for name, path, label in zip(ids, paths, labels, strict=True)
        ]

    def load(self, item: Item) -> tuple[np.ndarray, float]:
        """Read one recording; see `Source.load`."""
        recording = self.stream(item)
        return np.concatenate(list(recording.chunks)), recording.fps

    def stream(self, item: Item) -> Recording:
        """Open one recording; see `StreamingSource.stream`."""
        return open_recording(item.paths[0], self.options, fit=self.options.fit)

    def _path_labels(self, path: Path) -> dict[str, str]:
        inside = path.relative_to(self.folder)
        if self.layout is not None:
            return self.layout.match(inside if path.is_dir() else inside.with_suffix(""))
        if self.options.labels == "folders" and len(inside.parts) > 1:
            return {"action": inside.parts[-2]}
        return {}

    def _report_unlabelled(self, labels: list[Label]) -> None:
        num_unlabelled = sum(not label.classes for label in labels)
        if num_unlabelled and (self.static_factors or self.dynamic_factors):
            logger.warning("%d of %d recordings have no label", num_unlabelled, len(labels))
