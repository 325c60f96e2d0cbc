"""From a look and a motion to pictures: limbs, clothes, shadow, in the order of their depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from divid.data.puppets.head import OUTLINE, Head, darker, draw_back_hair, draw_head, hangs_behind
from divid.data.puppets.looks import Color, Look, mix
from divid.data.puppets.motion import JOINT_NAMES, SIDES, Motion
from divid.data.puppets.pen import Circle, Pen, Point
from divid.data.puppets.scenery import Scenery, draw_scene

Segment = tuple[Circle, Circle, Color]

_LIGHT: Color = (255, 246, 226)
_SHADE: Color = (66, 44, 84)
_SHORT_SLEEVES = ("short_sleeves", "dungarees", "dress")
_LONG_SLEEVES = ("long_sleeves", "jacket")


def _lerp(first: Point, second: Point, share: float) -> Point:
    return first[0] + (second[0] - first[0]) * share, first[1] + (second[1] - first[1]) * share


class _Figure:
    """One frame of a puppet.

    Args:
        pen: Where to draw.
        look: What it looks like.
        joints: x, y and depth by joint.
        head_axes: The head's axes.
        yaw: Where the chest faces.
    """

    def __init__(self, pen: Pen, look: Look, joints: NDArray[np.float64], head_axes: NDArray[np.float64], yaw: float) -> None:
        self.pen, self.look, self.yaw = pen, look, yaw
        points = joints.tolist()
        self.at: dict[str, Point] = {name: (x, y) for name, (x, y, _) in zip(JOINT_NAMES, points, strict=True)}
        self.depth: dict[str, float] = {name: z for name, (_, _, z) in zip(JOINT_NAMES, points, strict=True)}
        self.head = Head(*self.at["head"], look.body.head_radius, head_axes)

    def draw(self) -> None:
        """Draw all parts from the farthest to the nearest."""
        at, look = self.depth, self.look
        middle = 0.5 * (at["neck"] + at["pelvis"])
        parts: list[tuple[float, Callable[[], None]]] = [
            (0.01 if look.top == "dungarees" else -0.03, self._hips),
            (0.0, self._torso),
            (at["head"] - middle + 0.03, self._head),
        ]
        if hangs_behind(self.head, look):
            parts.append((-0.25, partial(draw_back_hair, self.pen, self.head, look)))
        for side in SIDES:
            arm = 0.5 * at[f"{side}_shoulder"] + 0.25 * (at[f"{side}_elbow"] + at[f"{side}_hand"]) - middle
            raised = at[f"{side}_knee"] - at["pelvis"]
            leg = 0.5 * (raised + at[f"{side}_hip"] - at["pelvis"])
            parts.append((arm + 0.02, partial(self._arm, side)))
            is_before_torso = raised > 0.085 and look.bottom != "skirt"
            parts.append((leg - (0.0 if is_before_torso else 0.3), partial(self._leg, side)))
        for _, part in sorted(parts, key=lambda part: part[0]):
            part()

    def _limb(self, segments: list[Segment], far: float) -> None:
        """Draw joined strokes with one outline around them, shaded towards the lower right and darker where far."""
        segments = [(p, q, mix(color, _SHADE, 0.26 * far)) for p, q, color in segments]
        for (px, py, pr), (qx, qy, qr), color in segments:
            self.pen.capsule((px, py, pr + OUTLINE), (qx, qy, qr + OUTLINE), darker(color))
        for p, q, color in segments:
            self.pen.capsule(p, q, mix(color, _SHADE, 0.12))
        for (px, py, pr), (qx, qy, qr), color in segments:
            p, q = (px - 0.2 * pr, py - 0.12 * pr, 0.76 * pr), (qx - 0.2 * qr, qy - 0.12 * qr, 0.76 * qr)
            self.pen.capsule(p, q, mix(color, _LIGHT, 0.04))

    def _farness(self, joint: str) -> float:
        return min(1.0, max(0.0, -(self.depth[joint] - self.depth["pelvis"]) / 0.05))

    def _arm(self, side: str) -> None:
        look, r = self.look, self.look.body.arm_radius
        shoulder, elbow, hand = (self.at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "hand"))
        upper, fore = ((*shoulder, r), (*elbow, 0.86 * r)), ((*elbow, 0.86 * r), (*hand, 0.72 * r))
        sleeve = look.accent if look.pattern == "blocks" else look.top_color
        palm: Segment = ((*hand, 1.02 * r), (*hand, 1.02 * r), look.skin)
        if look.top in _LONG_SLEEVES:
            wrist = _lerp(elbow, hand, 0.8)
            segments = [
                palm,
                ((*shoulder, 1.14 * r), (*elbow, 1.04 * r), sleeve),
                ((*elbow, 1.04 * r), (*wrist, 0.98 * r), sleeve),
            ]
        else:
            segments = [(*upper, look.skin), (*fore, look.skin), palm]
            if look.top in _SHORT_SLEEVES:
                segments.append(((*shoulder, 1.2 * r), (*_lerp(shoulder, elbow, 0.55), 1.2 * r), sleeve))
        self._limb(segments, self._farness(f"{side}_shoulder"))

    def _leg(self, side: str) -> None:
        look, r = self.look, self.look.body.leg_radius
        hip, knee, ankle, toe = (self.at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle", "toe"))
        heel = (ankle[0], ankle[1] + 0.4 * look.body.ankle_height)
        shoe: Segment = ((*heel, 0.66 * r), (*toe, 0.56 * r), look.shoes)
        if look.bottom == "trousers":
            cuff = _lerp(knee, ankle, 0.9)
            color = look.bottom_color
            segments = [shoe, ((*hip, 1.1 * r), (*knee, 0.92 * r), color), ((*knee, 0.92 * r), (*cuff, 0.82 * r), color)]
        else:
            segments = [((*hip, r), (*knee, 0.82 * r), look.skin), ((*knee, 0.82 * r), (*ankle, 0.62 * r), look.skin), shoe]
            if look.bottom == "shorts":
                segments.append(((*hip, 1.16 * r), (*_lerp(hip, knee, 0.74), 1.16 * r), look.bottom_color))
            else:
                segments.append(((*_lerp(knee, ankle, 0.62), 0.74 * r), (*ankle, 0.68 * r), mix(look.accent, _LIGHT, 0.3)))
        self._limb(segments, self._farness(f"{side}_hip"))

    def _shape(self, circles: list[Circle], color: Color) -> None:
        self.pen.hull([(x, y, r + OUTLINE) for x, y, r in circles], darker(color))
        self.pen.hull(circles, mix(color, _SHADE, 0.12))
        self.pen.hull([(x - 0.16 * r, y - 0.1 * r, 0.84 * r) for x, y, r in circles], mix(color, _LIGHT, 0.04))

    def _hips(self) -> None:
        look = self.look
        waist = 0.94 * look.body.waist_radius
        circles: list[Circle] = [(*self.at[f"{side}_hip"], waist) for side in SIDES]
        if look.bottom == "skirt":
            center = self.at["pelvis"]
            for side in SIDES:
                x, y = _lerp(self.at[f"{side}_hip"], self.at[f"{side}_knee"], 0.66)
                circles.append((center[0] + 1.25 * (x - center[0]), y, 0.05))
        self._shape(circles, look.bottom_color)

    def _half_width(self, share: float) -> float:
        """Give half the breadth of the torso at a height: 0 at the shoulders, 1 at the hips."""
        body = self.look.body
        broad = body.shoulder_half_width * (1 - share) + body.hip_half_width * share
        return broad * abs(math.cos(self.yaw)) + 0.036 * (1 - share) + body.waist_radius * share

    def _on_torso(self, share: float, turn: float) -> Point:
        """Give the place on the torso at a height share, turned from the front to the figure's left by an angle in degrees."""
        neck, pelvis = self.at["neck"], self.at["pelvis"]
        dx, dy = pelvis[0] - neck[0], pelvis[1] - neck[1]
        length = max(math.hypot(dx, dy), 1e-6)
        aside = self._half_width(share) * math.sin(min(max(math.radians(turn) + self._view(turn), -math.pi / 2), math.pi / 2))
        return neck[0] + dx * share + dy / length * aside, neck[1] + dy * share - dx / length * aside

    def _view(self, turn: float) -> float:
        """Give the yaw, wrapped such that yaw plus `turn` lies within half a circle of the viewer's direction."""
        angle = math.radians(turn)
        return (self.yaw + angle + math.pi) % (2 * math.pi) - math.pi - angle

    def _is_seen(self, turn: float) -> bool:
        return math.cos(self.yaw + math.radians(turn)) > 0.12

    def _panel(self, low: float, high: float, first: float, last: float, color: Color) -> None:
        """Fill the part of the torso between two heights and two angles, as far as it faces the viewer."""
        turns = [first + (last - first) * k / 6 for k in range(7)]
        turns = [turn for turn in turns if math.cos(self.yaw + math.radians(turn)) > -0.05]
        if len(turns) > 1:
            upper, lower = ([self._on_torso(share, turn) for turn in turns] for share in (low, high))
            self.pen.polygon(upper + lower[::-1], color)

    def _band(self, low: float, high: float, color: Color) -> None:
        self._panel(low, high, -90 - math.degrees(self.yaw), 90 - math.degrees(self.yaw), color)

    def _torso(self) -> None:
        look, waist = self.look, self.look.body.waist_radius
        neck, pelvis = self.at["neck"], self.at["pelvis"]
        lift = _lerp(pelvis, neck, 0.14)
        dx, dy = lift[0] - pelvis[0], lift[1] - pelvis[1]
        circles: list[Circle] = [(*_lerp(self.at[f"{side}_shoulder"], neck, 0.12), 0.033) for side in SIDES]
        circles += [(self.at[f"{side}_hip"][0] + dx, self.at[f"{side}_hip"][1] + dy, waist) for side in SIDES]
        circles.append((*_lerp(neck, pelvis, 0.36), 0.054))
        self._shape(circles, look.top_color)
        self._pattern()
        if look.has_scarf:
            self._scarf()

    def _pattern(self) -> None:
        look, accent = self.look, self.look.accent
        if look.top == "jacket":
            self._panel(0.0, 1.06, -22, 22, mix(accent, _LIGHT, 0.15))
        elif look.top == "dungarees":
            self._panel(0.4, 1.05, -90 - math.degrees(self.yaw), 90 - math.degrees(self.yaw), look.bottom_color)
            for turn in (-30, 30, 150, 210):
                self._panel(0.0, 0.42, turn - 9, turn + 9, look.bottom_color)
            self._panel(0.28, 0.44, -40, 40, look.bottom_color)
        elif look.pattern == "stripes":
            for share in (0.2, 0.48, 0.76, 1.04):
                self._band(share, share + 0.12, accent)
        elif look.pattern == "band":
            self._band(0.42, 0.68, accent)
        elif look.pattern == "dots":
            for row, share in enumerate((0.22, 0.5, 0.78, 1.04)):
                for turn in range(0, 360, 45):
                    if self._is_seen(turn + 22 * (row % 2)):
                        self.pen.circle(*self._on_torso(share, turn + 22 * (row % 2)), 0.011, accent)
        elif look.pattern == "emblem" and self._is_seen(0):
            x, y = self._on_torso(0.46, 0)
            self.pen.ellipse(x, y, 0.036 * max(0.3, math.cos(self.yaw)), 0.036, accent)

    def _scarf(self) -> None:
        (x, y), r = self.at["neck"], 0.024
        half = 0.034
        ends: list[tuple[Circle, Circle]] = [((x - half, y, r), (x + half, y, r))]
        if self._is_seen(24):
            knot, tip = self._on_torso(0.08, 24), self._on_torso(0.5, 24)
            ends.append(((*knot, 0.018), (*tip, 0.02)))
        self._limb([(p, q, self.look.accent) for p, q in ends], 0.0)

    def _head(self) -> None:
        r = 0.4 * self.head.radius
        neck = self.at["neck"]
        if not self.look.has_scarf:
            self.pen.capsule((*neck, r), (self.head.x, self.head.y, r), mix(self.look.skin, _SHADE, 0.24))
        draw_head(self.pen, self.head, self.look)


def _draw_shadow(pen: Pen, x: float, y: float, lift: float) -> None:
    """Darken the ground under the figure softly, smaller and fainter the higher it is."""
    shrink = 1 - 2.6 * lift
    for k in range(6):
        grow = (1.25 - 0.15 * k) * shrink
        pen.ellipse(x + 0.012, y + 0.012, 0.15 * grow, 0.036 * grow, (52, 34, 66, round(19 * shrink)))


def _supersampling(size: int) -> int:
    return min(6, max(3 if size <= 160 else 2, -(-256 // size)))


def render(look: Look, motion: Motion, size: int, scenery: Scenery = "full") -> NDArray[np.uint8]:
    """Draw a clip: every frame several times as large, then averaged down, so that all edges are smooth.

    Args:
        look: The figure and its place.
        motion: Its joints in every frame.
        size: Side of the square pictures in pixels.
        scenery: Background, as for `draw_scene`.

    Returns:
        Frames as uint8 F H W C, RGB.
    """
    factor = _supersampling(size)
    scene = draw_scene(look.scene, size * factor, scenery)
    frames = np.empty((len(motion.joints), size, size, 3), np.uint8)
    ankles = [JOINT_NAMES.index(f"{side}_ankle") for side in SIDES]
    for f, (joints, axes, yaw, lift) in enumerate(zip(motion.joints, motion.head_axes, motion.yaw, motion.lift, strict=True)):
        image: Image.Image = scene.copy()
        pen = Pen(image)
        _draw_shadow(pen, float(joints[ankles, 0].mean()), motion.ground, float(lift))
        _Figure(pen, look, joints, axes, float(yaw)).draw()
        frames[f] = np.asarray(image.reduce(factor))
    return frames
