"""The picture behind a puppet: sky or wall, ground, and a few things that tell places apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image

from divid.data.puppets.looks import Color, Scene, mix
from divid.data.puppets.pen import Pen

Scenery = Literal["full", "plain"]

HORIZON = 0.74
"""Height in the picture where the ground begins."""


def _gradient(scene: Scene, side: int) -> Image.Image:
    """Give sky and ground, each shaded from top to bottom, with a little light from the upper left."""
    y, x = np.mgrid[0:side, 0:side] / side
    sky_share = np.clip(y / HORIZON, 0, 1)[..., None]
    ground_share = np.clip((y - HORIZON) / (1 - HORIZON), 0, 1)[..., None]
    top, horizon, near, low = (np.array(color, np.float64) for color in (*scene.sky, *scene.ground))
    picture = np.where(y[..., None] < HORIZON, top + (horizon - top) * sky_share, near + (low - near) * ground_share)
    glow = 10.0 * (1 - np.hypot(x - 0.2, y - 0.1))[..., None]
    return Image.fromarray(np.clip(picture + glow, 0, 255).astype(np.uint8), "RGB")


def _cloud(pen: Pen, x: float, y: float, size: float, color: Color) -> None:
    for dx, dy, radius in ((-0.9, 0.1, 0.55), (0.0, -0.15, 0.8), (0.85, 0.08, 0.6)):
        pen.circle(x + dx * size, y + dy * size, radius * size, color)
    pen.capsule((x - size, y + 0.3 * size, 0.36 * size), (x + size, y + 0.3 * size, 0.36 * size), color)


def _sun(pen: Pen, scene: Scene, x: float, y: float, radius: float) -> None:
    for grow, alpha in ((2.1, 28), (1.6, 40), (1.25, 60)):
        pen.circle(x, y, radius * grow, (*scene.sun, alpha))
    pen.circle(x, y, radius, scene.sun)


def _sky(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    side = 1 if rng.random() < 0.5 else -1
    _sun(pen, scene, 0.5 + side * rng.uniform(0.24, 0.36), rng.uniform(0.13, 0.24), rng.uniform(0.05, 0.07))
    white = mix(scene.sky[1], (255, 255, 255), 0.55)
    for _ in range(int(rng.integers(1, 3))):
        _cloud(pen, 0.5 - side * rng.uniform(0.16, 0.42), rng.uniform(0.1, 0.3), rng.uniform(0.04, 0.065), white)


def _ridge(pen: Pen, heights: Callable[[float], float], color: Color) -> None:
    xs = [k / 48 for k in range(49)]
    pen.polygon([(x, HORIZON - heights(x)) for x in xs] + [(1.0, HORIZON + 0.01), (0.0, HORIZON + 0.01)], color)


def _tree(pen: Pen, x: float, foot: float, height: float, crown: Color, trunk: Color) -> None:
    pen.capsule((x, foot, 0.09 * height), (x, foot - 0.6 * height, 0.05 * height), trunk)
    for dx, dy, radius in ((-0.2, 0.62, 0.24), (0.2, 0.64, 0.22), (0.0, 0.84, 0.26)):
        pen.circle(x + dx * height, foot - dy * height, radius * height, crown)
    pen.circle(x - 0.08 * height, foot - 0.88 * height, 0.13 * height, mix(crown, (255, 255, 230), 0.18))


def _pine(pen: Pen, x: float, foot: float, height: float, color: Color) -> None:
    for low, top, half in ((0.1, 0.55, 0.24), (0.35, 0.8, 0.19), (0.6, 1.05, 0.13)):
        pen.polygon(
            [(x - half * height, foot - low * height), (x, foot - top * height), (x + half * height, foot - low * height)], color
        )


def _tufts(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    for _ in range(7):
        x, y = rng.uniform(0.03, 0.97), rng.uniform(HORIZON + 0.03, 0.98)
        pen.ellipse(x, y, 0.022 + 0.05 * (y - HORIZON), 0.006, mix(scene.ground[1], (0, 0, 0), 0.08))


def _hills(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sky(pen, scene, rng)
    a, b = rng.uniform(0, 6, 2)
    _ridge(pen, lambda x: 0.13 + 0.05 * math.sin(4.2 * x + a), scene.far[0])
    _ridge(pen, lambda x: 0.06 + 0.035 * math.sin(6.5 * x + b), scene.far[1])
    for x in (rng.uniform(0.04, 0.16), rng.uniform(0.84, 0.96)):
        _tree(pen, x, HORIZON + 0.02, rng.uniform(0.18, 0.28), scene.accent, mix(scene.accent, (96, 60, 48), 0.65))
    _tufts(pen, scene, rng)


def _town(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sky(pen, scene, rng)
    for color, low, high, width in ((scene.far[0], 0.2, 0.4, 0.11), (scene.far[1], 0.1, 0.26, 0.14)):
        x = -rng.uniform(0, 0.1)
        while x < 1:
            wide, tall = width * rng.uniform(0.8, 1.3), rng.uniform(low, high)
            pen.rectangle(x, HORIZON - tall, x + wide - 0.012, HORIZON, color)
            for row in range(int(tall / 0.06)):
                for column in range(2):
                    if rng.random() < 0.55:
                        wx, wy = x + wide * (0.24 + 0.34 * column), HORIZON - tall + 0.025 + 0.06 * row
                        pen.rectangle(wx, wy, wx + 0.022, wy + 0.026, mix(color, scene.accent, 0.7))
            x += wide
    pen.rectangle(0, HORIZON, 1, HORIZON + 0.022, mix(scene.ground[0], (255, 255, 255), 0.25))


def _beach(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sky(pen, scene, rng)
    sea = HORIZON - 0.14
    pen.rectangle(0, sea, 1, HORIZON + 0.02, scene.far[0])
    for k in range(5):
        x, y = rng.uniform(0, 1), sea + 0.02 + 0.022 * k
        pen.capsule((x, y, 0.0035), (x + rng.uniform(0.06, 0.14), y, 0.0035), mix(scene.far[0], (255, 255, 255), 0.35))
    phase = rng.uniform(0, 6)
    for drop, color in ((0.0, scene.far[1]), (0.018, mix(scene.far[1], (255, 255, 255), 0.7)), (0.03, scene.ground[0])):
        wave = [(k / 32, HORIZON - 0.012 + drop + 0.007 * math.sin(9 * k / 32 + phase)) for k in range(33)]
        pen.polygon([*wave, (1.0, HORIZON + 0.05), (0.0, HORIZON + 0.05)], color)
    x, side = (rng.uniform(0.06, 0.14), 1) if rng.random() < 0.5 else (rng.uniform(0.86, 0.94), -1)
    pen.stroke([(x, 0.86), (x + 0.02 * side, 0.5)], 0.007, (250, 240, 226))
    for k in range(6):
        a, b = math.pi * (1 + k / 6), math.pi * (1 + (k + 1) / 6)
        rim = [(x + 0.02 * side + 0.15 * math.cos(t), 0.54 + 0.11 * math.sin(t)) for t in (a, b)]
        pen.polygon([(x + 0.02 * side, 0.43), *rim], scene.accent if k % 2 else (252, 244, 230))


def _room(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    side = 1 if rng.random() < 0.5 else -1
    wall = scene.sky[1]
    if rng.random() < 0.6:
        for k in range(0, 12, 2):
            pen.rectangle(k / 12, 0, (k + 1) / 12, HORIZON, mix(wall, (255, 255, 255), 0.1))
    x = 0.5 + side * 0.3
    pen.rectangle(x - 0.15, 0.12, x + 0.15, 0.48, scene.far[1])
    pen.rectangle(x - 0.13, 0.14, x + 0.13, 0.46, scene.far[0])
    pen.polygon(
        [(x - 0.13, 0.46), (x - 0.13, 0.38), (x - 0.02, 0.34), (x + 0.13, 0.4), (x + 0.13, 0.46)],
        mix(scene.far[0], (120, 170, 120), 0.5),
    )
    _sun(pen, scene, x + 0.05, 0.22, 0.025)
    pen.rectangle(x - 0.006, 0.12, x + 0.006, 0.48, scene.far[1])
    pen.rectangle(x - 0.15, 0.295, x + 0.15, 0.307, scene.far[1])
    x = 0.5 - side * rng.uniform(0.28, 0.34)
    pen.rectangle(x - 0.085, 0.17, x + 0.085, 0.36, mix(scene.ground[1], (60, 40, 40), 0.3))
    pen.rectangle(x - 0.07, 0.185, x + 0.07, 0.345, mix(wall, (255, 255, 255), 0.6))
    pen.circle(x, 0.265, 0.042, scene.accent)
    pen.rectangle(0, HORIZON - 0.022, 1, HORIZON, mix(wall, (255, 255, 255), 0.55))
    for k in range(1, 4):
        y = HORIZON + 0.26 * (k / 4) ** 1.3
        pen.rectangle(0, y, 1, y + 0.005, mix(scene.ground[1], (60, 30, 20), 0.12))
    pen.ellipse(0.5, 0.9, 0.36, 0.065, mix(scene.accent, scene.ground[0], 0.45))
    pen.ellipse(0.5, 0.9, 0.31, 0.05, mix(scene.accent, scene.ground[0], 0.68))


def _desert(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sky(pen, scene, rng)
    a, b = rng.uniform(0, 6, 2)
    _ridge(pen, lambda x: 0.1 + 0.06 * min(1.0, max(-1.0, 2.4 * math.sin(7 * x + a))), scene.far[0])
    _ridge(pen, lambda x: 0.035 + 0.03 * math.sin(5 * x + b), scene.far[1])
    for x, tall in ((rng.uniform(0.06, 0.18), rng.uniform(0.18, 0.26)), (rng.uniform(0.82, 0.94), rng.uniform(0.12, 0.2))):
        foot = HORIZON + 0.03
        pen.capsule((x, foot, 0.022), (x, foot - tall, 0.022), scene.accent)
        for side, start in ((-1, 0.4), (1, 0.55)):
            elbow = x + side * 0.05
            pen.stroke(
                [(x, foot - start * tall), (elbow, foot - start * tall), (elbow, foot - (start + 0.28) * tall)],
                0.014,
                scene.accent,
            )
    _tufts(pen, scene, rng)


def _mountains(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sky(pen, scene, rng)
    for color, low, high, places in ((scene.far[0], 0.26, 0.4, (0.1, 0.55, 0.95)), (scene.far[1], 0.14, 0.26, (0.28, 0.78))):
        for place in places:
            x, tall = place + rng.uniform(-0.07, 0.07), rng.uniform(low, high)
            half = 0.85 * tall
            pen.polygon([(x - half, HORIZON), (x, HORIZON - tall), (x + half, HORIZON)], color)
            peak, cut = HORIZON - tall, 0.28
            snow = [
                (x - half * cut, peak + tall * cut),
                (x, peak),
                (x + half * cut, peak + tall * cut),
                (x + 0.1 * half, peak + 0.8 * tall * cut),
            ]
            pen.polygon([*snow, (x - 0.1 * half, peak + 1.1 * tall * cut)], mix(color, (255, 255, 255), 0.75))
    for _ in range(6):
        x = rng.uniform(0.0, 0.28) if rng.random() < 0.5 else rng.uniform(0.72, 1.0)
        _pine(pen, x, HORIZON + 0.03, rng.uniform(0.1, 0.17), scene.accent)
    _tufts(pen, scene, rng)


def _forest(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    _sun(pen, scene, rng.uniform(0.35, 0.65), 0.14, 0.055)
    for color, count, low, high in ((scene.far[0], 9, 0.36, 0.5), (scene.far[1], 6, 0.26, 0.4)):
        for k in range(count):
            x = (k + rng.uniform(0.2, 0.8)) / count
            tall = rng.uniform(low, high) * (0.75 + 0.5 * abs(x - 0.5))
            _tree(pen, x, HORIZON + 0.012, tall, color, mix(color, scene.accent, 0.6))
    _tufts(pen, scene, rng)


_PAINTERS: dict[str, Callable[[Pen, Scene, np.random.Generator], None]] = {
    "hills": _hills,
    "town": _town,
    "beach": _beach,
    "room": _room,
    "desert": _desert,
    "mountains": _mountains,
    "forest": _forest,
}


def draw_scene(scene: Scene, side: int, scenery: Scenery = "full") -> Image.Image:
    """Paint the background of a look.

    Args:
        scene: Kind, colours and seed.
        side: Width and height in pixels.
        scenery: `full`, or `plain`: the colour above the horizon and nothing else, so that all there is to learn is the figure.
    """
    if scenery == "plain":
        return Image.new("RGB", (side, side), scene.sky[1])
    image = _gradient(scene, side)
    _PAINTERS[scene.kind](Pen(image), scene, np.random.default_rng(scene.seed))
    return image
