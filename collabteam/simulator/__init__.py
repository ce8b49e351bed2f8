"""A simulated fixed camera: object crops with known truth, for the demo, tests and studies.

Every crop is drawn in code from articulated figures before a street, so nobody's data is
needed. The truth of every crop is known, the labels a detector would propose are wrong at a
rate that can be set, and the distribution can be made to drift over the simulated hours:

    from collabteam.simulator import SimulationConfig, check, simulate

    for crop in simulate(SimulationConfig(crops=600, drift=0.5), seed=1):
        print(crop.video, crop.frame, crop.truth, crop.proposed, len(crop.jpeg))

With more than one worker the crops are drawn in processes that import the calling script
again: a script must call `simulate` below `if __name__ == "__main__":`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Literal

import numpy as np
from numpy.random import Generator

from collabteam.machine import processors
from collabteam.settings import SimulationConfig, check
from collabteam.simulator import figures as fg
from collabteam.simulator import scene as sc

__all__ = ["CLASSES", "SimulatedCrop", "SimulationConfig", "simulate"]

CLASSES = ("pedestrian", "cyclist", "motorcyclist")

_START = datetime(2024, 5, 6, 5, tzinfo=UTC)
_FRAME_RATE = 25.0
_MIX = (0.45, 0.30, 0.25)
_TRACKS_PER_TASK = 16
_SMALLEST, _LARGEST = 24, 160

Hard = Literal["", "pushing", "hidden", "tiny", "dark", "pair"]


@dataclass(frozen=True)
class SimulatedCrop:
    """One crop as a detector would cut it out.

    Attributes:
        jpeg: The crop as an RGB JPEG, at most 160 pixels on its long side.
        truth: One of `CLASSES` or "unknown".
        proposed: The label a detector proposes, one of `CLASSES` or "unknown".
        track: Name of the track; all crops of a track show the same object.
        video: Name of the video, one an hour.
        frame: Frame of the video, 25 a second.
        time: Unix time in seconds, UTC.
        box: Left, top, width and height in pixels of a 1280x720 frame.
        split: "pool" or "test", the same for a whole track.
    """

    jpeg: bytes
    truth: str
    proposed: str
    track: str
    video: str
    frame: int
    time: float
    box: tuple[float, float, float, float]
    split: str


def simulate(
    config: SimulationConfig, seed: int = 0, workers: int | None = None
) -> Iterator[SimulatedCrop]:
    """Draws the crops of a simulated camera, in the order of time of their tracks.

    The result depends on `config` and `seed` only, not on `workers`.

    Args:
        config: What the camera sees.
        seed: Seed of the street and of everything in it, at least 0.
        workers: Number of processes, at least 1; None takes one a core.

    Returns:
        An iterator that draws as it is read.

    Raises:
        UserError: A setting is out of its range.
        ValueError: The seed or the number of workers is.
    """
    check(config)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"simulation: seed must be a whole number >= 0, got {seed!r}")
    if workers is None:
        workers = processors()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"simulation: workers must be a whole number >= 1, got {workers!r}")
    return _stream(config, seed, workers)


def _stream(config: SimulationConfig, seed: int, workers: int) -> Iterator[SimulatedCrop]:
    slots = plan_slots(config, seed)
    tasks = [slots[i : i + _TRACKS_PER_TASK] for i in range(0, len(slots), _TRACKS_PER_TASK)]
    workers = min(workers, len(tasks))
    if workers == 1:
        for task in tasks:
            yield from _draw(config, seed, task)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    waiting: deque[Future[list[SimulatedCrop]]] = deque()
    try:
        # A few tasks ahead of the reader keep every worker busy without piling up crops.
        for task in tasks:
            waiting.append(pool.submit(_draw, config, seed, task))
            if len(waiting) > 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Slot:
    """Place of a track in the order: its index, number of crops and crops before it."""

    index: int
    length: int
    before: int


def plan_slots(config: SimulationConfig, seed: int) -> list[Slot]:
    """Divides the crops of a simulation among its tracks."""
    rng = np.random.default_rng([seed, 0, 7])
    slots: list[Slot] = []
    total = 0
    while total < config.crops:
        length = min(int(rng.integers(1, 2 * config.crops_per_track)), config.crops - total)
        slots.append(Slot(len(slots), length, total))
        total += length
    return slots


@dataclass(frozen=True)
class Track:
    """What is decided about a track before anything is drawn.

    `progress` is the share of the span that has passed (0 to 1); `seconds` are the times of
    its crops since the start; `away` is how far the distribution has drifted, -1 to 1.
    """

    slot: Slot
    truth: str
    hard: Hard
    split: str
    proposed: tuple[str, ...]
    seconds: tuple[float, ...]
    progress: float
    away: float


def plan_track(config: SimulationConfig, slot: Slot, rng: Generator) -> Track:
    """Decides truth, hard case, split, times and proposed labels of a track."""
    span = 3600.0 * config.hours
    start = span * (slot.before + float(rng.uniform(0.0, slot.length))) / config.crops
    video = math.floor(min(start, span - 1e-6) / 3600.0)
    first = 3600.0 * video
    # A track stays within its video, so long as that has a frame for each of its crops.
    frames = (min(span, first + 3600.0) - first) * _FRAME_RATE
    stride = max(1, int(min(float(rng.uniform(5.0, 20.0)), 0.5 * frames / slot.length)))
    frame = max(0, int(min((start - first) * _FRAME_RATE, frames - stride * slot.length)))
    seconds = tuple(first + (frame + k * stride) / _FRAME_RATE for k in range(slot.length))
    progress = min(start / span, 1.0)
    away = config.drift * (2.0 * progress - 1.0)
    mix = np.array(_MIX) + away * np.array((-0.20, 0.0, 0.20))
    truth = CLASSES[int(rng.choice(3, p=mix))]
    hard: Hard = ""
    if rng.random() < config.unknown_share:
        truth = "unknown"
    elif rng.random() < config.hard_share:
        kinds: tuple[Hard, ...] = ("pushing", "hidden", "tiny", "dark", "pair")
        odds = (0.35, 0.2, 0.15, 0.15, 0.15) if truth == "pedestrian" else (0, 0.3, 0.25, 0.25, 0.2)
        hard = kinds[int(rng.choice(5, p=odds))]
    split = "test" if rng.random() < config.test_share else "pool"
    proposed = _propose(config, slot, truth, hard, rng)
    return Track(slot, truth, hard, split, proposed, seconds, progress, away)


def _propose(
    config: SimulationConfig, slot: Slot, truth: str, hard: Hard, rng: Generator
) -> tuple[str, ...]:
    """Proposed labels of a track's crops."""
    if truth == "unknown":
        other = CLASSES[int(rng.choice(3, p=(0.45, 0.25, 0.30)))]
        return (other if rng.random() < 0.5 else truth,) * slot.length
    known = 1.0 - config.unknown_share
    rate = max(0.0, config.proposal_error - 0.5 * config.unknown_share) / known
    # Detectors fail more often on hard cases; easy ones make up for it.
    hard_share = config.hard_share
    factor = min(2.5, 0.85 / max(rate, 1e-9), 1.0 / max(hard_share, 1e-9))
    if hard:
        rate *= factor
    elif hard_share < 1.0:
        rate *= (1.0 - factor * hard_share) / (1.0 - hard_share)
    # Three quarters of the wrong labels come in whole tracks, the rest crop by crop.
    bad_track = 0.75 * rate
    odds = 0.9 if rng.random() < bad_track else (rate - 0.9 * bad_track) / (1.0 - bad_track)
    if hard == "pushing":
        confusion = (0.0, 0.9, 0.1)
    elif truth == "pedestrian":
        confusion = (0.0, 0.75, 0.25)
    elif truth == "cyclist":
        confusion = (0.35, 0.0, 0.65)
    else:
        confusion = (0.15, 0.85, 0.0)
    other = CLASSES[int(rng.choice(3, p=confusion))]
    return tuple(other if rng.random() < odds else truth for _ in range(slot.length))


def _draw(config: SimulationConfig, seed: int, slots: list[Slot]) -> list[SimulatedCrop]:
    """Draws the crops of a few tracks; runs in a worker."""
    street = sc.street(seed)
    crops: list[SimulatedCrop] = []
    for slot in slots:
        rng = np.random.default_rng([seed, slot.index])
        track = plan_track(config, slot, rng)
        shots = _shoot(config, track, street, rng)
        for k, (jpeg, box) in enumerate(shots):
            video = int(track.seconds[k] // 3600.0)
            moment = _START + timedelta(hours=video)
            crops.append(
                SimulatedCrop(
                    jpeg=jpeg,
                    truth=track.truth,
                    proposed=track.proposed[k],
                    track=f"track{slot.index:06d}",
                    video=f"camera1-{moment:%Y%m%dT%H}",
                    frame=round((track.seconds[k] - 3600.0 * video) * _FRAME_RATE),
                    time=_START.timestamp() + track.seconds[k],
                    box=box,
                    split=track.split,
                )
            )
    return crops


@dataclass
class _Body:
    """A figure that can be posed for each crop, with its speed in metres a second."""

    kind: str
    look: fg.Look
    gait: fg.Gait
    bike: fg.Bike
    moto: fg.Moto
    passenger: fg.Look | None
    side: float
    speed: float
    phase: float
    still: fg.Figure | None
    lit: bool

    def pose(self, moment: float, rng: Generator) -> fg.Figure:
        """The figure `moment` seconds after the track began."""
        if self.still is not None:
            return self.still
        if self.kind == "pedestrian":
            return fg.walker(self.look, self.gait, self.phase + 6.0 * moment)
        if self.kind == "pushing":
            return fg.pushed_bicycle(
                self.look, self.bike, self.gait, self.phase + 5.5 * moment, self.side
            )
        if self.kind == "cyclist":
            steer = float(rng.normal(0.0, 0.1))
            return fg.cyclist(self.look, self.bike, self.phase + 7.0 * moment, steer)
        if self.kind == "motorcyclist":
            sway = float(rng.normal(0.0, 0.03))
            return fg.motorcyclist(self.look, self.moto, self.passenger, sway)
        return fg.dog(np.random.default_rng(int(self.phase * 1e6)), 8.0 * moment)


def _body(kind: str, rng: Generator, cold: float, rain: bool, dark: bool) -> _Body:
    """Draws who or what a track shows."""
    look = fg.draw_look(rng, cold)
    still: fg.Figure | None = None
    speed = {"pedestrian": 1.3, "pushing": 1.1, "cyclist": 4.5, "motorcyclist": 9.0}.get(kind, 0.0)
    if kind == "unknown":
        kind = ("car", "dog", "pram", "post", "bike", "moto", "bush", "nothing")[
            int(rng.choice(8, p=(0.2, 0.12, 0.12, 0.16, 0.15, 0.1, 0.07, 0.08)))
        ]
        speed = {"car": 8.0, "dog": 1.2}.get(kind, 0.0)
    gait = fg.draw_gait(rng, rain)
    bike = fg.draw_bike(rng, look.height)
    moto = fg.draw_moto(rng)
    if kind == "car":
        still = fg.car(rng)
    elif kind == "pram":
        still = fg.pram(rng)
    elif kind == "post":
        still = fg.post(rng)
    elif kind == "bike":
        still = fg.bicycle(bike, float(rng.normal(0.0, 0.3)))
    elif kind == "moto":
        still = fg.motorcycle(moto)[0]
    elif kind == "bush":
        still = fg.bush(rng)
    elif kind == "nothing":
        still = fg.Figure()
    if kind == "pedestrian" and gait.stride < 0.2:
        speed = 0.05
    odds = {"car": 1.0 if dark else 0.2, "motorcyclist": 0.85, "cyclist": 0.7 if dark else 0.1}
    return _Body(
        kind=kind,
        look=look,
        gait=gait,
        bike=bike,
        moto=moto,
        passenger=fg.draw_look(rng, cold) if rng.random() < 0.1 else None,
        side=1.0 if rng.random() < 0.5 else -1.0,
        speed=speed * float(rng.uniform(0.6, 1.4)),
        phase=float(rng.uniform(0.0, 2 * math.pi)),
        still=still,
        lit=bool(rng.random() < odds.get(kind, 0.0)),
    )


def _conditions(
    config: SimulationConfig, track: Track, rng: Generator
) -> tuple[float, float, float, float]:
    """Hour of the day (0 to 24), rain, fog and cold (0 to 1) of a track."""
    t = track.progress
    drifted = rng.random() < config.drift
    if drifted:
        hour = float(rng.normal(9.0 + 13.5 * t, 0.8)) % 24.0
    elif rng.random() < 0.76:
        hour = float(rng.uniform(7.0, 19.5))
    else:
        hour = float(rng.uniform(19.5, 31.0)) % 24.0
    wet = 0.02 + 0.55 * t * t if drifted else 0.15
    rain = float(rng.uniform(0.2, 1.0)) if rng.random() < wet else 0.0
    fog = float(rng.uniform(0.12, 0.6)) if rng.random() < (0.14 * t if drifted else 0.06) else 0.0
    cold = float(np.clip(rng.normal(t, 0.12), 0.0, 1.0)) if drifted else float(rng.beta(1.2, 1.5))
    if track.hard == "dark":
        hour = float(rng.uniform(21.5, 27.0)) % 24.0
    return hour, rain, fog, cold


def _heading(config: SimulationConfig, track: Track, rng: Generator) -> float:
    """Heading in radians: 0 to the right, pi / 2 away from the camera."""
    if rng.random() < 0.7 * config.drift:
        # From the side at first, from front and rear in the end.
        turn = 0.5 * math.pi * track.progress + float(rng.normal(0.0, 0.3))
        return turn * (1.0 if rng.random() < 0.5 else -1.0) + (
            math.pi if rng.random() < 0.5 else 0.0
        )
    if rng.random() < 0.45:
        return float(rng.normal(0.0, 0.3)) + (math.pi if rng.random() < 0.5 else 0.0)
    return float(rng.uniform(0.0, 2 * math.pi))


def _beside(
    track: Track, rng: Generator, cold: float, rain: bool, dark: bool, heading: float
) -> tuple[_Body, float, float, float] | None:
    """Somebody or something close to the object: body, heading, metres right and away."""
    chance = 1.0 if track.hard in ("pair", "hidden") else 0.11
    if track.truth == "unknown" or rng.random() > chance:
        return None
    if track.hard == "pair":
        own = rng.random() < 0.6
        kind = track.truth if own else CLASSES[int(rng.integers(3))]
        gap = float(rng.uniform(0.5, 0.95)) * (1.0 if rng.random() < 0.5 else -1.0)
        turn = heading + (0.0 if rng.random() < 0.7 else math.pi)
        return (
            _body(kind, rng, cold, rain, dark),
            turn,
            gap,
            float(rng.normal(0.0, 0.5)),
        )
    heavy = track.hard == "hidden"
    near = -float(rng.uniform(0.7, 1.4))
    shift = float(rng.normal(0.0, 0.25 if heavy else 0.6))
    what = rng.random()
    body = _body("pedestrian", rng, cold, rain, dark)
    turn = float(rng.uniform(0.0, 2 * math.pi))
    if what < 0.4:
        body.still = fg.pole(rng)
        if heavy:
            second = fg.pole(rng).moved(0.0, 0.3)
            body.still.add(second)
            turn = 0.5 * math.pi
    elif what < 0.65:
        body.still, turn = fg.car(rng), float(rng.normal(0.0, 0.15))
        near -= 0.8
        shift *= 3.0
    elif what < 0.8:
        body.still = fg.bush(rng)
    return body, turn, shift, near


def _shoot(
    config: SimulationConfig, track: Track, street: sc.Scene, rng: Generator
) -> list[tuple[bytes, tuple[float, float, float, float]]]:
    """Draws a track: the crops' JPEGs and their boxes in the frame."""
    hour, rain, fog, cold = _conditions(config, track, rng)
    air = sc.draw_air(rng, street, hour, rain, fog)
    heading = _heading(config, track, rng)
    dark = air.night > 0.5
    body = _body("pushing" if track.hard == "pushing" else track.truth, rng, cold, rain > 0.0, dark)
    beside = _beside(track, rng, cold, rain > 0.0, dark, heading)
    size = math.exp(float(rng.normal(math.log(76.0) - 0.4 * track.away, 0.42)))
    size = float(np.clip(size, 28.0, 150.0))
    if track.hard == "tiny":
        size = float(rng.uniform(24.0, 32.0))
    blur = 0.005 * size * abs(float(rng.normal(0.0, 1.0))) + 0.009 * size * float(
        rng.random() < 0.12
    )
    exposure = float(rng.exponential(0.18)) * (1.0 + 0.8 * air.night)
    if track.hard == "dark":
        exposure += float(rng.uniform(0.8, 1.8))
        blur += 0.3
    quality = int(rng.integers(35, 91))
    cut = rng.random() < 0.05
    margins = rng.uniform(-0.03, 0.16, 4)
    shots: list[tuple[bytes, tuple[float, float, float, float]]] = []
    stand = _Stand(0.0, 0.0)
    for k, second in enumerate(track.seconds):
        moment = second - track.seconds[0]
        actors = [sc.Actor(body.pose(moment, rng), heading, lit=body.lit)]
        if beside is not None:
            other, turn, right, away = beside
            actors.append(sc.Actor(other.pose(moment, rng), turn, right, away, other.lit))
        if k == 0:
            stand = _first_stand(street, actors[0], size, cut, rng)
            if beside is not None:
                actors[1:] = _step_aside(actors, stand, track.hard)
                # What would hide the object altogether is left out for the whole track.
                beside = (*beside[:2], actors[1].right, beside[3]) if actors[1:] else None
        else:
            stand.move(heading, body.speed * (second - track.seconds[k - 1]))
        jitter = [float(m) for m in margins + rng.normal(0.0, 0.025, 4)]
        smear = _motion(body, heading, stand.scale, exposure)
        lens = sc.Lens(smear, blur, quality)
        shots.append(_crop(street, air, actors, stand, jitter, size, lens, rng))
    return shots


def _motion(body: _Body, heading: float, scale: float, exposure: float) -> tuple[float, float]:
    """Motion on the screen during the exposure, pixels; `exposure` 1 is about 1/30 s."""
    metres = min((body.speed + 0.8) * exposure / 30.0, 0.16)
    flat = math.sin(sc.pitch(scale))
    return metres * scale * math.cos(heading), -metres * scale * math.sin(heading) * flat


def _step_aside(actors: list[sc.Actor], stand: _Stand, hard: Hard) -> list[sc.Actor]:
    """Moves the second actor sideways until a person could still name the first.

    Returns:
        The second actor where it may stand, or nothing if it hides the first anywhere near.
    """
    for shift in (0.0, 0.35, -0.35, 0.7, -0.7):
        other = replace(actors[1], right=actors[1].right + shift)
        shapes = sc.project([actors[0], other], sc.pitch(stand.scale), (0.0, -1.0), 1.0)
        if sc.hidden_share(shapes) < (0.65 if hard else 0.4):
            return [other]
    return []


@dataclass
class _Stand:
    """Where an object stands: pixels per metre there, and metres right of the camera."""

    scale: float
    right: float

    def move(self, heading: float, metres: float) -> None:
        """Goes some metres along the heading, as far as the object stays in sight."""
        deep = sc.distance(self.scale) + metres * math.sin(heading)
        smallest, largest = 0.8 * self.scale, 1.25 * self.scale
        # Scale and distance are each other's inverse, so the same function leads back.
        self.scale = min(max(sc.distance(max(deep, 1.0)), smallest), largest)
        half = 0.5 * sc.FRAME[0] / self.scale
        self.right = min(max(self.right + metres * math.cos(heading), -half), half)


def _first_stand(
    street: sc.Scene, actor: sc.Actor, size: float, cut: bool, rng: Generator
) -> _Stand:
    """Where a track begins: an object about `size` pixels long, on the ground of the street."""
    scale, width = size / 1.7, 1.0
    if actor.figure.parts:
        left, top, right, bottom = sc.bounds(sc.project([actor], 0.25, (0.0, -1.0), size)[0])
        width = right - left
        scale = size / max(width, bottom - top)
    scale = float(np.clip(scale, 8.0, 88.0))
    half = 0.5 * sc.FRAME[0] / scale
    if cut:
        # The edge of the frame cuts the object off, but leaves a third of it in sight.
        side = float(rng.choice((-1.0, 1.0)))
        return _Stand(scale, side * (half + width * float(rng.uniform(-0.4, 0.15))))
    right = 0.0
    for _ in range(12):
        right = half * float(rng.uniform(-0.9, 0.9))
        x, y = sc.place(scale, right)
        if street.ground[min(int(y), street.ground.shape[0] - 1), int(x)]:
            break
    return _Stand(scale, right)


def _crop(
    street: sc.Scene,
    air: sc.Air,
    actors: list[sc.Actor],
    stand: _Stand,
    jitter: list[float],
    size: float,
    lens: sc.Lens,
    rng: Generator,
) -> tuple[bytes, tuple[float, float, float, float]]:
    """Cuts one crop around the first actor; returns JPEG and box in the frame."""
    look = sc.pitch(stand.scale)
    light, _ = sc.screen_light(air, look)
    if not actors[0].figure.parts:
        # A false detection: a piece of street of any shape.
        actors, shapes = [], []
        shape = 10.0 ** float(rng.uniform(-0.35, 0.35))
        half = 0.5 * size / stand.scale / max(shape, 1.0 / shape) ** 0.5
        left, top, right, bottom = -half * shape, -2.0 * half / shape, half * shape, 0.0
    else:
        shapes = sc.project(actors, look, light, size)
        left, top, right, bottom = sc.bounds(shapes[0])
    wide, tall = right - left, bottom - top
    left -= jitter[0] * wide
    right += jitter[1] * wide
    top -= jitter[2] * tall
    bottom += jitter[3] * tall
    # The object comes nearer or goes farther where the crop would be too large or too small.
    long = max(right - left, bottom - top) * stand.scale
    stand.scale *= min(max(long, _SMALLEST + 1.0), _LARGEST - 1.0) / long
    spot = sc.place(stand.scale, stand.right)
    box = sc.clip(
        spot[0] + left * stand.scale,
        spot[1] + top * stand.scale,
        spot[0] + right * stand.scale,
        spot[1] + bottom * stand.scale,
    )
    jpeg = sc.take(street, air, actors, shapes, stand.scale, spot, box, lens, rng)
    return jpeg, (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
