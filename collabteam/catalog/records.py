"""The records of a catalog: crops, and events about them.

The Arrow schemas are the tables' columns on disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

SOURCES = ("detector", "person", "oracle", "import", "team", "ingest", "rollback")
"""The possible sources of an event."""
HUMAN_SOURCES = ("person", "oracle", "import")
"""The sources whose labels take precedence over the team's."""
REVIEW_PURPOSES = ("seed", "test", "audit", "unsure", "conflict")
"""The purposes of answers: each is a queue of the review page."""
UNDO = "undo:"
"""Prefix in ``commit`` before the name of a page that was taken back."""
HELD_OUT = "held-out"
"""Purpose of the mark of a crop whose track neither trains nor is measured on."""
PURPOSES = ("", "proposal", "increment", "verdict", *REVIEW_PURPOSES, HELD_OUT)
"""The possible purposes of an event."""
NONE = -1
"""Training target: the crop shows none of the classes."""
UNLABELLED = -2
"""Training target: the crop has no label, or is unusable."""


@dataclass(frozen=True)
class Crop:
    """One picture of one object, and its origin.

    Attributes:
        image: Encoded picture, unchanged (JPEG, PNG, WebP, ...).
        video: Name of the video, or ``""``.
        track: Name of the object's track within the video, or ``""``.
        frame: Number of the frame in the video, from 0; -1 if there is none.
        time: When the frame was taken, in Unix seconds from 1970 until 2100; NaN if unknown.
        box: Left, top, width and height of the object in the frame, in pixels.
    """

    image: bytes
    video: str = ""
    track: str = ""
    frame: int = -1
    time: float = math.nan
    box: tuple[float, float, float, float] | None = None

    @cached_property
    def crop_id(self) -> str:
        """24 hexadecimal digits from content and origin; equal crops have equal names."""
        box = None if self.box is None else [float(side) for side in self.box]
        taken = None if math.isnan(self.time) else float(self.time)
        origin = json.dumps([self.video, self.track, int(self.frame), taken, box]).encode()
        # The length separates the bytes of the picture from those of the origin.
        digest = hashlib.blake2b(len(origin).to_bytes(8, "little"), digest_size=12)
        digest.update(origin)
        digest.update(self.image)
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelEvent:
    """One event of the label log: one source says one thing about one crop.

    Attributes:
        crop_id: The crop; ``""`` for a rollback, which is about the whole camera.
        label: A class, ``unknown``, ``unusable``, or ``""`` for no label, which withdraws
            the earlier label of the same source.
        source: One of ``SOURCES``.
        purpose: One of ``PURPOSES``. ``test`` puts the crop into the frozen test set.
        round: The round that the event belongs to, -1 for none. For a rollback, the round to go
            back to; for ``unsure``, the round whose team abstained.
        confidence: Between 0 and 1, NaN if there is none.
        by: The person's name, or the team's fingerprint.
        commit: Name shared by events that belong together, ``""`` for a single event: the page that
            a person verified (its undo has the name behind ``undo:``), or the settings that a team
            labelled with.
        time: When the event happened, in Unix seconds.

    Raises:
        ValueError: The source or the purpose is unknown, an increment or a verdict does not come
            from a team, or the crop is missing.
    """

    crop_id: str
    label: str
    source: str
    purpose: str = ""
    round: int = -1
    confidence: float = math.nan
    by: str = ""
    commit: str = ""
    time: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source={self.source!r}: expected one of {', '.join(SOURCES)}")
        if self.purpose not in PURPOSES:
            raise ValueError(f"purpose={self.purpose!r}: expected one of {PURPOSES}")
        if self.purpose in ("increment", "verdict") and self.source != "team":
            raise ValueError(f"purpose={self.purpose!r} is the team's, not of {self.source!r}")
        if bool(self.crop_id) == (self.source == "rollback"):
            raise ValueError(f"crop_id={self.crop_id!r} with source={self.source!r}")

    @classmethod
    def rollback(cls, round: int) -> LabelEvent:
        """Make the event that cancels earlier team events of later rounds.

        Args:
            round: The round to go back to, -1 for before the first.
        """
        return cls("", "", source="rollback", round=round)

    @classmethod
    def test_mark(cls, crop_id: str) -> LabelEvent:
        """Make the event that puts a crop into the frozen test set; it gives no label."""
        return cls(crop_id, "", source="ingest", purpose="test")

    @classmethod
    def held_out_mark(cls, crop_id: str) -> LabelEvent:
        """Make the event that keeps a crop and its track from training; it gives no label."""
        return cls(crop_id, "", source="ingest", purpose=HELD_OUT)


CROP_SCHEMA = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("track", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        # Doubles, so that a crop's name can be recomputed from its row.
        pa.field("box", pa.list_(pa.float64(), 4)),
    ]
)
LABEL_SCHEMA = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("round", pa.int64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("by", pa.string(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("commit", pa.string(), nullable=False),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
    ]
)


def labels_hash(crop_ids: Iterable[str], labels: Iterable[str]) -> str:
    """Hash labelled crops: SHA-256, in hexadecimal, of ``crop_id, tab, label, line feed``.

    Args:
        crop_ids: In an order that the caller chooses, such as ascending.
        labels: One per crop.
    """
    lines = (f"{crop}\t{label}\n" for crop, label in zip(crop_ids, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def seeded_hash(name: str, seed: int) -> int:
    """Return a pseudorandom number from 0 to 2^64 - 1 that depends only on the arguments.

    The first crops in the order of these numbers are a random sample that can be drawn again
    without a record and changes little when crops are added.
    """
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def crops_to_table(crops: Sequence[Crop]) -> pa.Table:
    """Convert crops to rows of the crops table, in ``CROP_SCHEMA``."""
    columns = {
        name: [getattr(crop, name) for crop in crops] for name in CROP_SCHEMA.names if name != "box"
    }
    boxes = [None if crop.box is None else list(crop.box) for crop in crops]
    return pa.table({**columns, "box": boxes}, schema=CROP_SCHEMA)


def events_to_table(events: Sequence[LabelEvent]) -> pa.Table:
    """Convert events to rows of the label log, in ``LABEL_SCHEMA``."""
    columns = {name: [getattr(event, name) for event in events] for name in LABEL_SCHEMA.names}
    return pa.table(columns, schema=LABEL_SCHEMA)
