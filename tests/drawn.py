"""Short clips drawn in code, and a detector that finds what is drawn in them.

A person is a red rectangle, a bicycle a green one, a motorcycle a blue one; stripes make them
sharp.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from collabteam.video.objects import Objects

SIZE = (320, 240)
_HUES = {"person": (220, 30, 30), "bicycle": (30, 200, 30), "motorcycle": (40, 40, 230)}


@dataclass(frozen=True)
class Actor:
    """Something that moves in a straight line: kind, box at frame 0, pixels per frame."""

    kind: str
    box: tuple[float, float, float, float]
    step: tuple[float, float] = (0.0, 0.0)
    first: int = 0
    last: int = 10_000

    def at(self, frame: int) -> tuple[int, int, int, int]:
        x, y = self.step[0] * frame, self.step[1] * frame
        left, top, right, bottom = self.box
        return round(left + x), round(top + y), round(right + x), round(bottom + y)


def rider(kind: str, left: float, step: float, top: float = 60) -> tuple[Actor, Actor]:
    """A person on a bicycle or motorcycle."""
    vehicle = Actor(kind, (left, top + 45, left + 60, top + 90), (step, 0))
    person = Actor("person", (left + 15, top, left + 45, top + 70), (step, 0))
    return vehicle, person  # the person is drawn last and hides part of the vehicle


def walker(left: float, top: float, step: float = 2.0) -> Actor:
    return Actor("person", (left, top, left + 26, top + 70), (step, 0))


def scene(actors: Sequence[Actor], frame: int) -> NDArray[np.uint8]:
    picture = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    for actor in actors:
        if not actor.first <= frame <= actor.last:
            continue
        left, top, right, bottom = actor.at(frame)
        if right <= 0 or left >= SIZE[0]:
            continue
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), _HUES[actor.kind], -1)
        for y in range(top + 4, bottom - 2, 8):
            dark = tuple(int(part * 0.75) for part in _HUES[actor.kind])
            cv2.line(picture, (left + 2, y), (right - 3, y), dark, 2)
    return picture


def film(to: Path, actors: Sequence[Actor], frames: int = 40, fps: int = 10) -> Path:
    """Write a clip of the actors; the same every time."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(to), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in range(frames):
            picture = av.VideoFrame.from_ndarray(scene(actors, frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return to


class Colours:
    """Finds the rectangles by their colours.

    Args:
        wait: Seconds that each frame takes, as a slow detector would.
    """

    names = ("person", "bicycle", "motorcycle")

    def __init__(self, wait: float = 0.0) -> None:
        self.wait = wait

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
        time.sleep(self.wait * len(images))
        return [self._one(image) for image in images]

    def _one(self, image: NDArray[np.uint8]) -> Objects:
        rows = []
        for channel, kind in enumerate(self.names):
            others = [other for other in range(3) if other != channel]
            strong = image[..., channel].astype(int) - image[..., others].max(axis=2) > 60
            found = cv2.connectedComponentsWithStats(strong.astype(np.uint8))
            for left, top, width, height, count in found[2][1:]:
                if count > 150:
                    rows.append((left, top, left + width, top + height, 0.9, kind))
        return Objects.of(rows)
