"""The actions of the puppets: smooth periodic joint angles, and the forward kinematics that turn them into a pose.

The body frame is (left, up, forward) in units of the picture's side. A pose is kept as (x, y) in the picture, y downwards, plus a
depth that grows towards the viewer. Angles are in degrees: an arm or leg hangs down at 0, `*_arm` and `*_leg` swing it forward,
`*_out` away from the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divid.data.puppets.looks import Proportions

FPS = 12.0
"""Frames a second that the actions' tempo is made for."""

GROUND = 0.92
"""Height in the picture at which the feet stand, 0 at the top."""

TILT = 0.2
"""How far a point sinks in the picture per unit of depth: the camera looks slightly down."""

SIDES = ("left", "right")
LIMB_JOINTS = ("shoulder", "elbow", "hand", "hip", "knee", "ankle", "toe")
JOINT_NAMES: tuple[str, ...] = ("head", "neck", "pelvis", *(f"{side}_{joint}" for side in SIDES for joint in LIMB_JOINTS))

Array = NDArray[np.float64]
Curves = dict[str, Array]

_REST: dict[str, float] = dict.fromkeys(("yaw", "pitch", "roll", "twist", "nod", "lift"), 0.0)
for _side in SIDES:
    _REST |= {f"{_side}_arm": 4.0, f"{_side}_arm_out": 14.0, f"{_side}_elbow": 12.0, f"{_side}_elbow_out": -4.0}
    _REST |= {f"{_side}_leg": 0.0, f"{_side}_leg_out": 4.0, f"{_side}_knee": 3.0}


@dataclass(frozen=True)
class Motion:
    """Where every joint of a figure is in every frame of a clip.

    Args:
        joints: x, y in the picture and depth, by (frame, joint, axis), joints as in `JOINT_NAMES`.
        head_axes: The head's left, up and forward direction in the same three axes, by (frame, direction, axis).
        yaw: Direction that the chest faces in radians: 0 to the viewer, pi/2 to the right.
        lift: Height of the feet above the ground.
        ground: Height in the picture of the place where the figure stands.
    """

    joints: Array
    head_axes: Array
    yaw: Array
    lift: Array
    ground: float


def _pulse(phase: Array) -> Array:
    return 0.5 - 0.5 * np.cos(phase)


def _plateau(phase: Array) -> Array:
    ramp = np.clip(1.5 * _pulse(phase) - 0.25, 0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)


def _positive(values: Array) -> Array:
    return np.maximum(values, 0.0)


def _both(**curves: Array | float) -> Curves:
    return {f"{side}_{name}": np.asarray(curve, np.float64) for side in SIDES for name, curve in curves.items()}


def _walk(phase: Array, amount: float) -> Curves:
    swing, lifting = amount * np.sin(phase), np.cos(phase)
    return {
        "left_leg": 27 * swing + 3,
        "right_leg": -27 * swing + 3,
        "left_knee": 8 + 38 * _positive(lifting),
        "right_knee": 8 + 38 * _positive(-lifting),
        "left_arm": -28 * swing,
        "right_arm": 28 * swing,
        **_both(elbow=16.0, arm_out=9.0),
        "twist": -7 * swing,
    }


def _jog(phase: Array, amount: float) -> Curves:
    swing, lifting = amount * np.sin(phase), np.cos(phase)
    return {
        "left_leg": 42 * swing + 14,
        "right_leg": -42 * swing + 14,
        "left_knee": 24 + 72 * _positive(lifting),
        "right_knee": 24 + 72 * _positive(-lifting),
        "left_arm": -44 * swing - 8,
        "right_arm": 44 * swing - 8,
        **_both(elbow=88.0, arm_out=13.0),
        "twist": -12 * swing,
        "pitch": np.full_like(phase, 13.0),
        "lift": 0.03 * np.abs(np.cos(phase)),
    }


def _wave(side: str) -> Callable[[Array, float], Curves]:
    def curves(phase: Array, amount: float) -> Curves:
        tilt = -4.0 if side == "left" else 4.0
        return {
            f"{side}_arm_out": 104 + 5 * np.sin(phase),
            f"{side}_elbow": np.zeros_like(phase),
            f"{side}_elbow_out": 64 + 33 * amount * np.sin(phase),
            "roll": np.full_like(phase, tilt),
        }

    return curves


def _arms_up(phase: Array, amount: float) -> Curves:
    up = _plateau(phase)
    return {
        **_both(arm_out=14 + 146 * up, elbow=12 - 12 * up, elbow_out=-4 + 12 * up),
        "nod": -10 * amount * up,
        "pitch": -3 * up,
    }


def _jump(phase: Array, amount: float) -> Curves:
    air, crouch = _positive(np.sin(phase)), _positive(-np.sin(phase))
    return {
        **_both(leg=48 * crouch + 10 * air, knee=3 + 84 * crouch + 26 * air),
        **_both(arm=4 - 44 * crouch + 128 * air, arm_out=14 + 8 * air, elbow=12 + 20 * crouch),
        "pitch": 24 * crouch,
        "nod": -12 * crouch,
        "lift": 0.088 * amount * air,
    }


def _squat(phase: Array, amount: float) -> Curves:
    down = _pulse(phase) * amount
    return {
        **_both(leg=82 * down, leg_out=6 + 10 * down, knee=3 + 108 * down),
        **_both(arm=4 + 80 * down, arm_out=13 - 6 * down, elbow=12 - 10 * down),
        "pitch": 24 * down,
        "nod": -14 * down,
    }


def _bow(phase: Array, amount: float) -> Curves:
    down = _plateau(phase) * amount
    return {**_both(leg=11 * down, arm=4 + 16 * down, arm_out=12 - 4 * down, knee=3.0), "pitch": 74 * down, "nod": 14 * down}


def _kick(phase: Array, amount: float) -> Curves:
    kick = _pulse(phase) ** 1.4
    back = _positive(-np.cos(phase + 0.9 * np.pi)) * (1 - kick)
    return {
        "right_leg": (92 * kick - 26 * back) * amount,
        "right_knee": 6 + 62 * back + 8 * kick,
        "left_knee": 4 + 10 * kick,
        "left_leg": 4 * kick,
        "left_arm": 4 + 55 * kick,
        "right_arm": 4 - 42 * kick,
        **_both(arm_out=20 + 16 * kick, elbow=30.0),
        "pitch": -13 * kick,
    }


def _clap(phase: Array, amount: float) -> Curves:
    apart = _pulse(phase) * amount
    return {**_both(arm=50.0, arm_out=13 + 42 * apart, elbow=42.0, elbow_out=-48 + 32 * apart), "nod": 4 * np.cos(phase)}


def _turn(phase: Array, amount: float) -> Curves:
    return {
        "yaw": np.degrees(phase),
        **_both(arm_out=26 + 16 * amount, elbow_out=-8.0),
        "left_knee": 4 + 34 * _positive(np.sin(2 * phase)),
        "right_knee": 4 + 34 * _positive(-np.sin(2 * phase)),
        "left_leg": 18 * _positive(np.sin(2 * phase)),
        "right_leg": 18 * _positive(-np.sin(2 * phase)),
    }


def _point(phase: Array, amount: float) -> Curves:
    out = _plateau(phase)
    return {
        "right_arm": 4 + (84 + 8 * amount) * out,
        "right_arm_out": 14 - 4 * out,
        "right_elbow": 12 - 10 * out + 26 * np.sin(phase) ** 2 * (1 - out),
        "left_arm": np.full_like(phase, -14.0),
        "left_arm_out": np.full_like(phase, 42.0),
        "left_elbow": np.full_like(phase, 20.0),
        "left_elbow_out": np.full_like(phase, -86.0),
        "twist": 16 * out,
    }


def _jumping_jack(phase: Array, amount: float) -> Curves:
    out = _pulse(phase)
    return {
        **_both(arm_out=12 + 146 * out, elbow=4.0, elbow_out=6 * out, leg_out=3 + 23 * amount * out),
        "lift": 0.036 * np.abs(np.sin(phase)),
    }


def _box(phase: Array, amount: float) -> Curves:
    left, right = _pulse(phase) ** 1.6 * amount, _pulse(phase + np.pi) ** 1.6 * amount
    return {
        "left_arm": 26 + 62 * left,
        "right_arm": 26 + 62 * right,
        "left_elbow": 112 - 108 * left,
        "right_elbow": 112 - 108 * right,
        **_both(arm_out=12.0, elbow_out=-6.0, knee=22.0),
        "left_leg": np.full_like(phase, 24.0),
        "right_leg": np.full_like(phase, -8.0),
        "twist": 18 * (right - left),
        "pitch": np.full_like(phase, 8.0),
    }


def _sway(phase: Array, amount: float) -> Curves:
    lean = amount * np.sin(phase)
    return {
        **_both(arm=-10.0, arm_out=50.0, elbow=16.0, elbow_out=-100.0),
        "roll": 23 * lean,
        "left_leg_out": 9 + 10 * lean,
        "right_leg_out": 9 - 10 * lean,
        "left_knee": 4 + 16 * _positive(-lean),
        "right_knee": 4 + 16 * _positive(lean),
        "left_leg": 8 * _positive(-lean),
        "right_leg": 8 * _positive(lean),
    }


@dataclass(frozen=True)
class _Action:
    curves: Callable[[Array, float], Curves]
    cycles_per_second: float
    yaw: float


_ACTIONS: dict[str, _Action] = {
    "walk": _Action(_walk, 0.95, 62),
    "jog": _Action(_jog, 1.35, 62),
    "wave_left": _Action(_wave("left"), 1.15, 4),
    "wave_right": _Action(_wave("right"), 1.15, 4),
    "arms_up": _Action(_arms_up, 0.6, 6),
    "jump": _Action(_jump, 0.8, 28),
    "squat": _Action(_squat, 0.65, 44),
    "bow": _Action(_bow, 0.6, 64),
    "kick": _Action(_kick, 0.75, 66),
    "clap": _Action(_clap, 1.2, 5),
    "turn": _Action(_turn, 0.62, 0),
    "point": _Action(_point, 0.6, 70),
    "jumping_jack": _Action(_jumping_jack, 0.9, 2),
    "box": _Action(_box, 0.95, 54),
    "sway": _Action(_sway, 0.8, 4),
}
ACTIONS: tuple[str, ...] = tuple(_ACTIONS)


def _direction(swing: Array, out: Array, side: int) -> Array:
    """Give the unit vector of a limb in (left, up, forward), from its angles in degrees; `side` is 1 for left, -1 for right."""
    a, b = np.radians(swing), np.radians(out)
    return np.stack([side * np.sin(b), -np.cos(b) * np.cos(a), np.cos(b) * np.sin(a)], axis=-1)


def _axes(pitch: Array, roll: Array, twist: Array) -> tuple[Array, Array, Array]:
    """Give left, up and forward of a body part that is leant forward, to its left, and turned about its own axis."""
    p, r, w = np.radians(pitch), np.radians(roll), np.radians(twist)
    zero = np.zeros_like(p)
    up = np.stack([np.sin(r), np.cos(r) * np.cos(p), np.cos(r) * np.sin(p)], axis=-1)
    left = np.stack([np.cos(r), -np.sin(r) * np.cos(p), -np.sin(r) * np.sin(p)], axis=-1)
    forward = np.stack([zero, -np.sin(p), np.cos(p)], axis=-1)
    cos, sin = np.cos(w)[:, None], np.sin(w)[:, None]
    return left * cos - forward * sin, up, forward * cos + left * sin


def _legs(curves: Curves, body: Proportions, anchors: tuple[str, ...]) -> dict[str, Array]:
    """Give hips, knees, ankles and toes, with the lowest foot on the ground and the anchoring feet in place."""
    parts: dict[str, Array] = {}
    for side, sign in (("left", 1), ("right", -1)):
        hip = np.tile([sign * body.hip_half_width, 0.0, 0.0], (len(curves["yaw"]), 1))
        thigh = _direction(curves[f"{side}_leg"], curves[f"{side}_leg_out"], sign)
        shin = _direction(curves[f"{side}_leg"] - curves[f"{side}_knee"], curves[f"{side}_leg_out"], sign)
        parts[f"{side}_hip"] = hip
        parts[f"{side}_knee"] = hip + body.thigh * thigh
        parts[f"{side}_ankle"] = parts[f"{side}_knee"] + body.shin * shin
    feet = np.mean([parts[f"{side}_ankle"] for side in anchors], axis=0)
    feet[:, 1] = np.minimum(parts["left_ankle"][:, 1], parts["right_ankle"][:, 1]) - body.ankle_height - curves["lift"]
    if len(anchors) == 1:
        feet[:, 0] -= (1 if anchors[0] == "left" else -1) * body.hip_half_width
    parts["pelvis"] = np.zeros_like(feet)
    parts = {name: point - feet for name, point in parts.items()}
    for side, sign in (("left", 1), ("right", -1)):
        ankle = parts[f"{side}_ankle"]
        height = np.clip((ankle[:, 1] - body.ankle_height - curves["lift"]) / 0.06, 0.0, 1.0)
        shin_angle = curves[f"{side}_leg"] - curves[f"{side}_knee"]
        tip = 0.7 * height * shin_angle - 30 * np.clip(curves["lift"] / 0.05, 0.0, 1.0)
        toe = ankle + body.foot * _direction(tip + 90, np.full_like(tip, 12.0), sign)
        parts[f"{side}_toe"] = toe - [0.0, 0.4 * body.ankle_height, 0.0]
    return parts


def _upper_body(curves: Curves, body: Proportions, pelvis: Array) -> tuple[dict[str, Array], Array]:
    """Give the joints above the hips, and the head's axes."""
    left, up, _ = _axes(curves["pitch"], curves["roll"], curves["twist"])
    parts = {"neck": pelvis + body.torso * up}
    for side, sign in (("left", 1), ("right", -1)):
        swing, out = curves[f"{side}_arm"], curves[f"{side}_arm_out"]
        shoulder = parts["neck"] - 0.1 * body.torso * up + sign * body.shoulder_half_width * left
        elbow = shoulder + body.upper_arm * _direction(swing, out, sign)
        hand = elbow + body.forearm * _direction(swing + curves[f"{side}_elbow"], out + curves[f"{side}_elbow_out"], sign)
        parts |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}
    head = _axes(0.8 * curves["pitch"] + curves["nod"], 0.6 * curves["roll"], 0.4 * curves["twist"])
    parts["head"] = parts["neck"] + (body.neck + 0.92 * body.head_radius) * head[1]
    return parts, np.stack(head, axis=1)


def _turned(vectors: Array, yaw: Array) -> tuple[Array, Array, Array]:
    """Give right, up and depth of body-frame vectors (frame, ..., 3) when the body faces the direction `yaw`."""
    shape = (-1,) + (1,) * (vectors.ndim - 2)
    cos, sin = np.cos(yaw).reshape(shape), np.sin(yaw).reshape(shape)
    left, up, forward = np.moveaxis(vectors, -1, 0)
    return left * cos + forward * sin, up, forward * cos - left * sin


def _to_picture(points: Array, yaw: Array) -> Array:
    """Project body-frame points obliquely to x, y (downwards) and depth: heights stay true, what is nearer sinks."""
    right, up, depth = _turned(points, yaw)
    return np.stack([right, -up + TILT * depth, depth], axis=-1)


def _to_view(directions: Array, yaw: Array) -> Array:
    """Rotate body-frame directions to the picture's axes, seen from as high as `TILT` says: balls stay round."""
    right, up, depth = _turned(directions, yaw)
    cos, sin = np.sqrt(1 - TILT**2), TILT
    return np.stack([right, -up * cos + depth * sin, depth * cos + up * sin], axis=-1)


def make_motion(body: Proportions, action: str, clip_seed: int, num_frames: int) -> Motion:
    """Give the poses of one performance of an action.

    Args:
        body: The figure's measures.
        action: One of `ACTIONS`.
        clip_seed: Which performance: draws phase, tempo, amplitude, direction and place, anew for each action.
        num_frames: Length of the clip at `FPS` frames a second.
    """
    kind = _ACTIONS[action]
    rng = np.random.default_rng([clip_seed, int.from_bytes(action.encode(), "big")])
    start, tempo, amount, turned = rng.uniform(0, 1), rng.uniform(0.87, 1.15), rng.uniform(0.87, 1.08), rng.uniform(-8, 8)
    place, nearness, idle_start = rng.uniform(-0.06, 0.06), rng.uniform(-0.015, 0.015), rng.uniform(0, 2 * np.pi)
    seconds = np.arange(num_frames) / FPS
    phase = 2 * np.pi * (start + kind.cycles_per_second * tempo * seconds)
    idle = np.sin(idle_start + 2 * np.pi * 0.45 * seconds)

    curves = {name: np.full(num_frames, value) for name, value in _REST.items()}
    for name, curve in kind.curves(phase, amount).items():
        curves[name] = np.broadcast_to(curve, (num_frames,)).astype(np.float64)
    curves["roll"] = curves["roll"] + 0.8 * idle
    curves["nod"] = curves["nod"] + 2.0 * idle
    for side in SIDES:
        curves[f"{side}_arm_out"] = curves[f"{side}_arm_out"] + 1.5 * idle

    yaw = np.radians(curves["yaw"] + kind.yaw + turned)
    parts = _legs(curves, body, ("left",) if action == "kick" else SIDES)
    upper, head_axes = _upper_body(curves, body, parts["pelvis"])
    parts |= upper
    joints = _to_picture(np.stack([parts[name] for name in JOINT_NAMES], axis=1), yaw)
    ground = GROUND + nearness
    joints[..., 0] += 0.5 + place + 0.012 * idle[:, None] * (action in ("walk", "jog"))
    joints[..., 1] += ground
    return Motion(joints, _to_view(head_axes, yaw), yaw + np.radians(0.6 * curves["twist"]), curves["lift"], ground)
