"""What a puppet looks like, drawn from a seed: measures, skin, hair, clothes, and the place where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Proportions:
    """Lengths of a figure, in sides of the picture."""

    head_radius: float
    neck: float
    torso: float
    shoulder_half_width: float
    hip_half_width: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    foot: float
    ankle_height: float
    arm_radius: float
    leg_radius: float
    waist_radius: float


@dataclass(frozen=True)
class Scene:
    """Where a puppet stands: a kind of scenery and its colours.

    Args:
        kind: Which scenery is drawn.
        sky: Colours at the top and at the horizon (of a room: of the wall).
        ground: Colours at the horizon and at the lower edge.
        far: Colours of what stands in the distance, from far to near.
        accent: Colour of the small things.
        sun: Colour of sun or moon, of a room: of the light in the window.
        seed: Draws the places of things.
    """

    kind: str
    sky: tuple[Color, Color]
    ground: tuple[Color, Color]
    far: tuple[Color, Color]
    accent: Color
    sun: Color
    seed: int


@dataclass(frozen=True)
class Look:
    """Everything about a puppet that stays the same through a clip.

    Args:
        body: The measures.
        skin: Colour of the skin.
        hair: Colour of the hair.
        hair_style: One of `HAIR_STYLES`.
        top: One of `TOPS`.
        top_color: Colour of the upper clothes.
        accent: Second colour of the upper clothes, and of hats.
        pattern: One of `PATTERNS`.
        bottom: One of `BOTTOMS`.
        bottom_color: Colour of the lower clothes.
        shoes: Colour of the shoes.
        has_glasses: Whether the figure wears glasses.
        has_beard: Whether it has a beard.
        has_scarf: Whether it wears a scarf in the accent colour.
        scene: Where it stands.
    """

    body: Proportions
    skin: Color
    hair: Color
    hair_style: str
    top: str
    top_color: Color
    accent: Color
    pattern: str
    bottom: str
    bottom_color: Color
    shoes: Color
    has_glasses: bool
    has_beard: bool
    has_scarf: bool
    scene: Scene


FIGURE_SCALE = 1.2
"""Makes figures as large as the picture allows with raised arms, so that their motion is a good part of it."""

HAIR_STYLES = ("short", "short", "buzz", "bob", "long", "ponytail", "bun", "afro", "spiky", "cap", "beanie", "pigtails")
TOPS = ("short_sleeves", "short_sleeves", "long_sleeves", "long_sleeves", "sleeveless", "jacket", "dungarees", "dress")
BOTTOMS = ("trousers", "trousers", "shorts", "skirt")
PATTERNS = ("plain", "stripes", "dots", "band", "blocks", "emblem")


def _colors(text: str) -> tuple[Color, ...]:
    return tuple((int(word[0:2], 16), int(word[2:4], 16), int(word[4:6], 16)) for word in text.split())


_SKINS = _colors("ffdec2 f8ceaa ecba92 d8a074 bc8056 986242 764c36")
_HAIRS = _colors("282026 483028 704830 984c2e d07034 ecc06c b0aaac d4688a 3e8a96")
_CLOTHES = _colors(
    "d26046 ecb03e 2a8688 2e4268 f8ecd4 e07482 7aa070 74426c f48468 68a6ce aa3c38 346450 403c4a aa90ce f0923c 4c6ca0"
)
_SHOES = _colors("40343a 965436 eee2d0 bc423c 364a74 e8a842")

_SCENES: tuple[tuple[str, tuple[Color, ...]], ...] = (
    # kind, and the colours: sky top, sky at the horizon, ground at the horizon, ground below, far, near, accent, sun
    ("hills", _colors("84c4de f4eed6 b0cc86 86b06c a8ceb0 8ebc86 6a9868 fff0be")),
    ("hills", _colors("f6b08e fee4b8 c6b87a 9c9862 dea48a c29e74 968058 fff6d6")),
    ("town", _colors("faccaa ffecd0 cebeb6 aa9a98 eebca4 d89e90 ffe2a0 fff8de")),
    ("town", _colors("484a7e be8aa6 7a6a88 5c5070 706092 544c7c ffd684 fff2d4")),
    ("beach", _colors("70c0e0 e0f2ec f6deae e8c48e 56b0c4 84ced2 ec7a60 fff4c4")),
    ("beach", _colors("f49e8a ffdab0 f0cea4 d6a680 cc808c e8a096 785c7a ffeebe")),
    ("room", _colors("fae2c4 f4d4b2 ce9a70 b6805a 96c8d6 fcf6e8 d8705c fffae6")),
    ("room", _colors("bacebe aac2b2 dab48c be946e fadeaa faf6ec e4a05c fffae2")),
    ("room", _colors("decee2 d0bed8 c4a494 a68478 b2d4e8 faf4f0 7c9e92 fffae6")),
    ("desert", _colors("fac48c fee8ba f0c084 da9e68 e89e70 d68662 709266 fff8dc")),
    ("mountains", _colors("96bee2 e8eef0 bcd0a0 8eac7e a6b4ce 8a9cb8 5c8674 fff6d6")),
    ("mountains", _colors("6c76b0 f8c4b2 e2e2ec bec2d8 a092bc 7e7aaa 58608c ffecce")),
    ("forest", _colors("c4e0ce f2f0ce aab274 80905c a4c8a4 78a884 8c624a fff4c4")),
    ("forest", _colors("fad6a8 feeeca d6aa6c b28656 eca862 d47a4c 785042 fffade")),
)
_SCENE_STEP = 5
"""Successive seeds go through the scenes in this step, which shares no factor with their number: small sets have them all."""


def distance(first: Color, second: Color) -> float:
    """Give how different two colours look, roughly: 0 equal, about 760 black against white."""
    red = (first[0] + second[0]) / 2
    dr, dg, db = (a - b for a, b in zip(first, second, strict=True))
    return float(((2 + red / 256) * dr * dr + 4 * dg * dg + (3 - red / 256) * db * db) ** 0.5)


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colours; `share` is the second one's part in [0, 1]."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _pick(rng: np.random.Generator, colors: Sequence[Color], against: Sequence[Color], margin: float) -> Color:
    """Draw a colour that stands out from others, or the one that stands out most where none keeps the margin."""
    order = [colors[i] for i in rng.permutation(len(colors))]
    clearance = [min(distance(color, other) for other in against) for color in order]
    for color, clear in zip(order, clearance, strict=True):
        if clear >= margin:
            return color
    return order[int(np.argmax(clearance))]


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _make_body(rng: np.random.Generator) -> Proportions:
    z = FIGURE_SCALE
    height, build, head = rng.uniform(0.92, 1.04), rng.uniform(0.86, 1.2), rng.uniform(0.94, 1.1)
    legs = rng.uniform(0.94, 1.06)
    return Proportions(
        head_radius=z * 0.083 * head,
        neck=z * 0.018 * height,
        torso=z * 0.172 * height * (2 - legs),
        shoulder_half_width=z * 0.066 * (0.4 + 0.6 * build),
        hip_half_width=z * 0.038 * build,
        upper_arm=z * 0.108 * height,
        forearm=z * 0.106 * height,
        thigh=z * 0.135 * height * legs,
        shin=z * 0.132 * height * legs,
        foot=z * 0.052,
        ankle_height=z * 0.028,
        arm_radius=z * 0.027 * (0.5 + 0.5 * build),
        leg_radius=z * 0.036 * (0.4 + 0.6 * build),
        waist_radius=z * 0.05 * build,
    )


def _make_scene(seed: int, rng: np.random.Generator) -> Scene:
    kind, (top, horizon, near_ground, ground, far, near, accent, sun) = _SCENES[_SCENE_STEP * seed % len(_SCENES)]
    return Scene(kind, (top, horizon), (near_ground, ground), (far, near), accent, sun, int(rng.integers(2**31)))


def make_look(seed: int) -> Look:
    """Draw a look: the same seed gives the same look for ever.

    Clothes are chosen to stand out from what is behind them and from each other, so the figure reads at 32 x 32 pixels.

    Args:
        seed: Any whole number from 0.
    """
    rng = np.random.default_rng([seed, 0x100C])
    scene = _make_scene(seed, rng)
    body = _make_body(rng)
    behind = (mix(*scene.sky, 0.75), *scene.far)
    skin = _pick(rng, _SKINS, behind, 36)
    hair = _pick(rng, _HAIRS, (skin, scene.sky[1]), 105)
    top_color = _pick(rng, _CLOTHES, (*behind, skin), 165)
    bottom_color = _pick(rng, _CLOTHES, (top_color, scene.far[1], *scene.ground, skin), 165)
    accent = _pick(rng, _CLOTHES, (top_color, bottom_color, scene.sky[1]), 190)
    top = _choice(rng, TOPS)
    bottom = "skirt" if top == "dress" else "trousers" if top == "dungarees" else _choice(rng, BOTTOMS)
    pattern = "plain" if top in ("jacket", "dungarees") else _choice(rng, PATTERNS)
    hair_style = _choice(rng, HAIR_STYLES)
    return Look(
        body=body,
        skin=skin,
        hair=hair,
        hair_style=hair_style,
        top=top,
        top_color=top_color,
        accent=accent,
        pattern=pattern,
        bottom=bottom,
        bottom_color=top_color if top == "dress" else bottom_color,
        shoes=_pick(rng, _SHOES, scene.ground, 150),
        has_glasses=bool(rng.random() < 0.2),
        has_beard=bool(rng.random() < 0.3) and hair_style in ("short", "buzz", "cap", "beanie") and hair in _HAIRS[:7],
        has_scarf=bool(rng.random() < 0.2) and top not in ("dungarees", "dress"),
        scene=scene,
    )
