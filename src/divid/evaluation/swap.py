"""Swaps of held-out clips: which pairs, and what comes out, to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image

from divid.arrays import video_to_frames
from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.data.module import middle_video
from divid.errors import DatasetError
from divid.randomness import make_generator
from divid.types import Codes, Disentangler
from divid.video import contact_sheet

Pair = tuple[int, int]
"""(A, whose appearance is taken; B, whose motion is)."""


def draw_pairs(clips: ClipDataset, num_pairs: int, seed: int = 0) -> list[Pair]:
    """Draw ordered pairs of clips that differ in every factor in which both are labelled, without repetition.

    Args:
        clips: Clips to draw from; without labels any two differ.
        num_pairs: How many; all there are, if fewer.
        seed: The same seed gives the same pairs.

    Raises:
        DatasetError: No two clips differ in every factor.
    """
    labels = [clips.labels(index) for index in range(len(clips))]
    order = torch.randperm(len(clips) ** 2, generator=make_generator(seed, "swap pairs")).tolist()
    pairs: list[Pair] = []
    for number in order:
        a, b = divmod(number, len(clips))
        if a != b and _differ(labels[a], labels[b]):
            pairs.append((a, b))
        if len(pairs) == num_pairs:
            break
    if not pairs:
        raise DatasetError(f"no two of the {len(clips)} clips differ in every factor, so none can be swapped: prepare more clips")
    return pairs


@torch.no_grad()
def swap_sheet(
    model: Disentangler,
    clips: ClipDataset,
    pairs: Sequence[Pair],
    *,
    num_frames: int,
    sampling: SamplingConfig,
    seed: int = 0,
    title: str | None = None,
) -> Image:
    """Draw three rows a pair: A, B, and A's appearance doing B's motion.

    Args:
        model: On its device, in evaluation mode.
        clips: What the pairs number.
        pairs: From `draw_pairs`.
        num_frames: F.
        sampling: Solver and steps.
        seed: Pair i is sampled with seed + i.
        title: Heading.
    """
    device = next(iter(model.parameters())).device  # type: ignore[attr-defined]
    looks = middle_video(clips, [a for a, _ in pairs], num_frames)
    moves = middle_video(clips, [b for _, b in pairs], num_frames)
    codes = Codes(model.encode(looks.to(device)).static, model.encode(moves.to(device)).dynamic)
    swaps = model.decode(codes, seeds=[seed + i for i in range(len(pairs))], sampling=sampling)
    rows = []
    for (a, b), look, move, swap in zip(pairs, *map(video_to_frames, (looks, moves, swaps)), strict=True):
        rows += [(f"A  {_describe(clips, a)}", look), (f"B  {_describe(clips, b)}", move), ("A's look, B's motion", swap)]
    return contact_sheet(rows, max_columns=num_frames, cell=64, title=title)


def _differ(a: dict[str, str | None], b: dict[str, str | None]) -> bool:
    return all(a[factor] != b[factor] for factor in a if a[factor] is not None and b[factor] is not None)


def _describe(clips: ClipDataset, index: int) -> str:
    known = [label for label in clips.labels(index).values() if label is not None]
    return ", ".join(known) or clips.clip_id(index)
