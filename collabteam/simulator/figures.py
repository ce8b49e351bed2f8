"""Bodies and machines of the simulated camera, built from rounded solids in metres.

A figure is a list of convex rounded parts and thin rings. A part is the convex hull of a few
ellipsoids: two spheres make a limb, two flat ellipsoids a torso or a skirt, eight small spheres
a rounded box. The outline of such a hull under a parallel projection is known exactly from its
support function, so that every view (side, oblique, front, rear, from above) and every shadow
comes from one description, without a 3D library.

Coordinates of a figure: x ahead, y to its left, z up, metres, ground at z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Vec = tuple[float, float, float]
Colour = tuple[float, float, float]
Floats = NDArray[np.float64]

RUBBER: Colour = (0.08, 0.08, 0.09)
METAL: Colour = (0.55, 0.56, 0.58)
GLASS: Colour = (0.12, 0.15, 0.18)

_SKINS: tuple[Colour, ...] = (
    (0.91, 0.74, 0.63),
    (0.85, 0.64, 0.50),
    (0.68, 0.47, 0.34),
    (0.42, 0.28, 0.20),
)
_HAIRS: tuple[Colour, ...] = (
    (0.10, 0.08, 0.07),
    (0.25, 0.16, 0.10),
    (0.62, 0.47, 0.26),
    (0.60, 0.60, 0.60),
    (0.40, 0.18, 0.10),
)
_DARK: tuple[Colour, ...] = (
    (0.10, 0.10, 0.11),
    (0.13, 0.16, 0.24),
    (0.24, 0.24, 0.26),
    (0.26, 0.20, 0.15),
    (0.16, 0.22, 0.18),
    (0.30, 0.12, 0.14),
)
_BRIGHT: tuple[Colour, ...] = (
    (0.92, 0.91, 0.88),
    (0.80, 0.15, 0.14),
    (0.93, 0.78, 0.20),
    (0.20, 0.42, 0.78),
    (0.20, 0.60, 0.38),
    (0.93, 0.55, 0.62),
    (0.78, 0.88, 0.16),
    (0.90, 0.45, 0.12),
    (0.55, 0.72, 0.85),
    (0.52, 0.34, 0.62),
    (0.80, 0.72, 0.58),
)
_LEGWEAR: tuple[Colour, ...] = (
    (0.20, 0.28, 0.42),
    (0.34, 0.44, 0.58),
    (0.11, 0.11, 0.12),
    (0.55, 0.48, 0.36),
    (0.36, 0.36, 0.37),
    (0.82, 0.80, 0.76),
    (0.24, 0.27, 0.20),
)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with axes along x, y and z: centre and half axes in metres."""

    centre: Vec
    axes: Vec


@dataclass(frozen=True)
class Part:
    """The convex hull of a few ellipsoids in one colour; `lift` moves it nearer in the order."""

    solids: tuple[Ellipsoid, ...]
    colour: Colour
    lift: float = 0.0


@dataclass(frozen=True)
class Ring:
    """A thin, upright, see-through wheel: `steer` turns it about the vertical (radians)."""

    centre: Vec
    radius: float
    tube: float
    colour: Colour
    steer: float = 0.0


@dataclass(frozen=True)
class Lamp:
    """A lamp that shines along +x (`ahead` = 1) or -x (`ahead` = -1); strength 0 to 1."""

    centre: Vec
    ahead: float
    colour: Colour
    strength: float


@dataclass
class Figure:
    """Parts, rings and lamps of one object in its own frame."""

    parts: list[Part] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)

    def limb(
        self, start: Vec, end: Vec, r0: float, r1: float, colour: Colour, lift: float = 0.0
    ) -> None:
        """Add a tapered rounded limb from `start` (radius `r0`) to `end` (radius `r1`)."""
        self.parts.append(
            Part(
                (Ellipsoid(start, (r0, r0, r0)), Ellipsoid(end, (r1, r1, r1))),
                colour,
                lift,
            )
        )

    def hull(self, colour: Colour, solids: Sequence[tuple[Vec, Vec]], lift: float = 0.0) -> None:
        """Add the hull of ellipsoids given as (centre, half axes)."""
        self.parts.append(Part(tuple(Ellipsoid(c, a) for c, a in solids), colour, lift))

    def slab(
        self,
        profile: Sequence[tuple[float, float]],
        half_width: float,
        colour: Colour,
        radius: float = 0.03,
        lift: float = 0.0,
        y: float = 0.0,
    ) -> None:
        """Add a convex side profile of (x, z) points, extruded to both sides of y."""
        axes = (radius, radius, radius)
        self.hull(
            colour,
            [((x, y + side * half_width, z), axes) for x, z in profile for side in (-1.0, 1.0)],
            lift,
        )

    def tyre(self, x: float, radius: float, half_width: float, y: float = 0.0) -> None:
        """Add a thick closed wheel standing on the ground with a lighter hub."""
        thin = 0.012
        self.hull(
            RUBBER,
            [
                ((x, y - half_width, radius), (radius, thin, radius)),
                ((x, y + half_width, radius), (radius, thin, radius)),
            ],
        )
        for side in (-1.0, 1.0):
            self.hull(
                (0.36, 0.36, 0.38),
                [
                    (
                        (x, y + side * (half_width + 0.01), radius),
                        (0.58 * radius, 0.005, 0.58 * radius),
                    )
                ],
                0.004,
            )

    def moved(self, x: float, y: float, yaw: float = 0.0) -> Figure:
        """Return a copy at (x, y), turned as a whole by a small angle `yaw` (radians).

        Half axes stay along x and y, so the turn is only correct for round or nearly round parts.
        """
        c, s = math.cos(yaw), math.sin(yaw)

        def shift(p: Vec) -> Vec:
            return (x + c * p[0] - s * p[1], y + s * p[0] + c * p[1], p[2])

        def turn(a: Vec) -> Vec:
            return (
                math.hypot(c * a[0], s * a[1]),
                math.hypot(s * a[0], c * a[1]),
                a[2],
            )

        return Figure(
            [
                Part(
                    tuple(Ellipsoid(shift(e.centre), turn(e.axes)) for e in p.solids),
                    p.colour,
                    p.lift,
                )
                for p in self.parts
            ],
            [Ring(shift(r.centre), r.radius, r.tube, r.colour, r.steer + yaw) for r in self.rings],
            [Lamp(shift(m.centre), m.ahead, m.colour, m.strength) for m in self.lamps],
        )

    def add(self, other: Figure) -> None:
        """Add all parts of another figure."""
        self.parts += other.parts
        self.rings += other.rings
        self.lamps += other.lamps


def _pick(rng: Generator, options: Sequence[Colour]) -> Colour:
    """Pick one of the colours, greyed, with small changes of lightness and hue."""
    base = options[int(rng.integers(len(options)))]
    gain = float(rng.uniform(0.75, 1.12))
    fade = float(rng.uniform(0.0, 0.45))
    grey = sum(base) / 3.0
    r, g, b = (
        float(np.clip((v + fade * (grey - v)) * gain + rng.normal(0.0, 0.02), 0.03, 0.95))
        for v in base
    )
    return (r, g, b)


def cloth(rng: Generator, cold: float) -> Colour:
    """A colour of clothing or paint; `cold` 0 (summer, bright) to 1 (winter, dark)."""
    return _pick(rng, _DARK if rng.random() < 0.15 + 0.65 * cold else _BRIGHT)


def _scaled(colour: Colour, gain: float) -> Colour:
    return (colour[0] * gain, colour[1] * gain, colour[2] * gain)


@dataclass(frozen=True)
class Look:
    """Appearance of one person, constant over a track. Lengths in metres."""

    height: float
    girth: float
    skin: Colour
    hair: Colour
    top: Colour
    band: Colour | None
    legs: Colour
    shoes: Colour
    sleeves: bool
    garment: str
    bag: str
    bag_colour: Colour
    head: str
    head_colour: Colour
    long_hair: bool


def draw_look(rng: Generator, cold: float) -> Look:
    """Draw a person's look; `cold` 0 to 1 moves clothes from light to heavy and dark."""
    child = rng.random() < 0.1
    height = float(rng.uniform(1.15, 1.5) if child else np.clip(rng.normal(1.72, 0.09), 1.5, 1.98))
    garment_odds = np.array([0.52, 0.20 * (1 - cold) + 0.02, 0.18 * (1 - 0.6 * cold), 0.45 * cold])
    garment = ("trousers", "shorts", "skirt", "coat")[
        int(rng.choice(4, p=garment_odds / garment_odds.sum()))
    ]
    bag = ("none", "backpack", "shoulder", "hand")[int(rng.choice(4, p=[0.5, 0.24, 0.13, 0.13]))]
    head = ("hair", "cap", "hood", "beanie")[
        int(rng.choice(4, p=[0.74 - 0.2 * cold, 0.12, 0.07 + 0.1 * cold, 0.07 + 0.1 * cold]))
    ]
    return Look(
        height=height,
        girth=float(np.clip(rng.normal(1.0, 0.13), 0.78, 1.4)),
        skin=_pick(rng, _SKINS),
        hair=_pick(rng, _HAIRS),
        top=cloth(rng, cold),
        band=cloth(rng, 0.2) if rng.random() < 0.3 else None,
        legs=_pick(rng, _LEGWEAR if rng.random() < 0.85 else _BRIGHT),
        shoes=_pick(rng, _DARK if rng.random() < 0.6 else _BRIGHT),
        sleeves=bool(rng.random() < 0.3 + 0.65 * cold),
        garment=garment,
        bag=bag,
        bag_colour=cloth(rng, 0.5),
        head=head,
        head_colour=cloth(rng, 0.4),
        long_hair=bool(rng.random() < 0.35),
    )


def _joint(start: Vec, end: Vec, first: float, second: float, bend: Vec) -> tuple[Vec, Vec]:
    """Compute the middle joint and the end of a two-link chain that bends towards `bend`."""
    a = np.array(start)
    d = np.array(end) - a
    length = float(np.linalg.norm(d)) + 1e-9
    axis = d / length
    length = min(length, 0.995 * (first + second))
    along = (first * first - second * second + length * length) / (2 * length)
    side = math.sqrt(max(first * first - along * along, 0.0))
    b = np.array(bend) - axis * float(np.dot(bend, axis))
    b /= float(np.linalg.norm(b)) + 1e-9
    m = a + axis * along + b * side
    e = a + axis * length
    return (float(m[0]), float(m[1]), float(m[2])), (float(e[0]), float(e[1]), float(e[2]))


def _head(fig: Figure, look: Look, neck: Vec, kind: str, colour: Colour, nod: float) -> None:
    """Neck and head above `neck`; kind is a look's head, 'bike' or 'full' or 'open' helmet."""
    h = look.height
    r = 0.062 * max(h, 1.45)
    cx, cy, cz = neck[0] + nod + 0.01, neck[1], neck[2] + 1.55 * r
    fig.limb(neck, (cx - 0.01, cy, cz - 0.4 * r), 0.032 * h, 0.03 * h, look.skin)
    face = (1.02 * r, 0.82 * r, 1.22 * r)
    if kind == "full":
        fig.hull(colour, [((cx, cy, cz + 0.15 * r), (1.45 * r, 1.25 * r, 1.42 * r))], 0.01)
        fig.hull(
            GLASS,
            [((cx + 0.75 * r, cy, cz + 0.22 * r), (0.78 * r, 0.98 * r, 0.42 * r))],
            0.02,
        )
        return
    fig.hull(look.skin, [((cx, cy, cz), face)])
    if kind == "open":
        fig.hull(colour, [((cx - 0.2 * r, cy, cz + 0.45 * r), (1.3 * r, 1.18 * r, 1.12 * r))], 0.01)
        return
    if kind == "bike":
        fig.hull(
            colour,
            [
                ((cx + 0.15 * r, cy, cz + 0.85 * r), (1.25 * r, 0.95 * r, 0.62 * r)),
                ((cx - 0.55 * r, cy, cz + 0.7 * r), (0.8 * r, 0.95 * r, 0.6 * r)),
            ],
            0.012,
        )
        return
    if kind == "hood":
        fig.hull(look.top, [((cx - 0.3 * r, cy, cz + 0.05 * r), (1.15 * r, 1.15 * r, 1.4 * r))])
        return
    hair = (cx - 0.28 * r, cy, cz + 0.35 * r)
    fig.hull(look.hair, [(hair, (0.98 * r, 0.92 * r, 1.05 * r))])
    if look.long_hair:
        fig.limb(
            (cx - 0.7 * r, cy, cz),
            (cx - 0.9 * r, cy, cz - 2.2 * r),
            0.7 * r,
            0.55 * r,
            look.hair,
        )
    if kind == "cap":
        fig.hull(
            colour, [((cx - 0.05 * r, cy, cz + 0.75 * r), (1.12 * r, 0.98 * r, 0.62 * r))], 0.01
        )
        fig.hull(colour, [((cx + 1.2 * r, cy, cz + 0.5 * r), (0.7 * r, 0.7 * r, 0.12 * r))])
    elif kind == "beanie":
        fig.hull(colour, [((cx - 0.1 * r, cy, cz + 0.7 * r), (1.1 * r, 0.98 * r, 0.85 * r))], 0.01)


def _torso(fig: Figure, look: Look, hip: Vec, neck: Vec) -> tuple[Vec, Vec]:
    """Add the trunk from `hip` to `neck`; return the left and right shoulder."""
    h, g = look.height, look.girth

    def at(t: float, back: float = 0.0) -> Vec:
        return (
            hip[0] + t * (neck[0] - hip[0]) - back,
            hip[1] + t * (neck[1] - hip[1]),
            hip[2] + t * (neck[2] - hip[2]),
        )

    shoulder = (0.060 * h * g, 0.112 * h * (0.7 + 0.3 * g), 0.045 * h)
    waist = (0.062 * h * g, 0.080 * h * g, 0.05 * h)
    hips = (0.064 * h * g, 0.090 * h * g, 0.055 * h)
    fig.hull(look.legs if look.garment != "coat" else look.top, [(at(0.0), hips), (at(0.2), waist)])
    fig.hull(look.top, [(at(0.12), waist), (at(0.82), shoulder)], 0.005)
    if look.band is not None:
        fig.hull(
            look.band,
            [(at(0.58), _times(shoulder, 1.02)), (at(0.80), _times(shoulder, 1.02))],
            0.01,
        )
    fig.hull(
        look.top, [(at(0.86), (0.05 * h, 0.085 * h, 0.03 * h)), (at(0.95), (0.03 * h,) * 3)], 0.004
    )
    y = 0.105 * h * (0.7 + 0.3 * g)
    top = at(0.87)
    if look.bag == "backpack":
        back = 0.058 * h * g + 0.07
        fig.hull(
            look.bag_colour,
            [(at(0.35, back), (0.08, 0.13, 0.09)), (at(0.78, back), (0.07, 0.12, 0.08))],
        )
    return (top[0], top[1] + y, top[2]), (top[0], top[1] - y, top[2])


def _times(axes: Vec, gain: float) -> Vec:
    return (axes[0] * gain, axes[1] * gain, axes[2] * gain)


def _arm(fig: Figure, look: Look, shoulder: Vec, hand: Vec, bend: Vec) -> Vec:
    """Add upper arm, forearm and hand towards `hand`; return the position of the hand."""
    h = look.height
    elbow, end = _joint(shoulder, hand, 0.17 * h, 0.165 * h, bend)
    thick = 0.030 if look.garment == "coat" else 0.026
    fig.limb(shoulder, elbow, thick * h * look.girth, 0.024 * h, look.top, 0.004)
    fig.limb(elbow, end, 0.023 * h, 0.018 * h, look.top if look.sleeves else look.skin)
    fig.hull(look.skin, [(end, (0.024 * h, 0.02 * h, 0.026 * h))])
    return end


def _leg(fig: Figure, look: Look, hip: Vec, knee: Vec, ankle: Vec, toe: float) -> None:
    """Thigh, shin and shoe; `toe` is the pitch of the foot in radians (0 = flat)."""
    h, g = look.height, look.girth
    bare = look.garment in ("shorts", "skirt")
    fig.limb(hip, knee, 0.052 * h * g, 0.035 * h, look.legs)
    shin = look.skin if bare else look.legs
    fig.limb(knee, ankle, 0.033 * h, 0.023 * h, shin)
    if look.garment == "shorts":
        # The trouser leg ends a little above the knee: bare skin shows below it.
        low = (0.25 * hip[0] + 0.75 * knee[0], knee[1], 0.25 * hip[2] + 0.75 * knee[2])
        fig.limb(low, knee, 0.036 * h, 0.034 * h, look.skin, -0.01)
        fig.limb(hip, low, 0.056 * h * g, 0.05 * h, look.legs, 0.004)
    reach = 0.105 * h
    fig.limb(
        (ankle[0] - 0.02 * h, ankle[1], ankle[2] - 0.015 * h),
        (
            ankle[0] + reach * math.cos(toe),
            ankle[1],
            ankle[2] - 0.022 * h + reach * math.sin(toe),
        ),
        0.026 * h,
        0.019 * h,
        look.shoes,
    )


@dataclass(frozen=True)
class Gait:
    """A way of walking: `stride` 0 (standing) to 1 (running), lean in radians, habits."""

    stride: float
    lean: float
    hands: str
    umbrella: bool


def draw_gait(rng: Generator, rain: bool) -> Gait:
    """Draw the gait of a person on foot; umbrellas are possible with `rain`."""
    mode = rng.random()
    if mode < 0.22:
        stride, lean = float(rng.uniform(0.0, 0.12)), float(rng.normal(0.0, 0.04))
    elif mode < 0.92:
        stride, lean = float(rng.uniform(0.35, 0.7)), float(rng.normal(0.06, 0.04))
    else:
        stride, lean = float(rng.uniform(0.85, 1.0)), float(rng.uniform(0.12, 0.28))
    hands = ("swing", "phone", "pockets", "carry", "raised")[
        int(rng.choice(5, p=[0.6, 0.13, 0.12, 0.1, 0.05]))
    ]
    return Gait(stride, lean, hands, bool(rain and rng.random() < 0.3))


def walker(look: Look, gait: Gait, phase: float, grip: tuple[Vec, Vec] | None = None) -> Figure:
    """A person on foot at a phase of the gait (radians).

    Args:
        look: Clothes and build.
        gait: Stride, lean and what the hands do.
        phase: Phase of the stride in radians.
        grip: Positions in metres at which the hands hold something (a handlebar, a pram).
    """
    fig = Figure()
    h = look.height
    thigh, shin = 0.245 * h, 0.235 * h
    swing = 0.62 * gait.stride + 0.04
    legs = []
    for side in (1.0, -1.0):
        ph = phase + (0.0 if side > 0 else math.pi)
        a = swing * math.sin(ph) + 0.08 * gait.stride
        flex = 0.06 + (1.35 * gait.stride * max(0.0, math.cos(ph))) ** 1.3 * 0.75
        y = side * 0.052 * h * look.girth
        knee = (thigh * math.sin(a), y * 0.95, -thigh * math.cos(a))
        b = a - flex
        ankle = (knee[0] + shin * math.sin(b), y * 0.85, knee[2] - shin * math.cos(b))
        legs.append(((0.0, y, 0.0), knee, ankle, -0.9 * max(0.0, -b - 0.1)))
    hip_z = 0.045 * h - min(leg[2][2] for leg in legs)
    for hip, knee, ankle, toe in legs:
        _leg(fig, look, _up(hip, hip_z), _up(knee, hip_z), _up(ankle, hip_z), toe)
    trunk = 0.295 * h
    hips = (0.0, 0.0, hip_z + 0.02 * h)
    neck = (trunk * math.sin(gait.lean), 0.0, hips[2] + trunk * math.cos(gait.lean))
    left, right = _torso(fig, look, hips, neck)
    if look.garment == "skirt":
        hem = hip_z - 0.21 * h
        fig.hull(
            look.legs,
            [
                ((0.0, 0.0, hip_z + 0.05 * h), (0.055 * h, 0.08 * h, 0.02 * h)),
                ((0.0, 0.0, hem), (0.075 * h + 0.13 * swing, 0.105 * h, 0.01 * h)),
            ],
            0.02,
        )
    elif look.garment == "coat":
        hem = hip_z - 0.17 * h
        fig.hull(
            look.top,
            [
                ((0.0, 0.0, hip_z + 0.12 * h), (0.066 * h, 0.09 * h, 0.03 * h)),
                ((0.0, 0.0, hem), (0.075 * h + 0.08 * swing, 0.105 * h, 0.01 * h)),
            ],
            0.02,
        )
    for index, (side, shoulder) in enumerate(((1.0, left), (-1.0, right))):
        ph = phase + (math.pi if side > 0 else 0.0)
        if grip is not None:
            hand, bend = grip[index], (-0.3, side * 0.4, -1.0)
        elif gait.hands == "phone" and side > 0:
            hand, bend = (neck[0] + 0.24, 0.04, shoulder[2] - 0.06 * h), (0.2, side, -1.0)
        elif gait.hands == "pockets":
            hand, bend = (0.06, side * 0.12 * h, hip_z + 0.01 * h), (-1.0, side * 0.8, 0.0)
        elif gait.hands == "carry":
            hand, bend = (neck[0] + 0.26, side * 0.08, hip_z + 0.13 * h), (-1.0, side * 0.5, -0.5)
        elif gait.hands == "raised" and side < 0:
            hand, bend = (neck[0] + 0.15, side * 0.3, shoulder[2] + 0.25 * h), (0.0, side, -0.6)
        else:
            arm = (0.9 * swing + 0.03) * math.sin(ph)
            bent = 0.27 * h if gait.stride > 0.8 else 0.325 * h
            hand = (
                shoulder[0] + bent * math.sin(arm) + 0.03,
                shoulder[1] + side * 0.025,
                shoulder[2] - bent * math.cos(arm),
            )
            bend = (-1.0, 0.0, 0.0)
        end = _arm(fig, look, shoulder, hand, bend)
        if look.bag == "hand" and side < 0 and grip is None:
            fig.hull(look.bag_colour, [((end[0], end[1], end[2] - 0.2), (0.15, 0.06, 0.14))])
        if gait.umbrella and side > 0 and grip is None:
            top = (neck[0] + 0.1, 0.08, neck[2] + 0.48)
            fig.limb((neck[0] + 0.16, 0.1, shoulder[2] - 0.1), top, 0.012, 0.012, METAL)
            fig.hull(
                look.bag_colour, [(top, (0.1, 0.1, 0.06)), (_up(top, -0.14), (0.5, 0.5, 0.02))]
            )
    if gait.hands == "carry" and grip is None:
        fig.hull(
            (0.62, 0.48, 0.33),
            [((neck[0] + 0.3, 0.0, hip_z + 0.12 * h), (0.13, 0.2, 0.13))],
        )
    if look.bag == "shoulder":
        fig.hull(
            look.bag_colour, [((-0.04, 0.115 * h * look.girth, hip_z - 0.01), (0.15, 0.06, 0.13))]
        )
    nod = 0.03 + (0.05 if gait.hands == "phone" else 0.0) + 0.15 * gait.lean
    _head(fig, look, neck, look.head, look.head_colour, nod)
    return fig


def _up(p: Vec, dz: float) -> Vec:
    return (p[0], p[1], p[2] + dz)


@dataclass(frozen=True)
class Bike:
    """One bicycle: kind 'city', 'road', 'mountain' or 'cargo'; lengths in metres."""

    kind: str
    wheel: float
    colour: Colour
    extras: tuple[str, ...]
    helmet: bool
    lean: float
    standing: bool
    size: float


def draw_bike(rng: Generator, height: float) -> Bike:
    """Draw a bicycle for a rider of `height` metres and how it is ridden."""
    kind = ("city", "road", "mountain", "cargo")[int(rng.choice(4, p=[0.48, 0.18, 0.26, 0.08]))]
    lean = {"city": 0.25, "road": 0.85, "mountain": 0.5, "cargo": 0.2}[kind]
    extras = tuple(
        name
        for name, odds in (
            ("basket", 0.25 if kind == "city" else 0.03),
            ("panniers", 0.2),
            ("mudguards", 0.5 if kind == "city" else 0.15),
            ("child", 0.08 if kind == "city" else 0.0),
            ("lights", 0.6),
            ("battery", 0.25),
            ("box", 0.08),
        )
        if rng.random() < odds
    )
    return Bike(
        kind=kind,
        wheel=float(rng.uniform(0.32, 0.35)) * (0.8 if height < 1.4 else 1.0),
        colour=cloth(rng, 0.45),
        extras=extras,
        helmet=bool(rng.random() < (0.9 if kind == "road" else 0.45)),
        lean=float(np.clip(rng.normal(lean, 0.1), 0.05, 1.05)),
        standing=bool(rng.random() < 0.07),
        size=float(np.clip(height / 1.72, 0.72, 1.1)),
    )


def bicycle(bike: Bike, steer: float) -> Figure:
    """A bicycle without its rider, `steer` in radians."""
    fig = Figure()
    k, r = bike.size, bike.wheel
    rear, front = -0.5 * k, (0.54 if bike.kind != "cargo" else 0.95) * k
    bb, seat, head = _bike_points(bike)
    width = 0.016 if bike.kind in ("road", "city") else 0.026
    tube = 0.017 if bike.kind == "road" else 0.021
    for x in (rear, front):
        fig.rings.append(Ring((x, 0.0, r), r - width, 2 * width, RUBBER, steer if x > 0 else 0.0))
        fig.rings.append(Ring((x, 0.0, r), r - 2.6 * width, 0.012, METAL, steer if x > 0 else 0.0))
        fig.hull(METAL, [((x, 0.0, r), (0.03, 0.05, 0.03))])
        if "mudguards" in bike.extras:
            for t in (0.5, 1.0, 1.5, 2.0):
                a, b = t, t + 0.5
                fig.limb(
                    (x + (r + 0.03) * math.cos(a), 0.0, r + (r + 0.03) * math.sin(a)),
                    (x + (r + 0.03) * math.cos(b), 0.0, r + (r + 0.03) * math.sin(b)),
                    0.018,
                    0.018,
                    _scaled(bike.colour, 0.5),
                )
    c = bike.colour
    low_head = (head[0] + 0.04 * k, 0.0, head[2] - 0.14 * k)
    seat_post = (seat[0] + 0.02, 0.0, seat[2] - 0.12)
    fig.limb(bb, seat_post, tube, tube, c)
    fig.limb(bb, low_head, tube * 1.2, tube * 1.2, c)
    if bike.kind == "city":
        mid = (0.5 * (bb[0] + seat_post[0]), 0.0, 0.5 * (bb[2] + seat_post[2]))
        fig.limb(mid, low_head, tube, tube, c)
    else:
        fig.limb(seat_post, head, tube, tube, c)
    fig.limb(seat_post, seat, 0.014, 0.014, METAL)
    for y in (-0.05, 0.05):
        fig.limb((rear, y, r), bb, 0.011, 0.011, c)
        fig.limb((rear, y, r), seat_post, 0.010, 0.010, c)
        fig.limb((front, y, r), low_head, 0.014, 0.016, c)
    fig.limb(low_head, _up(head, 0.06), 0.019, 0.016, METAL)
    fig.hull(
        RUBBER,
        [
            ((seat[0] - 0.06, 0.0, seat[2]), (0.07, 0.07, 0.03)),
            ((seat[0] + 0.12, 0.0, seat[2]), (0.05, 0.03, 0.025)),
        ],
    )
    fig.hull(METAL, [((bb[0], -0.06, bb[2]), (0.09, 0.006, 0.09))])
    left, right = _grips(bike, steer)
    bar = (head[0], 0.0, head[2] + 0.07)
    fig.limb(left, bar, 0.015, 0.013, METAL)
    fig.limb(bar, right, 0.013, 0.015, METAL)
    if "basket" in bike.extras:
        fig.slab(
            [
                (front - 0.12, head[2] - 0.2),
                (front + 0.2, head[2] - 0.2),
                (front - 0.14, head[2] + 0.03),
                (front + 0.24, head[2] + 0.03),
            ],
            0.16,
            (0.35, 0.27, 0.18),
            0.01,
        )
    if "panniers" in bike.extras:
        for y in (-0.16, 0.16):
            fig.slab(
                [
                    (rear - 0.16, 0.32),
                    (rear + 0.16, 0.32),
                    (rear - 0.17, 0.68),
                    (rear + 0.17, 0.68),
                ],
                0.05,
                _scaled(bike.colour, 0.45),
                0.04,
                y=y,
            )
    if "child" in bike.extras:
        fig.slab(
            [(rear - 0.08, 0.75), (rear + 0.16, 0.75), (rear - 0.14, 1.1)],
            0.14,
            (0.25, 0.26, 0.3),
            0.04,
        )
        fig.limb((rear + 0.02, 0.0, 0.86), (rear, 0.0, 1.08), 0.11, 0.09, (0.75, 0.3, 0.35))
        fig.hull((0.85, 0.75, 0.3), [((rear, 0.0, 1.26), (0.11, 0.1, 0.11))])
    if "box" in bike.extras and bike.kind != "cargo":
        fig.slab(
            [(rear - 0.22, 0.75), (rear + 0.2, 0.75), (rear - 0.22, 1.15), (rear + 0.2, 1.15)],
            0.2,
            _scaled(bike.colour, 0.9),
            0.02,
        )
    if bike.kind == "cargo":
        fig.slab(
            [(0.42 * k, 0.32), (0.85 * k, 0.32), (0.36 * k, 0.75), (1.0 * k, 0.75)],
            0.28,
            (0.45, 0.33, 0.2),
            0.02,
        )
    if "battery" in bike.extras:
        fig.limb(
            _up(bb, 0.1),
            (0.5 * (bb[0] + low_head[0]), 0.0, 0.5 * (bb[2] + low_head[2]) + 0.03),
            0.05,
            0.05,
            RUBBER,
        )
    if "lights" in bike.extras:
        fig.lamps.append(Lamp((head[0] + 0.1, 0.0, head[2] - 0.05), 1.0, (1.0, 0.97, 0.88), 0.45))
        fig.lamps.append(Lamp((rear - 0.1, 0.0, 0.72), -1.0, (1.0, 0.12, 0.08), 0.35))
    return fig


def _bike_points(bike: Bike) -> tuple[Vec, Vec, Vec]:
    """Bottom bracket, saddle and top of the head tube."""
    k = bike.size
    bb = (-0.06 * k, 0.0, 0.29 * (0.5 + 0.5 * k))
    seat = (-0.24 * k, 0.0, 0.97 * k)
    head = (0.36 * k, 0.0, (0.98 if bike.kind in ("city", "cargo") else 0.88) * k)
    return bb, seat, head


def _grips(bike: Bike, steer: float) -> tuple[Vec, Vec]:
    """Left and right end of the handlebar."""
    _, _, head = _bike_points(bike)
    half = {"road": 0.2, "mountain": 0.32}.get(bike.kind, 0.27)
    rise = {"road": 0.03, "city": 0.13, "cargo": 0.12}.get(bike.kind, 0.09)
    ahead = {"road": 0.1, "city": -0.1}.get(bike.kind, 0.0)
    c, s = math.cos(steer), math.sin(steer)
    left = (head[0] + ahead * c - half * s, half * c + ahead * s, head[2] + rise)
    right = (head[0] + ahead * c + half * s, -half * c + ahead * s, head[2] + rise)
    return left, right


def _rider(
    fig: Figure,
    look: Look,
    hip: Vec,
    lean: float,
    grips: tuple[Vec, Vec],
    feet: tuple[Vec, Vec],
    helmet: str,
    helmet_colour: Colour,
    spread: float,
    toes: tuple[float, float],
) -> None:
    """A seated person: hands on `grips`, feet at `feet`, knees `spread` metres apart."""
    h = look.height
    thigh, shin = 0.25 * h, 0.245 * h
    for side, foot, toe in ((1.0, feet[0], toes[0]), (-1.0, feet[1], toes[1])):
        joint = (hip[0] + 0.02, hip[1] + side * 0.055 * h, hip[2])
        ankle = (foot[0] - 0.08, foot[1], foot[2] + 0.07)
        knee, end = _joint(joint, ankle, thigh, shin, (1.0, side * spread, 0.35))
        _leg(fig, look, joint, knee, end, toe)
        if look.garment in ("skirt", "coat"):
            cover = look.legs if look.garment == "skirt" else look.top
            low = tuple(0.35 * a + 0.65 * b for a, b in zip(joint, knee, strict=True))
            fig.limb(joint, (low[0], low[1], low[2]), 0.065 * h, 0.06 * h, cover, 0.006)
    trunk = 0.31 * h
    neck = (
        hip[0] + trunk * math.sin(lean),
        hip[1],
        hip[2] + 0.03 + trunk * math.cos(lean),
    )
    left, right = _torso(fig, look, _up(hip, 0.03), neck)
    for side, shoulder, grip in ((1.0, left, grips[0]), (-1.0, right, grips[1])):
        _arm(fig, look, shoulder, grip, (-0.2, side * 0.9, -0.9))
    _head(fig, look, neck, helmet, helmet_colour, 0.03 + 0.07 * lean)


def cyclist(look: Look, bike: Bike, phase: float, steer: float) -> Figure:
    """A person riding `bike`, pedals at `phase` (radians)."""
    fig = bicycle(bike, steer)
    bb, seat, _ = _bike_points(bike)
    crank = 0.17 * bike.size
    feet: list[Vec] = []
    toes: list[float] = []
    for side in (1.0, -1.0):
        a = phase + (0.0 if side > 0 else math.pi)
        pedal = (bb[0] + crank * math.cos(a), side * 0.12, bb[2] - crank * math.sin(a))
        fig.limb(
            (bb[0], side * 0.07, bb[2]), (pedal[0], side * 0.07, pedal[2]), 0.012, 0.012, METAL
        )
        feet.append((pedal[0], pedal[1], pedal[2] + 0.02))
        toes.append(-0.25 * math.cos(a - 0.6))
    hip = (seat[0] - 0.02, 0.0, seat[2] + 0.07 * bike.size)
    lean = bike.lean
    if bike.standing:
        hip = (seat[0] + 0.14, 0.0, seat[2] + 0.16)
        lean = max(lean, 0.7)
    _rider(
        fig,
        look,
        hip,
        lean,
        _grips(bike, steer),
        (feet[0], feet[1]),
        "bike" if bike.helmet else look.head,
        look.head_colour,
        0.1,
        (toes[0], toes[1]),
    )
    return fig


@dataclass(frozen=True)
class Moto:
    """One powered two-wheeler: 'scooter', 'naked', 'sport', 'cruiser' or 'moped'."""

    kind: str
    colour: Colour
    second: Colour
    helmet: str
    helmet_colour: Colour
    case: bool
    screen: bool
    lean: float


def draw_moto(rng: Generator) -> Moto:
    """Draw a motorcycle and how it is ridden."""
    kind = ("scooter", "naked", "sport", "cruiser", "moped")[
        int(rng.choice(5, p=[0.34, 0.22, 0.16, 0.10, 0.18]))
    ]
    lean = {"scooter": 0.08, "naked": 0.3, "sport": 0.7, "cruiser": -0.05, "moped": 0.12}[kind]
    return Moto(
        kind=kind,
        colour=cloth(rng, 0.4),
        second=cloth(rng, 0.7),
        helmet=("full", "open", "bike")[int(rng.choice(3, p=[0.66, 0.29, 0.05]))],
        helmet_colour=cloth(rng, 0.5),
        case=bool(rng.random() < (0.35 if kind in ("scooter", "moped") else 0.15)),
        screen=bool(rng.random() < 0.3),
        lean=float(rng.normal(lean, 0.07)),
    )


def motorcycle(moto: Moto) -> tuple[Figure, Vec, tuple[Vec, Vec], tuple[Vec, Vec]]:
    """A motorcycle without rider; returns figure, seat (hip), grips and feet."""
    fig = Figure()
    c, d = moto.colour, moto.second
    if moto.kind == "scooter":
        r = 0.235
        rear, front = -0.62, 0.66
        fig.tyre(rear, r, 0.05)
        fig.tyre(front, r, 0.05)
        fig.slab([(-0.4, 0.26), (0.3, 0.26), (0.34, 0.32), (-0.35, 0.36)], 0.16, _scaled(d, 0.6))
        fig.slab(
            [(-0.9, 0.58), (-0.78, 0.74), (-0.2, 0.72), (-0.24, 0.36), (-0.62, 0.42)], 0.15, c, 0.05
        )
        fig.slab(
            [(-0.92, 0.78), (-0.2, 0.76), (-0.25, 0.81), (-0.85, 0.83)], 0.12, RUBBER, 0.03, 0.01
        )
        fig.slab([(0.3, 0.3), (0.42, 0.32), (0.46, 0.92), (0.38, 0.94)], 0.19, c, 0.04)
        fig.slab([(0.42, 0.88), (0.56, 0.92), (0.46, 1.03), (0.36, 1.02)], 0.13, c, 0.04)
        fig.limb((0.48, 0.0, 0.5), (front, 0.0, r), 0.04, 0.04, METAL)
        fig.hull(_scaled(c, 0.9), [((front - 0.02, 0.0, 0.46), (0.2, 0.07, 0.06))], 0.01)
        fig.limb((-0.75, -0.17, 0.26), (-0.5, -0.16, 0.3), 0.05, 0.04, METAL)
        hip = (-0.42, 0.0, 0.92)
        grips = ((0.34, 0.31, 1.05), (0.34, -0.31, 1.05))
        feet = ((0.2, 0.14, 0.36), (0.2, -0.14, 0.36))
        lamp_z, lamp_x, tail = 0.97, 0.55, (-0.95, 0.0, 0.68)
    elif moto.kind == "moped":
        r = 0.29
        rear, front = -0.6, 0.62
        fig.tyre(rear, r, 0.032)
        fig.tyre(front, r, 0.032)
        fig.slab(
            [(-0.42, 0.24), (0.02, 0.24), (0.0, 0.46), (-0.38, 0.48)], 0.1, (0.28, 0.28, 0.3), 0.04
        )
        fig.limb((-0.5, 0.0, 0.62), (0.4, 0.0, 0.55), 0.055, 0.05, c)
        fig.limb((0.1, 0.0, 0.42), (0.4, 0.0, 0.8), 0.05, 0.05, c)
        fig.slab([(-0.78, 0.74), (-0.12, 0.76), (-0.15, 0.8), (-0.74, 0.8)], 0.1, RUBBER, 0.03)
        fig.hull(c, [((0.08, 0.0, 0.68), (0.2, 0.1, 0.1))])
        fig.hull(_scaled(c, 0.9), [((rear, 0.0, 0.56), (0.26, 0.07, 0.05))])
        fig.hull(_scaled(c, 0.9), [((front, 0.0, 0.56), (0.24, 0.06, 0.05))])
        for y in (-0.06, 0.06):
            fig.limb((front, y, r), (0.42, y, 0.86), 0.024, 0.024, METAL)
            fig.limb((rear, y, r), (-0.52, y, 0.66), 0.024, 0.024, METAL)
        fig.limb((-0.15, -0.12, 0.26), (-0.8, -0.13, 0.3), 0.035, 0.04, METAL)
        hip = (-0.36, 0.0, 0.9)
        grips = ((0.3, 0.32, 1.04), (0.3, -0.32, 1.04))
        feet = ((0.02, 0.15, 0.32), (0.02, -0.15, 0.32))
        lamp_z, lamp_x, tail = 0.9, 0.52, (-0.86, 0.0, 0.66)
    else:
        r = 0.315
        long = 0.12 if moto.kind == "cruiser" else 0.0
        rear, front = -0.68, 0.72 + long
        fig.tyre(rear, r, 0.08)
        fig.tyre(front, r, 0.055)
        fig.slab(
            [(-0.3, 0.24), (0.28, 0.24), (0.34, 0.5), (0.2, 0.62), (-0.3, 0.6)],
            0.15,
            (0.2, 0.2, 0.22),
            0.05,
        )
        fig.hull((0.45, 0.45, 0.47), [((0.0, 0.0, 0.4), (0.17, 0.2, 0.11))], 0.005)
        fig.hull(
            c,
            [((0.08, 0.0, 0.82), (0.24, 0.15, 0.13)), ((-0.18, 0.0, 0.77), (0.08, 0.1, 0.07))],
            0.01,
        )
        seat_z = 0.68 if moto.kind == "cruiser" else 0.78
        rise = 0.14 if moto.kind == "sport" else 0.03
        fig.slab(
            [
                (-0.8, seat_z + rise),
                (-0.16, seat_z - 0.02),
                (-0.2, seat_z + 0.03),
                (-0.78, seat_z + rise + 0.05),
            ],
            0.1,
            RUBBER,
            0.04,
        )
        fig.slab(
            [(-0.92, seat_z + rise), (-0.3, seat_z - 0.12), (-0.32, seat_z - 0.04)], 0.09, c, 0.04
        )
        fig.hull(_scaled(d, 0.8), [((front, 0.0, 2 * r + 0.02), (0.2, 0.07, 0.05))])
        bar = (0.42, 0.0, 1.02)
        for y in (-0.09, 0.09):
            fig.limb((front, y, r), (0.46, y, 0.98), 0.032, 0.028, METAL)
            fig.limb((rear, y, r), (-0.2, y, 0.5), 0.04, 0.035, (0.3, 0.3, 0.32))
        fig.limb((0.1, -0.17, 0.28), (-0.55, -0.2, 0.34), 0.035, 0.055, METAL)
        fig.limb((-0.55, -0.2, 0.34), (-0.88, -0.2, 0.48), 0.06, 0.06, METAL)
        if moto.kind == "sport":
            fig.slab(
                [(0.2, 0.34), (0.42, 0.4), (0.62, 0.8), (0.74, 0.86), (0.5, 1.04), (0.2, 0.76)],
                0.17,
                c,
                0.05,
                0.005,
            )
            fig.slab([(0.4, 1.02), (0.62, 0.96), (0.42, 1.14)], 0.1, (0.3, 0.35, 0.4), 0.02)
        elif moto.screen:
            fig.slab([(0.52, 0.95), (0.44, 1.3)], 0.17, (0.35, 0.4, 0.45), 0.02)
        fig.hull(_scaled(d, 0.7), [((0.56, 0.0, 0.96), (0.1, 0.1, 0.1))])
        hip = (-0.32 if moto.kind != "sport" else -0.38, 0.0, seat_z + 0.14)
        half = 0.36 if moto.kind != "sport" else 0.28
        z = {"sport": 0.94, "naked": 1.05, "cruiser": 1.14}[moto.kind]
        back = 0.36 if moto.kind != "cruiser" else 0.26
        grips = ((back, half, z), (back, -half, z))
        for g in grips:
            fig.limb(bar, g, 0.016, 0.02, RUBBER)
        if moto.kind == "cruiser":
            feet = ((0.38, 0.22, 0.3), (0.38, -0.22, 0.3))
        elif moto.kind == "sport":
            feet = ((-0.32, 0.2, 0.4), (-0.32, -0.2, 0.4))
        else:
            feet = ((-0.12, 0.2, 0.34), (-0.12, -0.2, 0.34))
        lamp_z, lamp_x, tail = 0.95, 0.68, (-0.96, 0.0, seat_z + rise)
    if moto.kind in ("scooter", "moped"):
        for g in grips:
            fig.limb((0.38, 0.0, 1.02), g, 0.018, 0.02, RUBBER)
    for g in grips:
        side = 1.0 if g[1] > 0 else -1.0
        mirror = (g[0] + 0.04, g[1] + 0.05 * side, g[2] + 0.17)
        fig.limb((g[0], g[1] * 0.8, g[2]), mirror, 0.008, 0.008, RUBBER)
        fig.hull(RUBBER, [(mirror, (0.02, 0.06, 0.04))])
    if moto.screen and moto.kind in ("scooter", "moped"):
        fig.slab([(0.48, 1.0), (0.38, 1.36)], 0.2, (0.5, 0.54, 0.58), 0.015)
    if moto.case:
        x, z = tail[0] + 0.06, tail[2] + 0.16
        fig.slab(
            [(x - 0.2, z), (x + 0.2, z), (x - 0.2, z + 0.36), (x + 0.2, z + 0.36)], 0.2, d, 0.03
        )
    fig.hull((0.92, 0.92, 0.86), [((lamp_x, 0.0, lamp_z), (0.05, 0.08, 0.07))], 0.01)
    fig.hull((0.7, 0.08, 0.08), [(tail, (0.03, 0.07, 0.04))], 0.01)
    fig.lamps.append(Lamp((lamp_x + 0.08, 0.0, lamp_z), 1.0, (1.0, 0.96, 0.85), 1.0))
    fig.lamps.append(Lamp(tail, -1.0, (1.0, 0.1, 0.06), 0.5))
    return fig, hip, grips, feet


def motorcyclist(look: Look, moto: Moto, passenger: Look | None, sway: float) -> Figure:
    """A person riding `moto`, at times with a passenger behind; `sway` moves the trunk (rad)."""
    fig, hip, grips, feet = motorcycle(moto)
    knees = 0.25 if moto.kind in ("scooter", "moped") else 0.45
    _rider(
        fig,
        look,
        hip,
        moto.lean + sway,
        grips,
        feet,
        moto.helmet,
        moto.helmet_colour,
        knees,
        (0.0, 0.0),
    )
    if passenger is not None:
        seat = (hip[0] - 0.38, 0.0, hip[2] + 0.07)
        sides = ((hip[0] - 0.02, 0.2, hip[2] + 0.15), (hip[0] - 0.02, -0.2, hip[2] + 0.15))
        rests = ((feet[0][0] - 0.35, 0.22, 0.42), (feet[1][0] - 0.35, -0.22, 0.42))
        _rider(
            fig,
            passenger,
            seat,
            moto.lean + 0.1,
            sides,
            rests,
            moto.helmet,
            passenger.head_colour,
            0.4,
            (0.0, 0.0),
        )
    return fig


def pushed_bicycle(look: Look, bike: Bike, gait: Gait, phase: float, side: float) -> Figure:
    """A person on foot who pushes a bicycle; `side` is 1 (bicycle on the left) or -1."""
    y = side * 0.42
    left, right = _grips(bike, 0.0)
    near = (left[0] - 0.25, left[1] + y, left[2])
    far = (right[0] - 0.25, right[1] + y, right[2])
    hands = (near, far) if side < 0 else (far, near)
    inner = hands[0] if side > 0 else hands[1]
    loose = (0.05, -side * 0.3, 0.75)
    grip = (inner, loose) if side > 0 else (loose, inner)
    person = walker(look, gait, phase, grip)
    fig = bicycle(bike, 0.0).moved(-0.25, y)
    fig.add(person)
    return fig


def pram(rng: Generator) -> Figure:
    """A pram or shopping trolley without a person."""
    fig = Figure()
    c = cloth(rng, 0.5)
    if rng.random() < 0.5:
        fig.slab([(-0.3, 0.5), (0.4, 0.5), (-0.36, 0.75), (0.46, 0.78)], 0.22, c, 0.05)
        fig.hull(_scaled(c, 0.7), [((0.3, 0.0, 0.9), (0.25, 0.24, 0.22))])
    else:
        fig.slab(
            [(-0.35, 0.5), (0.35, 0.55), (-0.4, 0.95), (0.45, 0.9)], 0.24, (0.5, 0.5, 0.53), 0.02
        )
        fig.slab([(-0.25, 0.6), (0.3, 0.6), (-0.25, 0.9), (0.3, 0.88)], 0.2, c, 0.03, 0.02)
    for y in (-0.22, 0.22):
        fig.limb((-0.3, y, 0.5), (-0.55, y, 1.05), 0.018, 0.018, METAL)
        for x in (-0.32, 0.35):
            fig.limb((x, y, 0.12), (0.1, y, 0.5), 0.015, 0.015, METAL)
            fig.rings.append(Ring((x, y, 0.12), 0.11, 0.04, RUBBER))
    fig.limb((-0.55, -0.22, 1.05), (-0.55, 0.22, 1.05), 0.02, 0.02, RUBBER)
    return fig


def car(rng: Generator) -> Figure:
    """A car or a van."""
    fig = Figure()
    c = cloth(rng, 0.5)
    van = rng.random() < 0.3
    half = float(rng.uniform(0.8, 0.92))
    length = float(rng.uniform(1.75, 2.2)) + (0.4 if van else 0.0)
    belt, roof = (
        (1.05, float(rng.uniform(1.9, 2.2))) if van else (0.88, float(rng.uniform(1.4, 1.65)))
    )
    fig.slab(
        [(-length, 0.35), (length, 0.35), (-length, belt), (0.5 * length, belt), (length, 0.68)],
        half,
        c,
        0.08,
    )
    tail = -0.97 * length if van else float(rng.uniform(-0.95, -0.7)) * length
    nose = 0.62 * length if van else 0.42 * length
    fig.slab(
        [(tail, belt), (nose, belt), (tail + 0.25, roof - 0.08), (nose - 0.6, roof - 0.08)],
        half - 0.12,
        GLASS if not van else _scaled(c, 0.95),
        0.06,
        0.3,
    )
    fig.slab(
        [(tail + 0.2, roof - 0.03), (nose - 0.6, roof - 0.03)],
        half - 0.14,
        _scaled(c, 1.05),
        0.05,
        0.6,
    )
    for x in (-0.62 * length, 0.6 * length):
        for y in (-half, half):
            fig.tyre(x, 0.32, 0.08, y * 0.97)
    for y in (-0.6 * half, 0.6 * half):
        fig.hull((0.9, 0.9, 0.85), [((length + 0.06, y, 0.65), (0.04, 0.16, 0.07))], 0.3)
        fig.hull((0.65, 0.08, 0.08), [((-length - 0.06, y, 0.75), (0.04, 0.13, 0.08))], 0.3)
        fig.lamps.append(Lamp((length + 0.1, y, 0.65), 1.0, (1.0, 0.97, 0.88), 0.9))
        fig.lamps.append(Lamp((-length - 0.1, y, 0.75), -1.0, (1.0, 0.1, 0.06), 0.45))
    return fig


def dog(rng: Generator, phase: float) -> Figure:
    """A walking dog."""
    fig = Figure()
    c = _pick(rng, _HAIRS)
    k = float(rng.uniform(0.7, 1.2))
    z = 0.48 * k
    fig.hull(
        c,
        [
            ((-0.25 * k, 0.0, z), (0.13 * k, 0.1 * k, 0.11 * k)),
            ((0.22 * k, 0.0, z + 0.02), (0.14 * k, 0.12 * k, 0.14 * k)),
        ],
    )
    fig.limb((0.3 * k, 0.0, z + 0.08), (0.44 * k, 0.0, z + 0.24 * k), 0.08 * k, 0.07 * k, c)
    fig.limb((0.45 * k, 0.0, z + 0.26 * k), (0.62 * k, 0.0, z + 0.2 * k), 0.09 * k, 0.045 * k, c)
    fig.limb((-0.36 * k, 0.0, z + 0.05), (-0.56 * k, 0.0, z + 0.22 * k), 0.035 * k, 0.02 * k, c)
    for x, y, ph in (
        (0.25, 0.07, 0.0),
        (0.25, -0.07, 3.1),
        (-0.28, 0.07, 3.1),
        (-0.28, -0.07, 0.0),
    ):
        swing = 0.12 * k * math.sin(phase + ph)
        fig.limb(
            (x * k, y * k, z), (x * k + swing, y * k, 0.03), 0.05 * k, 0.03 * k, _scaled(c, 0.85)
        )
    return fig


def post(rng: Generator) -> Figure:
    """A traffic sign, a bollard, a bin or a hydrant."""
    fig = Figure()
    kind = rng.random()
    c = cloth(rng, 0.3)
    if kind < 0.4:
        top = float(rng.uniform(1.6, 2.3))
        fig.limb((0.0, 0.0, 0.0), (0.0, 0.0, top), 0.035, 0.035, METAL)
        plate = float(rng.uniform(0.22, 0.35))
        fig.hull((0.9, 0.9, 0.9), [((0.03, 0.0, top), (0.015, plate, plate))], 0.02)
        fig.hull(c, [((0.05, 0.0, top), (0.01, 0.75 * plate, 0.75 * plate))], 0.05)
    elif kind < 0.7:
        fig.limb((0.0, 0.0, 0.05), (0.0, 0.0, 0.95), 0.1, 0.09, _scaled(c, 0.8))
        fig.limb((0.0, 0.0, 0.7), (0.0, 0.0, 0.8), 0.1, 0.1, (0.9, 0.9, 0.9), 0.02)
    else:
        fig.hull(
            _scaled(c, 0.6),
            [((0.0, 0.0, 0.08), (0.22, 0.25, 0.08)), ((0.0, 0.0, 0.9), (0.27, 0.3, 0.06))],
        )
        fig.hull(RUBBER, [((0.0, 0.0, 1.0), (0.28, 0.31, 0.06))])
    return fig


def bush(rng: Generator) -> Figure:
    """A shrub: a heap of green ellipsoids."""
    fig = Figure()
    for _ in range(14):
        x, y = rng.uniform(-0.5, 0.5, 2)
        z = rng.uniform(0.15, 1.1)
        r = rng.uniform(0.15, 0.35)
        g = rng.uniform(0.18, 0.42)
        fig.hull(
            (0.6 * float(g), float(g), 0.35 * float(g)),
            [((float(x), float(y), float(z)), (float(r), float(r), float(r) * 0.8))],
        )
    return fig


def pole(rng: Generator) -> Figure:
    """A lamp post or a tree trunk that may stand in front of an object."""
    fig = Figure()
    r = float(rng.uniform(0.06, 0.17))
    c = (0.3, 0.23, 0.17) if rng.random() < 0.4 else (0.42, 0.44, 0.45)
    fig.limb((0.0, 0.0, 0.0), (0.0, 0.0, 5.0), r * 1.1, r, c)
    return fig


@dataclass(frozen=True)
class View:
    """View of a figure: heading and camera pitch in radians, pixels per metre."""

    heading: float
    pitch: float
    scale: float


def projection(view: View) -> Floats:
    """Rows of (right, down, away) per metre of (x, y, z) in the figure's frame, in pixels."""
    c, s = math.cos(view.heading), math.sin(view.heading)
    cp, sp = math.cos(view.pitch), math.sin(view.pitch)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    screen = np.array([[1.0, 0.0, 0.0], [0.0, -sp, -cp], [0.0, cp, -sp]])
    result: Floats = view.scale * (screen @ turn)
    return result


_ANGLES = np.linspace(0.0, 2 * math.pi, 20, endpoint=False)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_RING_ANGLES = np.linspace(0.0, 2 * math.pi, 25)


@dataclass(frozen=True)
class Outlines:
    """Projected figure in pixels: one polygon per part and tone, one line per ring.

    Attributes:
        polygons: (parts, tones, 20, 2) outline points.
        lines: (rings, 25, 2) points along each ring.
        depth: Depth of each part, then of each ring (larger = farther away).
    """

    polygons: Floats
    lines: Floats
    depth: Floats


def outline(
    figure: Figure,
    matrix: Floats,
    tones: Sequence[tuple[float, float]] = ((1.0, 0.0),),
    light: tuple[float, float] = (0.0, -1.0),
) -> Outlines:
    """Project a figure.

    Args:
        figure: What to project.
        matrix: 3x3 rows of (right, down, away), as `projection` gives.
        tones: For each tone how far the outline shrinks towards the middle of its solids
            (1 = not at all) and how far it then moves towards the light (0 to 1).
        light: Direction on the screen from which light comes, unit length (right, down).

    Returns:
        Polygons and lines with the figure's origin at (0, 0).
    """
    count = len(figure.parts)
    most = max((len(p.solids) for p in figure.parts), default=1)
    # Shorter hulls repeat their first solid, which changes no hull.
    flat = [
        solid
        for p in figure.parts
        for solid in (p.solids + (p.solids[0],) * (most - len(p.solids)))
    ]
    centres = np.array([e.centre for e in flat], dtype=np.float64).reshape(count, most, 3)
    axes = np.array([e.axes for e in flat], dtype=np.float64).reshape(count, most, 3)
    middle = centres @ matrix[:2].T
    spread = matrix[None, None, :2, :] * axes[:, :, None, :]
    reach = np.einsum("nmij,ik->nmjk", spread, _DIRECTIONS)
    norm = np.sqrt((reach**2).sum(axis=2)) + 1e-9
    support = middle @ _DIRECTIONS + norm
    best = support.argmax(axis=1)
    rim = np.einsum("nmij,nmjk->nmki", spread, reach) / norm[..., None]
    rows = np.arange(count)[:, None]
    cols = np.arange(_DIRECTIONS.shape[1])[None, :]
    offset = rim[rows, best, cols]
    base = middle[rows, best]
    towards = np.einsum("nmij,i->nmj", spread, np.array(light))
    length = np.sqrt((towards**2).sum(axis=2)) + 1e-9
    push = np.einsum("nmij,nmj->nmi", spread, towards) / length[..., None]
    push = push[rows, best]
    polygons = np.stack([base + s * offset + k * push for s, k in tones], axis=1)
    depth = (centres @ matrix[2]).mean(axis=1) - np.array([p.lift for p in figure.parts]) * float(
        np.linalg.norm(matrix[2])
    )
    lines = np.zeros((len(figure.rings), _RING_ANGLES.size, 2))
    far = np.zeros(len(figure.rings))
    for i, ring in enumerate(figure.rings):
        ahead = ring.radius * np.cos(_RING_ANGLES)
        points = np.stack(
            [
                ring.centre[0] + ahead * math.cos(ring.steer),
                ring.centre[1] + ahead * math.sin(ring.steer),
                ring.centre[2] + ring.radius * np.sin(_RING_ANGLES),
            ],
            axis=1,
        )
        lines[i] = points @ matrix[:2].T
        far[i] = float(np.array(ring.centre) @ matrix[2])
    return Outlines(polygons, lines, np.concatenate([depth, far]))
