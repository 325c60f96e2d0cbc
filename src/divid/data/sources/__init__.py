"""The visible table of every source of clips: name -> class."""

from __future__ import annotations

from divid.data.sources.base import Item, PosedSource, Recording, Source, SourceOptions, StreamingSource
from divid.data.sources.folder import FolderSource
from divid.data.sources.mead import MeadSource
from divid.data.sources.puppets import PuppetsSource
from divid.data.sources.sprites import SpritesSource
from divid.data.sources.utd_mhad import UtdMhadSource
from divid.data.sources.weizmann import WeizmannSource
from divid.errors import ConfigError, nearest

SOURCES: dict[str, type] = {
    "folder": FolderSource,
    "utd_mhad": UtdMhadSource,
    "mead": MeadSource,
    "weizmann": WeizmannSource,
    "sprites": SpritesSource,
    "puppets": PuppetsSource,
}

__all__ = ["SOURCES", "Item", "PosedSource", "Recording", "Source", "SourceOptions", "StreamingSource", "find_source"]


def find_source(name: str) -> type:
    """Give the class of a source; hyphens may stand for underscores.

    Args:
        name: A key of `SOURCES`.

    Raises:
        ConfigError: There is none of that name.
    """
    key = name.replace("-", "_")
    if key not in SOURCES:
        spelled = [source.replace("_", "-") for source in SOURCES]  # as help and pages have them
        raise ConfigError(f"unknown source {name!r}{nearest(key.replace('_', '-'), spelled)}")
    return SOURCES[key]
