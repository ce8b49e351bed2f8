"""The data types of the video pipeline: frames, and the objects detected in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        number: Position of the frame in the video, from 0; frames that were not analysed count.
        seconds: Timestamp in seconds since the video's first frame.
        image: (H, W, 3) uint8, RGB.
    """

    number: int
    seconds: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Objects:
    """The objects detected in one frame: N boxes.

    Attributes:
        box: (N, 4) float32: left, top, right, bottom in pixels of the frame.
        score: (N,) float32, the detector's confidence, 0 to 1.
        kind: (N,) object, of ``str``: the object's kind. The detector gives its own names
            (``person``, ``bicycle``); the fusion of riders adds ``pedestrian``, ``cyclist`` and
            ``motorcyclist``.
        body: (N, 4) float32: boxes for the tracker where they differ from ``box``: of a rider, the
            person's box. The detector misses the vehicle in many frames, and a box that grows and
            shrinks would break the track.
    """

    box: NDArray[np.float32]
    score: NDArray[np.float32]
    kind: NDArray[np.object_]
    body: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Objects:
        """Select objects by number or by a mask."""
        body = None if self.body is None else self.body[rows]
        return Objects(self.box[rows], self.score[rows], self.kind[rows], body)

    @property
    def followed(self) -> Objects:
        """The same objects with the boxes that the tracker uses."""
        return self if self.body is None else Objects(self.body, self.score, self.kind)

    @classmethod
    def of(cls, rows: list[tuple[float, float, float, float, float, str]]) -> Objects:
        """Build from rows of (left, top, right, bottom, score, kind), one per object."""
        numbers = np.array([row[:5] for row in rows], np.float32).reshape(-1, 5)
        return cls(numbers[:, :4], numbers[:, 4], np.array([row[5] for row in rows], object))


def iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every box with every other: (N, 4), (M, 4) to (N, M), 0 to 1."""
    shared = intersection(one, other)
    union = area(one)[:, None] + area(other)[None, :] - shared
    ratio: NDArray[np.float32] = shared / np.maximum(union, np.float32(1e-9))
    return ratio


def intersection(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area in px² that every box shares with every other: (N, 4), (M, 4) to (N, M)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    sides = np.maximum(high - low, np.float32(0))
    shared: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    return shared


def area(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area in px² of every box: (N, 4) to (N,)."""
    sides: NDArray[np.float32] = np.maximum(box[:, 2:] - box[:, :2], np.float32(0))
    return sides[:, 0] * sides[:, 1]
