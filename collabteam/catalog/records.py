"""What the catalog keeps: crops, and events that say something about them.

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
"""Who may say something about a crop."""
HUMAN_SOURCES = ("person", "oracle", "import")
"""The sources whose word stands above the team's."""
REVIEW_PURPOSES = ("seed", "test", "audit", "unsure", "conflict")
"""What a person verifies crops for: each is a queue of the review page."""
UNDO = "undo:"
"""What stands before the name of a page that was taken back, in ``commit``."""
PURPOSES = ("", "proposal", "increment", "verdict", *REVIEW_PURPOSES)
"""What an event is for."""
NONE = -1
"""As a target: the crop shows none of the classes."""
UNLABELLED = -2
"""As a target: nobody said what the crop shows, or nobody can."""


@dataclass(frozen=True)
class Crop:
    """One picture of one object, and where it came from.

    Attributes:
        image: Encoded picture exactly as it came (JPEG, PNG, WebP, ...).
        video: Name of the video, or ``""``.
        track: Name of the object's track within the video, or ``""``.
        frame: Number of the frame in the video, from 0; -1 if there is none.
        time: When the frame was taken, in Unix seconds; NaN if nobody knows.
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
        """24 hexadecimal digits from content and origin: equal crops, equal names."""
        box = None if self.box is None else [float(side) for side in self.box]
        taken = None if math.isnan(self.time) else float(self.time)
        origin = json.dumps([self.video, self.track, int(self.frame), taken, box]).encode()
        # The length keeps apart what the picture says and what the origin says.
        digest = hashlib.blake2b(len(origin).to_bytes(8, "little"), digest_size=12)
        digest.update(origin)
        digest.update(self.image)
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelEvent:
    """One thing that somebody said about a crop, at one time.

    Attributes:
        crop_id: The crop; ``""`` for a rollback, which is about the whole camera.
        label: A class, ``unknown``, ``unusable``, or ``""``: nothing said, or what the same source
            said before is withdrawn.
        source: One of ``SOURCES``.
        purpose: One of ``PURPOSES``. ``test`` puts the crop into the frozen test set for good.
        round: The round that this belongs to, -1 for none. Of a rollback: the round to go back to;
            of ``unsure``: the round whose team did not know.
        confidence: Between 0 and 1, NaN if there is none.
        by: Which person, or the team's fingerprint.
        commit: What was said together, ``""`` for nothing else: the name of the page that a person
            verified (an undone page's name is repeated behind ``undo:``), or of the settings that
            a team labelled with.
        time: When it was said, in Unix seconds.

    Raises:
        ValueError: The source or the purpose is not one of those, an increment or a verdict is
            not the team's, or the crop is missing.
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
        """What teams of later rounds said before counts no more.

        Args:
            round: The round to go back to, -1 for before the first.
        """
        return cls("", "", source="rollback", round=round)

    @classmethod
    def test_mark(cls, crop_id: str) -> LabelEvent:
        """A crop belongs to the frozen test set, for good; nobody has said yet what it shows."""
        return cls(crop_id, "", source="ingest", purpose="test")


CROP_SCHEMA = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("track", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        # Doubles, so that a crop's name can be computed again from its row.
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
    """Stands for labelled crops: SHA-256, in hexadecimal, of ``crop_id, tab, label, line feed``.

    Args:
        crop_ids: In an order of the caller's, such as ascending.
        labels: As many.
    """
    lines = (f"{crop}\t{label}\n" for crop, label in zip(crop_ids, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def seeded_hash(name: str, seed: int) -> int:
    """A number from 0 to 2^64 - 1 that is random in the seed and the same at every call.

    Whatever is taken in the order of these is a random sample that needs no record and keeps its
    members when others join.
    """
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def crops_to_table(crops: Sequence[Crop]) -> pa.Table:
    """Rows of the crops table, in ``CROP_SCHEMA``."""
    columns = {
        name: [getattr(crop, name) for crop in crops] for name in CROP_SCHEMA.names if name != "box"
    }
    boxes = [None if crop.box is None else list(crop.box) for crop in crops]
    return pa.table({**columns, "box": boxes}, schema=CROP_SCHEMA)


def events_to_table(events: Sequence[LabelEvent]) -> pa.Table:
    """Rows of the label log, in ``LABEL_SCHEMA``."""
    columns = {name: [getattr(event, name) for event in events] for name in LABEL_SCHEMA.names}
    return pa.table(columns, schema=LABEL_SCHEMA)
