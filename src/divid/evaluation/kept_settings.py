"""Settings of `divid solvers` that were measured before, kept in a folder so that a command that was broken off goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from divid.config import to_dict
from divid.errors import ConfigError
from divid.evaluation.solvers import Measured, Setting
from divid.json_files import read_json, write_json
from divid.outputs import describe, write_image


@dataclass
class KeptSettings:
    """Finished settings in a folder: NAME.json with the numbers and what they were made with, NAME.png with the first swaps.

    Args:
        folder: Where they are; it exists.
        made_with: All that the numbers depend on besides model and sampling, as JSON has it.
        weights: Digest of each model, by its name in the settings.
        commit: Of the code as it is now. It is noted, not compared.
        commits: Of the settings that were loaded or saved.
    """

    folder: Path
    made_with: Mapping[str, Any]
    weights: Mapping[str, str]
    commit: str | None
    commits: dict[str, None] = field(default_factory=dict)

    def load(self, settings: Sequence[Setting]) -> dict[str, Measured]:
        """Give those settings that are there, by name.

        Args:
            settings: Which are wanted.

        Raises:
            ConfigError: The folder holds settings that were made with other options, or one that is damaged.
        """
        wanted = {self._path(setting): setting for setting in settings}
        kept = {}
        for path in sorted(self.folder.glob("[!.]*.json")):
            setting = wanted.get(path)
            values = read_json(path, ConfigError, self._remedy(path))
            self._check(values.get("made_with", {}), self.made_with if setting is None else self._identity(setting))
            if setting is not None:
                kept[setting.name] = self._read(path, values)
                self._note(values.get("git_commit"))
        return kept

    def save(self, setting: Setting, measured: Measured) -> None:
        """Keep a setting: a file is there whole or not at all, and the numbers only with the picture.

        Args:
            setting: The setting.
            measured: What it gave.

        Raises:
            OutputError: It cannot be written.
        """
        path, shape = self._path(setting), measured.examples.shape
        rows = measured.examples.transpose(0, 2, 1, 3, 4).reshape(shape[0] * shape[2], shape[1] * shape[3], shape[4])
        write_image(path.with_suffix(".png"), rows)
        numbers = {**measured.to_dict(), "examples": list(shape)}
        write_json(path, {"made_with": self._identity(setting), "git_commit": self.commit, "measured": numbers})
        self._note(self.commit)

    def _path(self, setting: Setting) -> Path:
        sampling = setting.sampling
        parts = (setting.model, sampling.solver, str(sampling.num_inference_steps), sampling.resolved_spacing)
        return self.folder / f"{'-'.join(parts)}.json"

    def _identity(self, setting: Setting) -> dict[str, Any]:
        sampling = to_dict(replace(setting.sampling, spacing=setting.sampling.resolved_spacing))
        own = {f"sampling.{key}": value for key, value in sampling.items()}
        return {**self.made_with, "weights": self.weights[setting.model], **own}

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differing = [f"{key} ({before.get(key)} then, {now[key]} now)" for key in now if before.get(key) != now[key]]
        if differing:
            raise ConfigError(
                f"{self.folder} holds settings that were measured with other options: {', '.join(differing)}; "
                "give another --out, or remove that folder to measure them again"
            )

    def _read(self, path: Path, values: Mapping[str, Any]) -> Measured:
        try:
            count, frames, height, width, channels = values["measured"]["examples"]
            with Image.open(path.with_suffix(".png")) as picture:
                pixels = np.asarray(picture).reshape(count, height, frames, width, channels)
            return Measured.from_dict(values["measured"], pixels.transpose(0, 2, 1, 3, 4))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} or its picture is damaged ({describe(error)}): {self._remedy(path)}") from error

    def _note(self, commit: str | None) -> None:
        if commit is not None:
            self.commits[commit] = None

    @staticmethod
    def _remedy(path: Path) -> str:
        return f"remove {path.name}, and the setting is measured again"
