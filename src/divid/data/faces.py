"""One stable square around the face for a whole clip, found by OpenCV's Haar cascade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from divid.errors import InputError, MissingExtraError

DETECTION_SIDE = 400
"""Longer side of the pictures in which faces are searched; larger ones are shrunk first, for speed."""
SMALLEST_FACE = 0.12
"""Smallest face that is searched, as a share of the picture's shorter side."""
MARGIN = 1.45
"""Side of the square over that of the detected box, which ends at the eyebrows and the lip."""
MAX_SHIFT = 0.3
"""Distance from the clip's median box, in sides of it, above which a detection is an outlier."""
MAX_SCALE = 1.35
"""Ratio to the median box's side above which a detection is an outlier."""
LEAST_SHARE = 0.2
"""Share of the frames that must agree on a face."""

Boxes = np.ndarray
"""Detections of one frame: (count, 3), centre x, centre y and side, in pixels."""


@dataclass(frozen=True)
class FaceTrack:
    """Where the face is in a clip.

    Args:
        left: First column of the square.
        top: First row.
        side: Height and width; the square lies inside of the picture.
        num_found: Frames in which the face was found there.
        num_checked: Frames in which it was searched.
    """

    left: int
    top: int
    side: int
    num_found: int
    num_checked: int


def find_face(frames: Iterable[np.ndarray], what: str) -> FaceTrack:
    """Find the face of a clip.

    The median over the frames' largest detections is taken, then each frame's detection nearest to it, and the median over those
    that lie close: a background that looks like a face in some frames moves nothing.

    Args:
        frames: Grey or RGB frames, uint8 "H W C", all or evenly picked.
        what: Name of the clip, for messages.

    Raises:
        InputError: No face is found in at least a fifth of the frames.
        MissingExtraError: OpenCV is not installed.
    """
    detections, shape = [], (0, 0)
    for frame in frames:
        shape = (frame.shape[0], frame.shape[1])
        detections.append(detect(frame))
    found = [boxes for boxes in detections if len(boxes)]
    if not found:
        raise InputError(f"{what}: no face was found in any of {len(detections)} frames: faces must be seen from the front")
    middle = np.median([boxes[boxes[:, 2].argmax()] for boxes in found], axis=0)
    near = [box for boxes in found if (box := _nearest(boxes, middle)) is not None]
    if len(near) < LEAST_SHARE * len(detections):
        raise InputError(f"{what}: a face was found in the same place in only {len(near)} of {len(detections)} frames")
    centre_x, centre_y, side = np.median(near, axis=0)
    square = min(round(float(side) * MARGIN), *shape)
    left = int(np.clip(round(float(centre_x) - square / 2), 0, shape[1] - square))
    top = int(np.clip(round(float(centre_y) - square / 2), 0, shape[0] - square))
    return FaceTrack(left, top, square, len(near), len(detections))


def detect(frame: np.ndarray) -> Boxes:
    """Find the faces of one frame.

    Args:
        frame: Grey or RGB, uint8 "H W C".
    """
    cv2, cascades = _opencv(), _cascades()
    grey = frame[..., 0] if frame.shape[2] == 1 else cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, DETECTION_SIDE / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = max(24, round(SMALLEST_FACE * min(grey.shape)))
    for cascade in cascades:
        corners = np.array(cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest)))
        if len(corners):
            left, top, width, height = corners.astype(np.float64).T
            return np.stack([left + width / 2, top + height / 2, (width + height) / 2], axis=1) / scale
    return np.zeros((0, 3))


def require_opencv() -> None:
    """Check that faces can be searched.

    Raises:
        MissingExtraError: OpenCV is not installed, or is a version without the cascade.
    """
    _opencv()


@lru_cache(maxsize=1)
def _opencv() -> Any:
    try:
        cv2: Any = import_module("cv2")
    except ImportError:
        cv2 = None
    if not hasattr(cv2, "CascadeClassifier"):
        raise MissingExtraError("opencv-python-headless (at least 4.13, below 5)", "faces", "finding faces")
    # Several worker processes share the processors already.
    cv2.setNumThreads(1)
    return cv2


@lru_cache(maxsize=1)
def _cascades() -> list[Any]:
    """Load the cascades; the second one is asked where the first finds nothing."""
    cv2 = _opencv()
    return [
        cv2.CascadeClassifier(cv2.data.haarcascades + name)
        for name in ("haarcascade_frontalface_default.xml", "haarcascade_frontalface_alt2.xml")
    ]


def _nearest(boxes: Boxes, middle: np.ndarray) -> np.ndarray | None:
    """Give the detection closest to the clip's, or None if all are outliers."""
    distance = np.hypot(boxes[:, 0] - middle[0], boxes[:, 1] - middle[1]) / middle[2]
    ratio = np.maximum(boxes[:, 2] / middle[2], middle[2] / boxes[:, 2])
    allowed = (distance <= MAX_SHIFT) & (ratio <= MAX_SCALE)
    return boxes[np.where(allowed, distance, np.inf).argmin()] if allowed.any() else None
