"""Frames to frames: sizes by area averaging, grey and RGB."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@lru_cache(maxsize=32)
def area_matrix(length: int, size: int) -> np.ndarray:
    """Give the (size, length) matrix that averages a line of pixels over `size` equal stretches, parts of pixels included.

    Args:
        length: Pixels of the line.
        size: Pixels of the result.
    """
    edges = np.arange(size + 1) * (length / size)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix = np.clip(overlap, 0, None) * (size / length)
    return matrix.astype(np.float32)


def area_resize(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize frames (F, H, W, C) to (F, size, size, C) by area averaging, as float32 in the range of the input.

    Args:
        frames: Square or not; a frame that is not square is stretched.
        size: Side of the result.
    """
    height, width = frames.shape[1:3]
    rows, columns = area_matrix(height, size), area_matrix(width, size)
    result = np.empty((len(frames), size, size, frames.shape[3]), dtype=np.float32)
    for f, frame in enumerate(frames):
        for c in range(frames.shape[3]):
            result[f, :, :, c] = rows @ frame[:, :, c].astype(np.float32) @ columns.T
    return result


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Round float frames in [0, 255] to uint8.

    Args:
        frames: Any shape.
    """
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def resize_uint8(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 frames to a square by area averaging; frames of that size pass unchanged.

    Args:
        frames: (F, H, W, C).
        size: Side of the result.
    """
    return frames if frames.shape[1:3] == (size, size) else to_uint8(area_resize(frames, size))


def to_channels(frames: np.ndarray, channels: int) -> np.ndarray:
    """Turn grey frames to RGB by repeating, or RGB to grey by its luma (BT.601).

    Args:
        frames: (F, H, W, 1) or (F, H, W, 3), uint8.
        channels: Channels of the result, 1 or 3.
    """
    if frames.shape[-1] == channels:
        return frames
    if channels == 3:
        return np.repeat(frames, 3, axis=-1)
    return to_uint8(frames.astype(np.float32) @ LUMA_WEIGHTS)[..., None]
