"""The seam of sources: what a folder, a table or a simulation gives to the catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from collabteam.errors import plain
from collabteam.sources.vocabulary import HELD_OUT, TEST, split_of

Labels = Literal["proposed", "person", "truth"]
"""The meanings that a user can give to the labels of a source."""
Meaning = Literal["proposed", "person", "truth", "import", "oracle"]
"""The meanings that labels can have; the last two occur in our own exports."""

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
)
"""Extensions of files that count as pictures."""
LARGEST_FILE = 64 * 2**20
"""Bytes of the largest file that is read as a picture."""


@dataclass
class Item:
    """One picture of a source, before it is checked.

    Attributes:
        where: File or row, for messages.
        image: Encoded picture.
        fault: Why the picture could not be read; ``""`` if it could.
        given: Labels by meaning.
        split: ``test`` for the frozen test set, ``held-out`` for a crop that neither trains nor is
            measured on; every other split trains.
        origin: ``video``, ``track``, ``frame``, ``time``, ``box`` of a crop, where known.
        crop_id: Name of the crop. If the catalog has it, that crop is meant and the rest of the
            origin does not count; without a picture, the catalog has to have it.
        closed: Whether the fault may pass: this user may not read the file, or a server does not
            answer.
    """

    where: str
    image: bytes
    fault: str = ""
    given: dict[Meaning, str] = field(default_factory=dict)
    split: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    crop_id: str = ""
    closed: bool = False


@dataclass
class Aside:
    """What a source left aside, to be told after the ingest.

    Attributes:
        ignored: Files whose extension is not that of a picture.
        passed_over: Files and folders that are no pictures of the user, such as thumbnails and
            recycle bins of file servers, by name.
        links: Links that lead out of the folder and were not followed.
        unlabelled: Spellings of labels that mean none, with their counts.
        unreadable: Each folder or file that cannot be read now, and the reason.
        remarks: Other sentences.
    """

    ignored: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    unlabelled: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def instead(self) -> list[str]:
        """Say what a place without anything to ingest has instead, as phrases for a message."""
        has = []
        if self.links:
            has.append(
                f"{len(self.links)} links lead out of the folder and are not followed "
                f"({', '.join(self.links[:5])}): follow_links=true follows them"
            )
        if self.unreadable:
            where, reason = self.unreadable[0]
            has.append(f"{len(self.unreadable)} folders cannot be read ({where}: {reason})")
        if self.passed_over:
            has.append(f"passed over are {', '.join([*self.passed_over][:5])}")
        return has


class Source(Protocol):
    """A source of pictures and labels.

    Attributes:
        meaning: Meaning of a label if the source does not define it.
        total: Number of pictures.
        labels: All labels that occur, of any meaning.
        classes: The classes in order, if the source names them; else empty.
        answers: Whether labels of ``meaning`` occur.
        aside: What was left aside; complete after the ingest.
    """

    meaning: Labels
    total: int
    labels: set[str]
    classes: list[str]
    answers: bool
    aside: Aside

    def items(self) -> Iterator[Item]:
        """Yield the pictures, always in the same order."""


def called_like_a_split(path: Path, *names: str) -> list[str]:
    """Say that a source without splits is called like one that does not train.

    Args:
        path: The source, for the message.
        names: Its names.
    """
    split = next((split_of(name) for name in names if split_of(name) in (TEST, HELD_OUT)), "")
    if not split:
        return []
    return [
        f"{path} is called like the split {split}, but nothing in it says so: its pictures may "
        "train; the folder above the splits, or a column 'split', sets them apart"
    ]


def shown(text: str, most: int = 60) -> str:
    """Quote a text from outside for a message: short, and on one line."""
    quoted = plain(repr(text))
    return quoted if len(quoted) <= most else f"{quoted[: most - 4]}...{quoted[-1]}"
