"""Rank the clips of a folder by how much they look, and how much they move, like one of them.

    python examples/find_similar.py MODEL FOLDER QUERY.mp4

Static tokens compare who and where; dynamic tokens, as mean and spread over the frames, compare what happens.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from divid import Codes, DividPipeline
from divid.errors import DividError, VideoReadError
from divid.video import is_video_like


def motion_summary(codes: Codes) -> torch.Tensor:
    """Describe a motion of any length in one vector: mean and standard deviation of its tokens.

    Args:
        codes: Codes of one clip.
    """
    tokens = codes.dynamic[0]
    return torch.cat([tokens.mean(0), tokens.std(0, correction=0)])


def main(model: str, folder: str, query: str) -> None:
    """Print the clips, the most similar look first.

    Args:
        model: A run folder, a model folder or a Hub id.
        folder: The clips.
        query: The clip they are compared with.
    """
    pipeline = DividPipeline.from_pretrained(model)
    wanted = pipeline.encode(query).codes
    rows = []
    for path in sorted(Path(folder).iterdir()):
        if not is_video_like(path):
            continue
        try:
            codes = pipeline.encode(path).codes
        except VideoReadError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        look = torch.cosine_similarity(wanted.static[0], codes.static[0], dim=0).item()
        motion = torch.cosine_similarity(motion_summary(wanted), motion_summary(codes), dim=0).item()
        rows.append((look, motion, path.name))
    print("look   motion clip")
    for look, motion, name in sorted(rows, reverse=True):
        print(f"{look:6.3f} {motion:6.3f} {name}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except DividError as error:
        sys.exit(str(error))
