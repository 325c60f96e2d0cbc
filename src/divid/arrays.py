"""The one place where uint8 frames become video tensors and video tensors become frames."""

from __future__ import annotations

import numpy as np
import torch

from divid.types import Video


def frames_to_video(frames: np.ndarray) -> Video:
    """Turn frames into a clip of one, in [-1, 1].

    Args:
        frames: uint8, F H W C.

    Returns:
        float32, 1 F C H W.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1.0).unsqueeze(0)


def video_to_frames(video: Video) -> np.ndarray:
    """Turn clips into frames, rounding to the nearest level; values outside [-1, 1] are clipped.

    Args:
        video: B F C H W.

    Returns:
        uint8, B F H W C.
    """
    levels = ((video.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()
