"""Round shapes on a picture whose sides have length 1: what the scenery and the figure are drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

from divid.data.puppets.looks import Color

Point = tuple[float, float]
Circle = tuple[float, float, float]
"""x, y and radius."""

_SAMPLES = [(math.cos(2 * math.pi * k / 24), math.sin(2 * math.pi * k / 24)) for k in range(24)]


def convex_hull(points: Iterable[Point]) -> list[Point]:
    """Give the corners of the smallest convex shape around points (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    halves: list[list[Point]] = []
    for sequence in (ordered, ordered[::-1]):
        half: list[Point] = []
        for x, y in sequence:
            while len(half) > 1:
                (ax, ay), (bx, by) = half[-2:]
                if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                    break
                half.pop()
            half.append((x, y))
        halves.append(half[:-1])
    return halves[0] + halves[1]


class Pen:
    """Draws on an image in coordinates from 0 to 1.

    Args:
        image: An RGB picture; colours with a fourth number are blended into it.
    """

    def __init__(self, image: Image.Image) -> None:
        self.scale = image.width
        self._draw = ImageDraw.Draw(image, "RGBA")

    def polygon(self, points: Sequence[Point], color: Color | tuple[int, int, int, int]) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color | tuple[int, int, int, int]) -> None:
        """Fill an upright ellipse."""
        s = self.scale
        self._draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=color)

    def circle(self, x: float, y: float, radius: float, color: Color | tuple[int, int, int, int]) -> None:
        """Fill a circle."""
        self.ellipse(x, y, radius, radius, color)

    def rectangle(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill an upright rectangle."""
        s = self.scale
        self._draw.rectangle((left * s, top * s, right * s, bottom * s), fill=color)

    def capsule(self, first: Circle, second: Circle, color: Color) -> None:
        """Fill the tapered stroke with round ends between two circles."""
        (px, py, pr), (qx, qy, qr) = first, second
        length = math.hypot(qx - px, qy - py)
        if length > 1e-6:
            nx, ny = (py - qy) / length, (qx - px) / length
            corners = [
                (px + nx * pr, py + ny * pr),
                (qx + nx * qr, qy + ny * qr),
                (qx - nx * qr, qy - ny * qr),
                (px - nx * pr, py - ny * pr),
            ]
            self.polygon(corners, color)
        self.circle(px, py, pr, color)
        self.circle(qx, qy, qr, color)

    def stroke(self, points: Sequence[Point], radius: float, color: Color) -> None:
        """Draw a line of even width with round ends and joints."""
        for (px, py), (qx, qy) in pairwise(points):
            self.capsule((px, py, radius), (qx, qy, radius), color)

    def hull(self, circles: Iterable[Circle], color: Color) -> None:
        """Fill the smallest convex shape around circles."""
        self.polygon(convex_hull((x + r * cos, y + r * sin) for x, y, r in circles for cos, sin in _SAMPLES), color)
