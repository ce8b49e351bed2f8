"""A small camera with labels of every kind, for suites about the steps after labelling."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from collabteam.catalog import Catalog, Crop, LabelEvent

CLASSES = ("train", "0", "images", "a.-_b", "Z" * 64)
"""Valid class names that a careless format may misread."""
NAMES = ('=1+2,"a"', "<b>&'; é 船\r\nc\td", "../up\\", "x\x01y", "-", "#hash?d=1", "{to}")
"""Names of videos and tracks with special characters of spreadsheets, XML, URLs or paths."""

_KINDS = ("JPEG", "PNG", "GIF", "PPM", "WEBP", "BMP", "TIFF")
_TEAM = "0123456789abcdef"


@dataclass(frozen=True)
class LabelledCrop:
    """One crop with a label.

    Attributes:
        image: Encoded picture.
        label: A class of the camera.
        source: ``person``, ``import``, ``oracle`` or ``team``.
        split: ``train``, ``test`` or ``held-out``.
        track: Track of the object within its video, ``""`` for none.
    """

    image: bytes
    label: str
    source: str
    split: str
    track: str


@dataclass(frozen=True)
class LabelledCamera:
    """A camera, and the expected labels of its crops.

    Attributes:
        catalog: The camera.
        labelled: The labelled crops by name; the camera also has crops without a label.
    """

    catalog: Catalog
    labelled: dict[str, LabelledCrop]


def encoded_picture(number: int, kind: str = "") -> bytes:
    """Draw a picture of random colours, different for each number, 12 to 20 pixels wide.

    Args:
        number: Seed, from 0.
        kind: One of Pillow's formats; ``""`` chooses one of seven by the number.
    """
    pixels = np.random.default_rng(number).integers(0, 256, (14, 12 + number % 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind or _KINDS[number % len(_KINDS)])
    return buffer.getvalue()


def make_labelled_camera(
    root: Path, classes: Sequence[str] = CLASSES, tracks: int = 24
) -> LabelledCamera:
    """Make a camera whose labels come from all sources and go into all splits.

    Every track has two crops of one class, every sixth crop has no track, the last class has no
    crop, and a few crops have no label or a label that is not a class.

    Args:
        root: Folder under which the camera ``S1`` is made.
        classes: At least three.
        tracks: Number of tracks.
    """
    catalog = Catalog.register(root, "S1", classes)
    crops: list[Crop] = []
    events: list[LabelEvent] = []
    labelled: dict[str, LabelledCrop] = {}
    present = classes[:-1]
    for number in range(2 * tracks):
        track_number = number // 2
        alone = track_number % 6 == 5
        video = "" if alone else NAMES[track_number % len(NAMES)]
        track = "" if alone else f"{NAMES[(track_number + 1) % len(NAMES)]}{track_number}"
        box = (0.5, 10.0, 30.25, 40.0) if number % 3 == 0 else None
        time = math.nan if alone else 1.5e9 + number / 8
        frame = -1 if alone else number
        crop = Crop(encoded_picture(number), video, track, frame, time, box)
        crops.append(crop)
        if track_number % 8 == 7:  # these crops get no class
            said = ("", "unusable", "unknown")[track_number % 3]
            if said:
                events.append(LabelEvent(crop.crop_id, said, "person", "seed"))
            continue
        label = present[track_number % len(present)]
        source = ("person", "team", "import", "oracle", "team")[number % 5]
        in_test = track_number % 7 == 3
        split = "train" if not in_test else "test" if number % 2 == 0 or alone else "held-out"
        if split == "test":
            events.append(LabelEvent(crop.crop_id, "", "ingest", "test"))
        if source == "team":
            confidence = 0.5 + number / 1000
            events.append(LabelEvent(crop.crop_id, label, "team", "verdict", 1, confidence, _TEAM))
        else:
            events.append(LabelEvent(crop.crop_id, label, source, "seed", by="ana"))
        labelled[crop.crop_id] = LabelledCrop(crop.image, label, source, split, track)
    catalog.add_crops(crops)
    catalog.append_labels(events)
    return LabelledCamera(catalog, labelled)
