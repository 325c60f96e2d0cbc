"""A puppet's head: a ball with a face, hair that turns with it, hats and glasses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from divid.data.puppets.looks import Color, Look, mix
from divid.data.puppets.pen import Pen, Point

INK: Color = (58, 38, 48)
"""Outlines are the thing's own colour, darkened towards this."""

OUTLINE = 0.006
"""Width of an outline in sides of the picture."""

_LOW_HAIR = ("bob", "long", "pigtails")
_DOMES = {
    # axis as (left, up, forward), half angle in degrees, radius over the head's
    "cap": ((0.0, 0.98, 0.12), 74, 1.06),
    "beanie": ((0.0, 0.96, -0.25), 78, 1.1),
    "buzz": ((0.0, 0.85, -0.53), 84, 1.0),
}
_HAIR_DOME = ((0.2, 0.86, -0.52), 87, 1.07)


def darker(color: Color) -> Color:
    """Give the colour of an outline."""
    return mix(color, INK, 0.5)


@dataclass(frozen=True)
class Head:
    """A head in one frame.

    Args:
        x: Centre in the picture.
        y: Centre in the picture.
        radius: Radius of the ball.
        axes: Left, up and forward as rows of picture x, y and depth.
    """

    x: float
    y: float
    radius: float
    axes: np.ndarray

    def direction(self, left: float, up: float, forward: float) -> tuple[float, float, float]:
        """Turn a direction of the head into picture x, y and depth."""
        (lx, ly, lz), (ux, uy, uz), (fx, fy, fz) = self.axes.tolist()
        return left * lx + up * ux + forward * fx, left * ly + up * uy + forward * fy, left * lz + up * uz + forward * fz

    def point(self, left: float, up: float, forward: float) -> tuple[float, float, float]:
        """Give picture x, y and depth (in head radii) of a place given in head radii."""
        x, y, z = self.direction(left, up, forward)
        return self.x + self.radius * x, self.y + self.radius * y, z

    @property
    def facing(self) -> float:
        """How far the face is turned to the viewer: 1 fully, 0 in profile, -1 away."""
        return float(self.axes[2, 2])

    def dome(self, left: float, up: float, forward: float, half_angle: float, grow: float) -> list[Point]:
        """Give the outline of the visible part of a cap on the ball.

        Args:
            left: Leftward part of the cap's axis.
            up: Upward part of the cap's axis.
            forward: Forward part of the cap's axis.
            half_angle: From the axis to the cap's rim, in degrees, at most 90.
            grow: Radius over the head's.
        """
        axis = np.array(self.direction(left, up, forward))
        axis /= np.linalg.norm(axis)
        first = np.cross(axis, self.direction(0.0, -forward, up))
        first /= np.linalg.norm(first)
        second = np.cross(axis, first)
        turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)[:, None]
        tilt = math.radians(half_angle)
        rim = (axis * math.cos(tilt) + math.sin(tilt) * (first * np.cos(turn) + second * np.sin(turn))).tolist()
        outline = _visible_cap(rim, axis.tolist())
        return [(self.x + self.radius * grow * x, self.y + self.radius * grow * y) for x, y in outline]


def _visible_cap(rim: list[list[float]], axis: list[float]) -> list[Point]:
    """Give the outline, on the unit disc, of the part of a cap that faces the viewer: front rim, closed along the disc's edge."""
    seen = [z >= 0 for _, _, z in rim]
    if all(seen):
        return [(x, y) for x, y, _ in rim]
    if not any(seen):
        return []
    start = next(k for k in range(len(rim)) if seen[k] and not seen[k - 1])
    run = []
    for k in range(len(rim)):
        if not seen[(start + k) % len(rim)]:
            break
        run.append(rim[(start + k) % len(rim)])
    begin, end = math.atan2(run[-1][1], run[-1][0]), math.atan2(run[0][1], run[0][0])
    sweep = (end - begin) % (2 * math.pi)
    if (math.atan2(axis[1], axis[0]) - begin) % (2 * math.pi) > sweep:
        sweep -= 2 * math.pi
    edge = [(math.cos(begin + sweep * k / 14), math.sin(begin + sweep * k / 14)) for k in range(15)]
    return [(x, y) for x, y, _ in run] + edge


def _ball(pen: Pen, head: Head, place: tuple[float, float, float], size: float, color: Color) -> None:
    x, y, _ = head.point(*place)
    pen.circle(x, y, head.radius * size + OUTLINE, darker(color))
    pen.circle(x, y, head.radius * size, color)


def hangs_behind(head: Head, look: Look) -> bool:
    """Tell whether hair falls down behind the shoulders as the viewer sees it, so that it comes before the torso."""
    return look.hair_style in _LOW_HAIR and head.facing >= -0.15


def draw_back_hair(pen: Pen, head: Head, look: Look) -> None:
    """Draw the hair that hangs or stands off the head: before the head or, seen from behind, after it."""
    r, color = head.radius, look.hair
    if look.hair_style in _LOW_HAIR:
        low = {"bob": -0.75, "long": -1.75, "pigtails": -0.35}[look.hair_style]
        places = [(0.0, 0.02, -0.12, 1.1), *((s * 0.66, low * k, -0.34, 0.44) for s in (-1, 1) for k in (0.5, 1.0))]
        circles = [(*head.point(a, b, c)[:2], size * r) for a, b, c, size in places]
        pen.hull([(x, y, radius + OUTLINE) for x, y, radius in circles], darker(color))
        pen.hull(circles, color)
    elif look.hair_style == "ponytail":
        start, middle, tip = (head.point(*place) for place in ((0, 0.45, -0.95), (0, 0.05, -1.5), (0, -0.95, -1.45)))
        for grow, shade in ((OUTLINE, darker(color)), (0.0, color)):
            pen.capsule((*start[:2], 0.24 * r + grow), (*middle[:2], 0.34 * r + grow), shade)
            pen.capsule((*middle[:2], 0.34 * r + grow), (*tip[:2], 0.14 * r + grow), shade)
        pen.circle(*start[:2], 0.22 * r, look.accent)
    elif look.hair_style == "bun":
        _ball(pen, head, (0.0, 0.98, -0.6), 0.46, color)
    elif look.hair_style == "afro":
        ring = [(1.12 * math.sin(k * 0.628), 0.22 + 1.12 * math.cos(k * 0.628), -0.15) for k in range(10)]
        for shade, grow in ((darker(color), OUTLINE / r), (color, 0.0)):
            for place in [*ring, (0.0, 0.22, -0.15)]:
                x, y, _ = head.point(*place)
                pen.circle(x, y, r * ((1.1 if place[0] == 0 and place[1] < 1 else 0.42) + grow), shade)


def _draw_face(pen: Pen, head: Head, look: Look) -> None:
    r, skin = head.radius, look.skin
    for side in (-1, 1):
        x, y, z = head.point(side * 0.58, -0.26, 0.77)
        if z > 0.1:
            pen.ellipse(x, y, 0.2 * r * max(z, 0.4), 0.15 * r, (*mix(skin, (232, 84, 84), 0.62), 120))
        x, y, z = head.point(side * 0.36, 0.06, 0.93)
        if z > 0.1:
            wide = 0.135 * r * max(z, 0.45)
            if sum(skin) < 420:
                pen.ellipse(x, y, 1.5 * wide, 0.235 * r, mix(skin, (255, 246, 236), 0.8))
            pen.ellipse(x, y, wide, 0.19 * r, (46, 32, 42))
            pen.circle(x - 0.3 * wide, y - 0.06 * r, 0.045 * r, (255, 250, 244))
            brow = [head.point(side * a, b, 0.86)[:2] for a, b in ((0.2, 0.34), (0.36, 0.38), (0.52, 0.33))]
            pen.stroke(brow, 0.035 * r, mix(look.hair, INK, 0.35))
    x, y, z = head.point(0.0, -0.12, 1.0)
    if z > -0.25:
        pen.circle(x, y, 0.1 * r, mix(skin, (176, 76, 60), 0.28))
    mouth = [head.point(a, -0.4 + 0.55 * a * a, 0.87) for a in (-0.26, -0.13, 0.0, 0.13, 0.26)]
    seen = [(x, y) for x, y, z in mouth if z > 0.08]
    if len(seen) > 1:
        pen.stroke(seen, 0.042 * r, mix(skin, (132, 36, 48), 0.75))


def _draw_glasses(pen: Pen, head: Head) -> None:
    r = head.radius
    for side in (-1, 1):
        ring = [
            head.point(side * 0.38 + 0.27 * math.cos(t), 0.05 + 0.27 * math.sin(t), 0.98)
            for t in np.linspace(0, 2 * np.pi, 13).tolist()
        ]
        if min(z for _, _, z in ring) > 0:
            pen.stroke([(x, y) for x, y, _ in ring], 0.035 * r, INK)
    bridge = [head.point(a, 0.08, 1.02) for a in (-0.12, 0.12)]
    if bridge[0][2] > 0:
        pen.stroke([(x, y) for x, y, _ in bridge], 0.035 * r, INK)


def _draw_ear(pen: Pen, head: Head, look: Look, side: int) -> None:
    x, y, _ = head.point(side * 0.98, -0.05, -0.05)
    pen.circle(x, y, 0.2 * head.radius + OUTLINE, darker(look.skin))
    pen.circle(x, y, 0.2 * head.radius, look.skin)
    pen.circle(x, y, 0.09 * head.radius, mix(look.skin, (176, 76, 60), 0.3))


def _draw_top(pen: Pen, head: Head, look: Look) -> None:
    """Draw what covers the skull: hair, cap or beanie."""
    r, style = head.radius, look.hair_style
    if style == "spiky":
        for left, up, forward in (
            (0, 1, 0.3),
            (-0.6, 0.85, 0.2),
            (0.6, 0.85, 0.2),
            (-0.95, 0.4, -0.1),
            (0.95, 0.4, -0.1),
            (0, 0.8, -0.7),
            (0, 0.3, -1),
        ):
            x, y, _ = head.point(1.45 * left, 1.4 * up, 1.4 * forward)
            bx, by, _ = head.point(0.6 * left, 0.6 * up, 0.6 * forward)
            nx, ny = (by - y) * 0.62, (x - bx) * 0.62
            pen.polygon([(bx + nx, by + ny), (x, y), (bx - nx, by - ny)], look.hair)
    if style in ("cap", "beanie") or style not in _DOMES:
        shell = head.dome(*_HAIR_DOME[0], *_HAIR_DOME[1:])
        if len(shell) > 2:
            pen.polygon(shell, look.hair)
    if style in _DOMES:
        axis, angle, grow = _DOMES[style]
        color = mix(look.hair, look.skin, 0.3) if style == "buzz" else look.accent
        shell = head.dome(*axis, angle, grow)
        if len(shell) > 2:
            pen.polygon(shell, color)
        if style == "cap":
            brim = [
                head.point(*place)
                for place in ((-0.7, 0.3, 0.75), (-0.5, 0.3, 1.35), (0, 0.32, 1.55), (0.5, 0.3, 1.35), (0.7, 0.3, 0.75))
            ]
            if head.facing > -0.2:
                pen.hull([(x, y, 0.08 * r) for x, y, _ in brim], darker(color))
                pen.hull([(x, y - 0.04 * r, 0.07 * r) for x, y, _ in brim], mix(color, INK, 0.12))
        elif style == "beanie":
            _ball(pen, head, (0.0, 1.22, -0.3), 0.24, mix(color, (255, 250, 240), 0.6))
    else:
        x, y, _ = head.point(-0.2, 0.86, -0.2)
        pen.ellipse(x - 0.12 * r, y, 0.34 * r, 0.12 * r, (*mix(look.hair, (255, 236, 214), 0.5), 90))


def draw_head(pen: Pen, head: Head, look: Look) -> None:
    """Draw the head with its face and hair.

    Args:
        pen: Where to draw.
        head: Where the head is and how it is turned.
        look: Skin, hair, glasses and hats.
    """
    r, skin = head.radius, look.skin
    is_away = head.facing < -0.15 and look.hair_style in (*_LOW_HAIR, "ponytail", "bun")
    if not is_away and look.hair_style not in _LOW_HAIR:
        draw_back_hair(pen, head, look)
    has_ears = look.hair_style not in ("bob", "long", "afro")
    near = 1 if head.axes[0, 2] > 0 else -1
    if has_ears:
        for side in (-1, 1):
            if side != near or abs(head.axes[0, 2]) < 0.3:
                _draw_ear(pen, head, look, side)
    pen.circle(head.x, head.y, r + OUTLINE, darker(skin))
    pen.circle(head.x, head.y, r, skin)
    if look.has_beard:
        chin = head.dome(0.0, -0.78, 0.62, 52, 1.02)
        if len(chin) > 2:
            pen.polygon(chin, mix(look.hair, skin, 0.12))
    if head.facing > -0.3:
        _draw_face(pen, head, look)
    if look.has_glasses:
        _draw_glasses(pen, head)
    _draw_top(pen, head, look)
    if has_ears and abs(head.axes[0, 2]) >= 0.3:
        _draw_ear(pen, head, look, near)
    if is_away:
        draw_back_hair(pen, head, look)
