"""A look at what was found: a clip with the objects drawn in, and the crops by label."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from collabteam.storage.files import replacing_path
from collabteam.video.contact_sheet import contact_sheet
from collabteam.video.footage import open_footage

_WIDTH = 960
"""Pixels; a preview is for looking at, not for measuring."""
_CROPS_PER_LABEL = 48


@dataclass(frozen=True)
class Sighting:
    """One object of a video, and where it was.

    Attributes:
        track: Name of the object within the video.
        label: What it is proposed as; ``""`` for an object that is not kept.
        seconds: (T,) when it was seen.
        boxes: (T, 4) left, top, right, bottom in pixels.
        crops: The crops kept of it, encoded.
    """

    track: str
    label: str
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float32]
    crops: tuple[bytes, ...]


def write_preview(path: str, fps: float, sightings: Sequence[Sighting], to: Path) -> list[Path]:
    """Read a video once more and draw what was found in it.

    Kept objects are framed in a colour of their own with their label and name, others thinly in
    grey.

    Args:
        path: The video.
        fps: As it was analysed.
        sightings: Everything that was followed.
        to: Where to write, without extension.

    Returns:
        The clip (``.mp4``) and a contact sheet per label (``-<label>.png``).
    """
    clip = to.with_name(f"{to.name}.mp4")
    _write_clip(path, fps, sightings, clip)
    written = [clip]
    for label in sorted({sighting.label for sighting in sightings} - {""}):
        crops = [
            (crop, f"{sighting.track}, {sighting.seconds[0]:.0f} s")
            for sighting in sightings
            if sighting.label == label
            for crop in sighting.crops
        ]
        sheet = to.with_name(f"{to.name}-{label}.png")
        contact_sheet(_spread(crops), sheet)
        written.append(sheet)
    return written


def _spread(crops: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
    """So many as fit on a sheet, from the whole video."""
    step = max(1.0, len(crops) / _CROPS_PER_LABEL)
    return [crops[int(place * step)] for place in range(min(len(crops), _CROPS_PER_LABEL))]


def _write_clip(path: str, fps: float, sightings: Sequence[Sighting], to: Path) -> None:
    import av
    import cv2

    at: dict[float, list[tuple[Sighting, NDArray[np.float32]]]] = {}
    for sighting in sightings:
        for seconds, box in zip(sighting.seconds, sighting.boxes, strict=True):
            at.setdefault(float(seconds), []).append((sighting, box))
    with (
        replacing_path(to) as part,
        open_footage(path, fps) as footage,
        av.open(str(part), "w") as container,
    ):
        rate = min(fps or footage.rate, footage.rate) or 25.0
        scale = min(1.0, _WIDTH / footage.width)
        width, height = (round(side * scale / 2) * 2 for side in (footage.width, footage.height))
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        speed = Fraction(rate).limit_denominator(1000)
        stream = cast("av.VideoStream", container.add_stream(codec, rate=speed))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in footage:
            small = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
            picture = np.ascontiguousarray(small, np.uint8)
            own = width / frame.image.shape[1], height / frame.image.shape[0]
            for sighting, box in at.get(frame.seconds, ()):
                _draw(picture, sighting, box * np.array([*own, *own], np.float32))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _draw(picture: NDArray[np.uint8], sighting: Sighting, box: NDArray[np.float32]) -> None:
    import cv2

    left, top, right, bottom = (round(float(side)) for side in box)
    if not sighting.label:
        cv2.rectangle(picture, (left, top), (right, bottom), (150, 150, 150), 1)
        return
    # The golden ratio keeps the colours of neighbouring names apart.
    hue = int(sighting.track) * 0.618 % 1
    colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, 1.0))
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
    text = f"{sighting.label} {sighting.track}"
    (length, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    cv2.rectangle(picture, (left, top - tall - 6), (left + length + 4, top), colour, -1)
    place = (left + 2, top - 4)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
