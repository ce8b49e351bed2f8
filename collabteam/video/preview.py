"""Draw a preview of an ingested video: a clip with the objects framed, and the crops by label."""

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
"""Width of the clip in pixels; a preview does not need the video's full resolution."""
_CROPS_PER_LABEL = 48
_LONGEST_NAME = 200  # bytes; file systems take 255, and a file has a longer name while it is made


@dataclass(frozen=True)
class PreviewTrack:
    """The track of one object through a video.

    Attributes:
        name: Number of the track within the video, as text.
        label: Proposed label; ``""`` for an object that is not kept.
        seconds: (T,) timestamps in seconds since the video's first frame.
        boxes: (T, 4) left, top, right, bottom in pixels.
        crops: The encoded crops that were kept.
    """

    name: str
    label: str
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float32]
    crops: tuple[bytes, ...]


def write_preview(
    path: str, fps: float, tracks: Sequence[PreviewTrack], folder: Path, name: str
) -> list[Path]:
    """Read a video again and draw its tracks.

    Each kept object gets a frame in its own colour, with its label and track number. The other
    objects get a thin grey frame.

    Args:
        path: The video.
        fps: Frames per second at which the video was analysed.
        tracks: All tracks of the video.
        folder: The folder to write to.
        name: Name of the video; of a long one, the end names the files.

    Returns:
        Paths of the clip (``.mp4``) and of one contact sheet per label (``-<label>.png``).
    """
    clip = folder / _file_name(name, ".mp4")
    _write_clip(path, fps, tracks, clip)
    written = [clip]
    for label in sorted({track.label for track in tracks} - {""}):
        crops = [
            (crop, f"{track.name}, {track.seconds[0]:.0f} s")
            for track in tracks
            if track.label == label
            for crop in track.crops
        ]
        sheet = folder / _file_name(name, f"-{label}.png")
        contact_sheet(_spread(crops), sheet)
        written.append(sheet)
    return written


def _file_name(name: str, ending: str) -> str:
    kept = _LONGEST_NAME - len(ending.encode())
    return name.encode()[-kept:].decode(errors="ignore") + ending


def _spread(crops: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
    """Pick as many crops as fit on a sheet, spread evenly over the video."""
    step = max(1.0, len(crops) / _CROPS_PER_LABEL)
    return [crops[int(place * step)] for place in range(min(len(crops), _CROPS_PER_LABEL))]


def _write_clip(path: str, fps: float, tracks: Sequence[PreviewTrack], to: Path) -> None:
    import av
    import cv2

    at: dict[float, list[tuple[PreviewTrack, NDArray[np.float32]]]] = {}
    for track in tracks:
        for seconds, box in zip(track.seconds, track.boxes, strict=True):
            at.setdefault(float(seconds), []).append((track, box))
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
            for track, box in at.get(frame.seconds, ()):
                _draw(picture, track, box * np.array([*own, *own], np.float32))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _draw(picture: NDArray[np.uint8], track: PreviewTrack, box: NDArray[np.float32]) -> None:
    import cv2

    left, top, right, bottom = (round(float(side)) for side in box)
    if not track.label:
        cv2.rectangle(picture, (left, top), (right, bottom), (150, 150, 150), 1)
        return
    # Steps of the golden ratio give consecutive track numbers distinct hues.
    hue = int(track.name) * 0.618 % 1
    colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, 1.0))
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
    text = f"{track.label} {track.name}"
    (length, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    cv2.rectangle(picture, (left, top - tall - 6), (left + length + 4, top), colour, -1)
    place = (left + 2, top - 4)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
