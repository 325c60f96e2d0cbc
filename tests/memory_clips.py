"""Clips in memory, without a prepared data set."""

from __future__ import annotations


class ClipsInMemory:
    """Clips in memory, with the part of `ClipDataset` that training uses."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def num_frames(self, index):
        return len(self.clips[index])

    def frames(self, index, positions=None):
        return self.clips[index] if positions is None else self.clips[index][positions]
