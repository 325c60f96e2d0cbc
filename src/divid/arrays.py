"""The one place where uint8 frames become video tensors, video tensors become frames, and the two are compared."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divid.types import Video


def frames_to_video(frames: np.ndarray | Tensor) -> Video:
    """Turn frames into clips in [-1, 1].

    Args:
        frames: uint8, F H W C for a clip or B F H W C for several; a tensor stays on its device.

    Returns:
        float32, B F C H W.
    """
    pixels = torch.from_numpy(np.array(frames)) if isinstance(frames, np.ndarray) else frames
    video = pixels.movedim(-1, -3).float().div_(127.5).sub_(1)
    return video if video.ndim == 5 else video.unsqueeze(0)


def video_to_frames(video: Video) -> np.ndarray:
    """Turn clips into frames, rounding to the nearest level; values outside [-1, 1] are clipped.

    Args:
        video: B F C H W.

    Returns:
        uint8, B F H W C.
    """
    levels = ((video.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()


def peak_signal_to_noise(video: Video, reference: Video) -> Float[Tensor, " batch"]:
    """Give the PSNR of each clip in dB: 10 log10(4 / MSE), the range being 2.

    Args:
        video: Made clips.
        reference: Real ones.
    """
    error = (video.clamp(-1, 1) - reference).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))
