"""Choose the best pictures of each object and cut them out of their frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from collabteam.settings import CutConfig, FootageConfig
from collabteam.video.objects import Frame, Objects, area, intersection

_LARGE = 160.0
"""Longer side in pixels above which a larger object is no better: branches see pictures of 64 to
128 px."""
_SHARP = 100.0
"""Variance of the Laplacian that gives a sharpness of 0.5; blurred pictures have 10 to 50."""
_SLOTS = 8
"""Time slots of a track; the best picture of each is kept in memory."""
_SLOT_SECONDS = 0.5


@dataclass(frozen=True)
class Candidate:
    """A picture of an object that may become a crop.

    Attributes:
        number: Number of the frame.
        seconds: Timestamp of the frame, since the video's first frame.
        box: (4,) left, top, right, bottom of the object in the frame, in pixels.
        kind: Kind of the object in this frame.
        quality: Product of :func:`visibility` and :func:`sharpness`, 0 to 1.
        pixels: (h, w, 3) uint8, RGB: the box and its margin.
    """

    number: int
    seconds: float
    box: NDArray[np.float32]
    kind: str
    quality: float
    pixels: NDArray[np.uint8]


def visibility(objects: Objects, width: int, height: int) -> NDArray[np.float32]:
    """Estimate from the boxes how well each object of a frame can be seen.

    The estimate is the product of the detector's score, the size (1 from 160 px on), the share of
    the box that no other box covers, and 0.5 if the box touches the frame's edge, where the object
    may be cut off.

    Args:
        objects: All N objects of the frame.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        (N,) float32, 0 to 1.
    """
    if not len(objects):
        return np.zeros(0, np.float32)
    box = objects.box
    side = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    size = np.minimum(side / _LARGE, 1)
    covered = intersection(box, box)
    np.fill_diagonal(covered, 0)
    free = 1 - covered.max(axis=1) / np.maximum(area(box), 1e-9)
    rim = 2.0
    at_edge = (box[:, :2] < rim).any(axis=1)
    at_edge |= (box[:, 2] > width - rim) | (box[:, 3] > height - rim)
    seen: NDArray[np.float32] = objects.score * size * free * np.where(at_edge, 0.5, 1)
    return seen.astype(np.float32)


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Measure sharpness, 0 to 1, by the variance of the Laplacian at 64 px on the longer side.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000).

    Args:
        pixels: (h, w, 3) uint8, RGB.

    Returns:
        variance / (variance + 100).
    """
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    scale = 64 / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return variance / (variance + _SHARP)


def cut(image: NDArray[np.uint8], box: NDArray[np.float32], margin: float) -> NDArray[np.uint8]:
    """Copy a box and its margin out of a frame.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) left, top, right, bottom in pixels.
        margin: Margin as a share of the box's longer side; it is clipped at the frame's edge.

    Returns:
        (h, w, 3) uint8, at least one pixel.
    """
    rim = margin * float(max(box[2] - box[0], box[3] - box[1]))
    height, width = image.shape[:2]
    left, top = max(0, round(float(box[0]) - rim)), max(0, round(float(box[1]) - rim))
    right, bottom = round(float(box[2]) + rim), round(float(box[3]) + rim)
    left, top = min(left, width - 1), min(top, height - 1)
    return image[top : max(bottom, top + 1), left : max(right, left + 1)].copy()


class BestShots:
    """Keeps the best pictures of one track so far, spread over its duration, in bounded memory.

    The duration is divided into slots of equal length, and each keeps its best picture. When there
    are more than eight slots, their length is doubled and the better picture of each pair stays.

    Args:
        config: Margin and smallest size.
    """

    def __init__(self, config: CutConfig) -> None:
        self.config = config
        self._length = _SLOT_SECONDS
        self._kept: dict[int, Candidate] = {}

    def offer(self, frame: Frame, box: NDArray[np.float32], kind: str, visible: float) -> None:
        """Consider the track's picture in one more frame.

        Args:
            frame: The frame.
            box: (4,) box of the object in pixels.
            kind: Kind of the object in this frame.
            visible: The object's :func:`visibility`.
        """
        if max(box[2] - box[0], box[3] - box[1]) < self.config.min_size:
            return
        slot = int(frame.seconds / self._length)
        rival = self._kept.get(slot)
        # Sharpness is expensive and at most 1: compute it only if it can change the result.
        if rival is not None and visible <= rival.quality:
            return
        pixels = cut(frame.image, box, self.config.margin)
        quality = visible * sharpness(pixels)
        if rival is not None and quality <= rival.quality:
            return
        self._kept[slot] = Candidate(frame.number, frame.seconds, box.copy(), kind, quality, pixels)
        while len(self._kept) > _SLOTS:
            self._length *= 2
            merged: dict[int, Candidate] = {}
            for candidate in self._kept.values():
                slot = int(candidate.seconds / self._length)
                rival = merged.get(slot)
                if rival is None or candidate.quality > rival.quality:
                    merged[slot] = candidate
            self._kept = merged

    def take(self, first: int, last: int) -> list[Candidate]:
        """Remove and return the pictures from a range of frames.

        The linker may split a track into several objects, one after the other. Each takes its own
        range.

        Args:
            first: Number of the first frame.
            last: Number of the last frame, included.

        Returns:
            The pictures from those frames.
        """
        taken = {slot: one for slot, one in self._kept.items() if first <= one.number <= last}
        self._kept = {slot: one for slot, one in self._kept.items() if slot not in taken}
        return list(taken.values())

    def __len__(self) -> int:
        """Number of pictures kept."""
        return len(self._kept)


def choose(candidates: Sequence[Candidate], kind: str, count: int) -> list[Candidate]:
    """Choose the best pictures of one object, spread over its duration.

    The duration is divided into ``count`` spans of equal length, and the best picture of each is
    chosen. Places that empty spans leave go to the best of the other pictures. Pictures of another
    kind are left out if there is any of the object's kind: of a rider whose bicycle was missed,
    they show only half.

    Args:
        candidates: Pictures of the object.
        kind: Kind of the object.
        count: Number of pictures to keep, at least 1.

    Returns:
        At most ``count`` pictures, in time order.
    """
    candidates = [one for one in candidates if one.kind == kind] or candidates
    if not candidates:
        return []
    first = min(candidate.seconds for candidate in candidates)
    length = (max(candidate.seconds for candidate in candidates) - first) / count
    best_first = sorted(candidates, key=lambda one: (-one.quality, one.seconds, one.number))
    by_span: dict[int, Candidate] = {}
    for candidate in best_first:
        span = min(count - 1, int((candidate.seconds - first) / length)) if length else 0
        by_span.setdefault(span, candidate)
    chosen = list(by_span.values())
    chosen += [one for one in best_first if all(one is not taken for taken in chosen)]
    return sorted(chosen[:count], key=lambda candidate: candidate.seconds)


def encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode (h, w, 3) uint8 RGB as JPEG, with a quality from 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def region_mask(footage: FootageConfig, width: int, height: int) -> NDArray[np.bool_] | None:
    """Make the mask of the area in which objects count, from the camera's region and mask.

    Args:
        footage: The camera's footage settings.
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.

    Returns:
        (height, width) bool, true where objects count; None if they count everywhere.
    """
    if not footage.region and not footage.mask:
        return None
    region = np.ones((height, width), bool)
    if footage.region:
        polygon = Image.new("1", (width, height))
        corners = [(x * width, y * height) for x, y in footage.region]
        ImageDraw.Draw(polygon).polygon(corners, fill=1, outline=1)
        region &= np.asarray(polygon)
    if footage.mask:
        with Image.open(footage.mask) as mask:
            upright = ImageOps.exif_transpose(mask).convert("L")
            fitted = upright.resize((width, height), Image.Resampling.NEAREST)
            region &= np.asarray(fitted) > 0
    return region


def inside_region(objects: Objects, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the objects inside a region: the middle of a box's lower edge decides.

    Args:
        objects: N objects of a frame.
        region: (H, W) bool, see :func:`region_mask`.

    Returns:
        (N,) bool.
    """
    height, width = region.shape
    x = ((objects.box[:, 0] + objects.box[:, 2]) / 2).astype(np.int64).clip(0, width - 1)
    y = objects.box[:, 3].astype(np.int64).clip(0, height - 1)
    inside: NDArray[np.bool_] = region[y, x]
    return inside
