"""What persons said about crops: who, which page, what was taken back, and how far they agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog import LabelEvent
from collabteam.catalog.records import UNDO

_SOURCES = ("person", "import")


@dataclass(frozen=True)
class Commit:
    """A page of crops that one person verified together.

    Attributes:
        by: Who.
        purpose: The queue.
        answers: What each crop was called, in the order of the page.
    """

    by: str
    purpose: str
    answers: dict[str, str] = field(default_factory=dict)


class Words:
    """Every word of a person about a crop; what the simulated reviewer said is none.

    A page that was taken back counts for nothing, wherever it stands.

    Args:
        events: The log, oldest first; events of others are passed over.
    """

    def __init__(self, events: Iterable[LabelEvent] = ()) -> None:
        self._of_crop: dict[str, list[LabelEvent]] = defaultdict(list)
        self.commits: dict[str, Commit] = {}
        self.undone: set[str] = set()
        self._about: dict[str, list[LabelEvent]] = {}  # of crops that were asked about
        self._reviewers: dict[str, set[str]] = defaultdict(set)
        self._shared: dict[str, None] = {}
        self.add(events)

    @classmethod
    def read(cls, log: pa.Table, purpose: str = "") -> Words:
        """The words in a camera's log.

        Args:
            log: As :meth:`collabteam.catalog.Catalog.log` gives it.
            purpose: Only words of this purpose, and what was withdrawn; ``""`` for all.
        """
        log = log.filter(pc.is_in(log["source"], value_set=pa.array(_SOURCES)))
        if purpose:
            log = log.filter(pc.or_(pc.equal(log["purpose"], purpose), pc.equal(log["label"], "")))
        return cls(LabelEvent(**row) for row in log.to_pylist())

    def add(self, events: Iterable[LabelEvent]) -> None:
        """Take in what was said since."""
        for event in events:
            if event.source not in _SOURCES:
                continue
            if event.commit.startswith(UNDO):
                name = event.commit.removeprefix(UNDO)
                self.undone.add(name)
                for crop_id in self.commits[name].answers if name in self.commits else ():
                    self._about.pop(crop_id, None)
                continue
            self._about.pop(event.crop_id, None)
            self._of_crop[event.crop_id].append(event)
            self._reviewers[event.crop_id].add(event.by)
            if len(self._reviewers[event.crop_id]) > 1:
                self._shared[event.crop_id] = None
            if event.commit:
                commit = self.commits.setdefault(event.commit, Commit(event.by, event.purpose))
                commit.answers[event.crop_id] = event.label

    def about(self, crop_id: str) -> list[LabelEvent]:
        """What stands of what was said about a crop: the last word of each reviewer, oldest first.

        A reviewer who resolved a conflict has two: the first one was said unseen.
        """
        if (known := self._about.get(crop_id)) is not None:
            return known
        last: dict[tuple[str, bool], LabelEvent] = {}
        for event in self._of_crop.get(crop_id, ()):
            if event.commit in self.undone:
                continue
            key = (event.by, event.purpose == "conflict")
            last.pop(key, None)
            if event.label:
                last[key] = event
        self._about[crop_id] = list(last.values())
        return self._about[crop_id]

    def shared(self) -> list[str]:
        """Crops that more than one person ever spoke about, in that order."""
        return list(self._shared)

    def unseen(self, crop_id: str) -> dict[str, str]:
        """What each reviewer called a crop without having seen the others' word."""
        return {word.by: word.label for word in self.about(crop_id) if word.purpose != "conflict"}

    def is_disputed(self, crop_id: str) -> bool:
        """Whether reviewers ever disagreed on a crop."""
        return len(set(self.unseen(crop_id).values())) > 1

    def settled_by(self, crop_id: str, reviewer: str) -> str:
        """What a reviewer called a crop knowing of the others' words, ``""`` for nothing."""
        said = [w for w in self.about(crop_id) if w.purpose == "conflict" and w.by == reviewer]
        return said[-1].label if said else ""

    def is_settled(self, crop_id: str) -> bool:
        """Whether the last word on a crop was said knowing of the others'."""
        words = self.about(crop_id)
        return bool(words) and words[-1].purpose == "conflict"

    def undoing(self, name: str) -> list[LabelEvent]:
        """Events that take back a page: of each crop, the page's word is withdrawn, and what stood
        before it stands again.

        Args:
            name: Of the page, one of ``commits``.
        """
        commit = self.commits[name]
        events = []
        without = Words()
        without.undone = self.undone | {name}
        without._of_crop = self._of_crop
        for crop_id in commit.answers:
            undo = UNDO + name
            events.append(
                LabelEvent(crop_id, "", "person", commit.purpose, by=commit.by, commit=undo)
            )
            events += [
                LabelEvent(
                    crop_id, word.label, word.source, word.purpose, word.round, by=word.by,
                    commit=undo,
                )
                for word in without.about(crop_id)
            ]  # fmt: skip
        return events

    def undoable(self, reviewer: str, purpose: str) -> list[str]:
        """Pages of a reviewer that can be taken back, oldest first."""
        return [
            name
            for name, commit in self.commits.items()
            if commit.by == reviewer and commit.purpose == purpose and name not in self.undone
        ]


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement of two reviewers beyond chance (Cohen 1960).

    Args:
        pairs: What the first and the second called the same crop.

    Returns:
        At most 1, which is full agreement; 0 is chance. None where chance alone would agree
        always, or without pairs.

    Example:
        >>> cohen_kappa([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
        0.5
    """
    if not pairs:
        return None
    count = len(pairs)
    agreed = sum(first == second for first, second in pairs) / count
    firsts, seconds = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(firsts[label] * seconds[label] for label in firsts) / count**2
    return None if chance == 1 else (agreed - chance) / (1 - chance)
