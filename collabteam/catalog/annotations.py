"""Reads the label log: which annotations stand, and which were withdrawn.

A later event may change the meaning of an earlier one: a reviewer corrects an answer or takes back
a page, or the camera goes back to an earlier round. Only this module implements the rules for this.
The index, the review session, the audit, the report and the export all use it.

- :class:`Annotations` holds the whole log as columns. For each crop it gives the last label from a
  person, a team or a detector.
- :class:`Answers` holds the reviewers' answers. It tells which answers of several reviewers stand
  for a crop, and which pages were taken back.

The two agree because an undo is written as events: it withdraws the page's answer for each crop and
repeats the answer that stood before. So the last event in the log is always the current one. A
count of answers skips the events that an undo repeats.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog.records import HELD_OUT, HUMAN_SOURCES, UNDO, LabelEvent, events_to_table
from collabteam.catalog.texts import Encoder, Names, Numbers, TextColumn, Texts

LOG_COLUMNS = ("crop_id", "label", "source", "purpose", "round", "confidence", "by", "commit")
"""Columns of the log that are read. The times are not: they are for people."""

_TEXTS = ("label", "source", "purpose", "by", "commit")
_REVIEWERS = ("person", "import")
_NOBODY, _SEVERAL = -1, -2
_TAIL = 16_384
"""Number of unsorted events at the end of the log at which all events are sorted by crop again."""


class Events:
    """Events in the order of the log, stored as columns; about 20 bytes per event."""

    def __init__(self) -> None:
        self._row, self._round = Numbers(np.int32), Numbers(np.int8)
        self._confidence = Numbers(np.float64)
        self._texts = {name: Encoder() for name in _TEXTS}

    def __len__(self) -> int:
        return len(self._row)

    def reserve(self, count: int) -> None:
        """Make room for ``count`` events in all, which saves memory while they are added."""
        for numbers in (self._row, self._round, self._confidence):
            numbers.reserve(count)
        for encoder in self._texts.values():
            encoder.codes.reserve(count)

    def add(self, row: npt.NDArray[np.int64], batch: pa.RecordBatch | pa.Table) -> None:
        """Add events.

        Args:
            row: Shape ``(n,)``: row numbers of their crops, -1 for none.
            batch: n rows with ``LOG_COLUMNS`` but ``crop_id``.
        """
        for name, encoder in self._texts.items():
            encoder.add(_one_array(batch[name]))
        self._round.add(_one_array(batch["round"]))
        self._confidence.add(_one_array(batch["confidence"]))
        self._row.add(row)

    def snapshot(self) -> Events:
        """Return the same events; events added later do not change the snapshot."""
        same = Events()
        same._row, same._round = self._row.snapshot(), self._round.snapshot()
        same._confidence = self._confidence.snapshot()
        same._texts = {name: encoder.snapshot() for name, encoder in self._texts.items()}
        return same

    def only(self, chosen: npt.NDArray[np.bool_]) -> Events:
        """Return a copy of some of the events.

        Args:
            chosen: Shape ``(E,)``.
        """
        some = Events()
        some._row, some._round = self._row.only(chosen), self._round.only(chosen)
        some._confidence = self._confidence.only(chosen)
        some._texts = {name: encoder.only(chosen) for name, encoder in self._texts.items()}
        return some

    @property
    def row(self) -> npt.NDArray[Any]:
        """Shape ``(E,)``, integers: the crop's row number, -1 for none."""
        return self._row.all()

    @property
    def round(self) -> npt.NDArray[Any]:
        """Shape ``(E,)``, integers: the round, -1 for none."""
        return self._round.all()

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """Shape ``(E,)``: 0 to 1, NaN for none."""
        return self._confidence.all()

    def codes(self, name: str) -> npt.NDArray[Any]:
        """Shape ``(E,)``, integers: the code of each event's text; 0 is ``""``."""
        return self._texts[name].codes.all()

    def code(self, name: str, text: str) -> int:
        """Return the code of a text; a new text gets a new code."""
        return self._texts[name].number(text)

    def texts(self, name: str) -> list[str]:
        """The distinct texts of a column, in the order of their codes."""
        return self._texts[name].texts

    def text(self, name: str) -> TextColumn:
        """Shape ``(E,)``: ``label``, ``source``, ``purpose``, ``by`` or ``commit``."""
        return self._texts[name].column()

    def is_any(self, name: str, *wanted: str) -> npt.NDArray[np.bool_]:
        """Shape ``(E,)``: whether the event's text is one of these."""
        return self.text(name).is_any(wanted)

    def is_undo(self) -> npt.NDArray[np.bool_]:
        """Shape ``(E,)``: whether the event belongs to the undo of a page."""
        commit = self.text("commit")
        undo: npt.NDArray[np.bool_] = pc.starts_with(commit.texts, UNDO).to_numpy(
            zero_copy_only=False
        )[commit.codes]
        return undo


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@dataclass(frozen=True)
class LastEvents:
    """One event of the log, or none, for each of N crops.

    Attributes:
        events: The log.
        event: Shape ``(N,)``: number of the event, -1 for none.
    """

    events: Events
    event: npt.NDArray[np.int32]

    def text(self, name: str) -> TextColumn:
        """Shape ``(N,)``: one text column of each crop's event, ``""`` for no event."""
        column = self.events.text(name)
        return TextColumn(_at(column.codes, self.event, 0, column.codes.dtype), column.texts)

    @property
    def label(self) -> TextColumn:
        """Shape ``(N,)``: the label, ``""`` for none."""
        return self.text("label")

    @property
    def round(self) -> npt.NDArray[np.int64]:
        """Shape ``(N,)``: the round, -1 for none."""
        return _at(self.events.round, self.event, -1, np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """Shape ``(N,)``: 0 to 1, NaN for none."""
        return _at(self.events.confidence, self.event, np.nan, np.float64)

    def said(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: whether there is an event, even one that gives no label."""
        said: npt.NDArray[np.bool_] = self.event >= 0
        return said

    def labelled(self) -> LastEvents:
        """Return the same without events that have no label, which withdraw an earlier one."""
        withdrawn = _at(self.events.codes("label"), self.event, 0, np.int64) == 0
        return LastEvents(self.events, np.where(withdrawn, np.int32(-1), self.event))


def _at(
    values: npt.NDArray[Any], event: npt.NDArray[np.int32], none: float, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Shape ``(N,)``: the value of each crop's event, ``none`` where there is no event."""
    found = np.full(len(event), none, dtype=dtype)
    has = event >= 0
    found[has] = values[event[has]]
    return found


class Annotations:
    """The label log of a camera as it stood at one time.

    Args:
        names: The N crops; events about other crops are ignored.
        events: E events. The caller adds no more to them.
    """

    def __init__(self, names: Names, events: Events) -> None:
        self.names, self._events = names, events

    def __len__(self) -> int:
        """Number of events in the log."""
        return len(self._events)

    def proposal(self) -> LastEvents:
        """The last proposal of a detector for each crop."""
        return self._last(self._events.is_any("source", "detector"))

    def human(self, purpose: str | None = None) -> LastEvents:
        """The last event of a person, oracle or import; an event without a label withdraws.

        Args:
            purpose: Only events of this purpose; None for all.
        """
        chosen = self._by_human
        if purpose is not None:
            chosen = chosen & self._events.is_any("purpose", purpose)
        return self._last(chosen)

    def team(self, purpose: str) -> LastEvents:
        """The last event of a team for each crop, without those that a rollback took back.

        Args:
            purpose: ``increment`` or ``verdict``.
        """
        return self._last(self._by_team & self._events.is_any("purpose", purpose))

    def team_said(self, label: Texts) -> LastEvents:
        """The last event in which a team gave a crop this label, even if it was rolled back since.

        Args:
            label: Shape ``(N,)``: the label to look for; ``""`` looks for none.
        """
        events = self._events
        column = events.text("label")
        encoded = pa.array(label, pa.string()).dictionary_encode()
        code = pc.fill_null(pc.index_in(encoded.dictionary, value_set=column.texts), 0)
        wanted = code.to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]
        chosen = events.is_any("source", "team") & (events.row >= 0) & (column.codes != 0)
        event = np.flatnonzero(chosen)
        chosen[event] = column.codes[event] == wanted[events.row[event]]
        return self._last(chosen)

    def in_test_set(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops in the frozen test set; no crop ever leaves it."""
        return self._last(self._events.is_any("purpose", "test")).said()

    def marked_held_out(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops that came as neither for training nor for measuring."""
        return self._last(self._events.is_any("purpose", HELD_OUT)).said()

    def of(self, source: str, purpose: str) -> LastEvents:
        """The last event of one source and one purpose, both as :class:`LabelEvent` names them."""
        events = self._events
        return self._last(events.is_any("source", source) & events.is_any("purpose", purpose))

    def count_answers(self) -> Counter[tuple[str, str, str]]:
        """Count the labels that each source and person gave for each purpose.

        Answers withdrawn later count. Answers that an undo repeats do not: they are counted once.

        Returns:
            Events by source, ``by`` and purpose.
        """
        events = self._events
        said = self._by_human & (events.codes("label") != 0) & ~events.is_undo()
        columns = [events.text(name) for name in ("source", "by", "purpose")]
        key = np.zeros(int(said.sum()), dtype=np.int64)
        for column in columns:
            key = key * len(column.texts) + column.codes[said]
        _, first, count = np.unique(key, return_index=True, return_counts=True)
        at = np.flatnonzero(said)[first]
        keys = zip(*(column[at].tolist() for column in columns), strict=True)
        return Counter(dict(zip(keys, count.tolist(), strict=True)))

    def answers(self) -> Answers:
        """Answers of persons, given on the review page or imported; without simulated ones."""
        return Answers(self.names, self._events, _REVIEWERS)

    def audit_answers(self, since: int, simulated: bool = False) -> Answers:
        """The answers given for an audit.

        Args:
            since: Number of events that were in the log when the audit began; they are ignored.
            simulated: Whether answers of the simulated reviewer count as well.
        """
        sources = HUMAN_SOURCES if simulated else _REVIEWERS
        return Answers(self.names, self._events, sources, "audit", since)

    @cached_property
    def _by_human(self) -> npt.NDArray[np.bool_]:
        """Shape ``(E,)``: events of persons, simulated reviewers and imports."""
        return self._events.is_any("source", *HUMAN_SOURCES)

    @cached_property
    def _by_team(self) -> npt.NDArray[np.bool_]:
        """Shape ``(E,)``: events of teams that no rollback took back."""
        events = self._events
        team = events.is_any("source", "team")
        rollback = events.is_any("source", "rollback")
        if rollback.any():
            # The lowest round that any later rollback goes back to.
            lowest = np.where(rollback, events.round.astype(np.int64), np.iinfo(np.int64).max)
            team &= events.round <= np.minimum.accumulate(lowest[::-1])[::-1]
        return team

    def _last(self, chosen: npt.NDArray[np.bool_]) -> LastEvents:
        """Return the last of the chosen events for each crop."""
        event = np.flatnonzero(chosen & (self._events.row >= 0))
        found = np.full(len(self.names), -1, dtype=np.int32)
        found[self._events.row[event]] = event  # ascending: a crop's last event wins
        return LastEvents(self._events, found)


@dataclass(frozen=True)
class Annotation:
    """A label that a reviewer gave a crop.

    Attributes:
        row: Row number of the crop.
        label: A class, ``unknown`` or ``unusable``.
        by: The reviewer.
        source: ``person``, ``import`` or ``oracle``.
        purpose: The purpose of the answer.
        round: The round whose team was asked about, -1 for none.
    """

    row: int
    label: str
    by: str
    source: str
    purpose: str
    round: int


@dataclass(frozen=True)
class ReviewPage:
    """A page of crops that one reviewer answered together.

    Attributes:
        by: The reviewer.
        purpose: The queue.
        answers: The label of each crop by row number, in the order of the page.
    """

    by: str
    purpose: str
    answers: dict[int, str] = field(default_factory=dict)


class Answers:
    """The reviewers' answers: which stand, and which were taken back.

    Each reviewer's last answer for a crop stands. An answer that resolves a conflict stands beside
    the same reviewer's earlier answer, which was independent of the others; an audit does not make
    this distinction. A page that was taken back does not count, wherever it is in the log, and
    neither do the answers that its undo repeats. An answer without a label withdraws the reviewer's
    earlier one.

    The constructor processes all crops as columns; :meth:`add` only those with new events.

    Args:
        names: The camera's N crops.
        events: The log.
        sources: The sources whose answers count.
        purpose: ``audit`` to count only answers to an audit and events that withdraw them.
        since: Number of events at the beginning of the log that do not count.

    Attributes:
        pages: The reviewer and purpose of each page by name, including pages taken back.
        undone: Names of the pages that were taken back.
    """

    def __init__(
        self,
        names: Names,
        events: Events,
        sources: Sequence[str],
        purpose: str = "",
        since: int = 0,
    ) -> None:
        self._names, self._sources, self._purpose = names, tuple(sources), purpose
        chosen = events.is_any("source", *sources) & (events.row >= 0)
        chosen[:since] = False
        if purpose:
            chosen &= events.is_any("purpose", purpose) | (events.codes("label") == 0)
        self._events = events.only(chosen)
        self._conflict = self._events.code("purpose", "conflict")
        self.pages: dict[str, tuple[str, str]] = {}
        self.undone: set[str] = set()
        self._open: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        # By code of a commit: whether it undoes a page, and whether it was undone.
        self._undoes, self._is_undone = Numbers(np.bool_), Numbers(np.bool_)
        self._shared: dict[int, None] = {}
        self._standing = np.zeros(0, dtype=np.int64)
        self._again: dict[int, npt.NDArray[np.int64]] = {}  # of crops with events since
        self._pairs: dict[int, tuple[str, str]] = {}
        self._answered = np.zeros(len(names), dtype=bool)
        self._settled = np.zeros(len(names), dtype=bool)
        self._alone = np.full(len(names), _NOBODY, dtype=np.int32)
        every = np.arange(len(self._events))
        self._note_pages(every)
        self._sort()
        standing = self._stand(every)
        row = self._events.row[standing]
        self._answered[row] = True
        self._settled[row] = self._resolves(standing)  # a repeated place keeps its last value
        self._standing = standing[np.argsort(row, kind="stable")]
        self._standing_row = self._events.row[self._standing]
        self._note_shared(every)
        self._note_agreement(standing, np.unique(row))

    def add(self, events: Sequence[LabelEvent], rows: npt.NDArray[np.int64] | None = None) -> None:
        """Take in the events that were added since.

        Args:
            events: The events.
            rows: Row numbers of their crops, -1 for none, if the caller has looked them up.
        """
        if rows is None:
            rows = self._names.find([event.crop_id for event in events])
        counts = [
            row >= 0
            and event.source in self._sources
            and (not self._purpose or event.purpose == self._purpose or not event.label)
            for row, event in zip(rows.tolist(), events, strict=True)
        ]
        new = list(itertools.compress(events, counts))
        if not new:
            return
        before = len(self._events)
        self._events.add(rows[counts], events_to_table(new))
        added = np.arange(before, len(self._events))
        undone = self._note_pages(added)
        row_of = self._events.row
        rows = np.union1d(row_of[added], row_of[undone])
        if len(self._events) - self._sorted > _TAIL:
            self._sort()
        about = self._about(rows)
        standing = self._stand(about)
        by_row = standing[np.argsort(row_of[standing], kind="stable")]
        first = np.searchsorted(row_of[by_row], rows, "left")
        end = np.searchsorted(row_of[by_row], rows, "right")
        answered = end > first
        self._answered[rows] = answered
        self._settled[rows] = False
        self._settled[rows[answered]] = self._resolves(by_row[end[answered] - 1])
        for row_, here, there in zip(rows.tolist(), first.tolist(), end.tolist(), strict=True):
            self._again[row_] = by_row[here:there]
        self._note_shared(about)
        self._note_agreement(standing, rows)

    # -- what stands ---------------------------------------------------------------------------

    def about(self, row: int) -> list[Annotation]:
        """Return the standing answers for a crop, oldest first."""
        return self._annotations(self._of_row(row))

    def last(self, row: int) -> Annotation | None:
        """Return the last standing answer for a crop, of any reviewer; None if there is none."""
        standing = self._of_row(row)
        return self._annotations(standing[-1:])[0] if standing.size else None

    def is_answered(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Shape ``(K,)``: whether each of K crops has a standing answer."""
        answered: npt.NDArray[np.bool_] = self._answered[rows]
        return answered

    def is_settled(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Shape ``(K,)``: whether the last answer for a crop resolved a conflict."""
        settled: npt.NDArray[np.bool_] = self._settled[rows]
        return settled

    def unseen(self, row: int) -> dict[str, str]:
        """Return each reviewer's independent label for a crop, given without seeing the others'."""
        return {word.by: word.label for word in self.about(row) if word.purpose != "conflict"}

    def is_disputed(self, row: int) -> bool:
        """Return whether independent answers for a crop disagree."""
        return row in self._shared and len(set(self.unseen(row).values())) > 1

    def settled_by(self, row: int, reviewer: str) -> str:
        """Return the label with which a reviewer resolved a conflict on a crop, ``""`` for none."""
        said = [w for w in self.about(row) if w.purpose == "conflict" and w.by == reviewer]
        return said[-1].label if said else ""

    def lacks_second(self, rows: npt.NDArray[np.int64], reviewer: str) -> npt.NDArray[np.bool_]:
        """Shape ``(K,)``: whether exactly one reviewer, not this one, answered independently."""
        alone = self._alone[rows]
        lacks: npt.NDArray[np.bool_] = (alone >= 0) & (alone != self._events.code("by", reviewer))
        return lacks

    def pairs(self) -> list[tuple[str, str]]:
        """Return pairs of independent labels for a crop, in the order of the reviewers' names."""
        return list(self._pairs.values())

    def shared(self) -> list[int]:
        """Crops that more than one reviewer ever answered, in the order in which this happened."""
        return list(self._shared)

    # -- pages ---------------------------------------------------------------------------------

    def page(self, name: str) -> ReviewPage:
        """Return a page, one of ``pages``, as it was answered."""
        code = self._events.code("commit", name)
        event = np.flatnonzero(self._events.codes("commit") == code)
        labels, label = self._events.texts("label"), self._events.codes("label")[event]
        rows = self._events.row[event].tolist()
        answers = {row: labels[code] for row, code in zip(rows, label.tolist(), strict=True)}
        return ReviewPage(*self.pages[name], answers)

    def undoable(self, reviewer: str, purpose: str) -> list[str]:
        """Return the pages that a reviewer can take back, oldest first."""
        return list(self._open[reviewer, purpose])

    def undoing(self, name: str) -> list[LabelEvent]:
        """Return the events that take back a page.

        For each crop they withdraw the page's answer and repeat the one that stood before.

        Args:
            name: Name of the page, one of ``pages``.
        """
        page, undo = self.page(name), UNDO + name
        rows = np.array(list(page.answers), dtype=np.int64)
        before = self._stand(self._about(rows), without=self._events.code("commit", name))
        stood: dict[int, list[Annotation]] = defaultdict(list)
        for word in self._annotations(before):
            stood[word.row].append(word)
        events = []
        for row, crop_id in zip(page.answers, self._names[rows].tolist(), strict=True):
            events.append(LabelEvent(crop_id, "", "person", page.purpose, by=page.by, commit=undo))
            events += [
                LabelEvent(
                    crop_id, word.label, word.source, word.purpose, word.round, by=word.by,
                    commit=undo,
                )
                for word in stood[row]
            ]  # fmt: skip
        return events

    # -- which events stand --------------------------------------------------------------------

    def _stand(
        self, event: npt.NDArray[np.int64], without: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Reduce all events about some crops to those that stand, in the order of the log.

        Args:
            event: The events' numbers, ascending.
            without: Code of a commit to treat as taken back.
        """
        events = self._events
        commit = events.codes("commit")[event]
        gone = self._undoes.all()[commit] | self._is_undone.all()[commit]
        if without is not None:
            gone |= commit == without
        event = event[~gone]
        key = events.row[event].astype(np.int64) * len(events.texts("by"))
        key += events.codes("by")[event]
        if not self._purpose:
            key = 2 * key + self._resolves(event)
        # Each key's last event is the first one in reversed order.
        _, from_behind = np.unique(key[::-1], return_index=True)
        last = np.sort(event[::-1][from_behind])
        standing: npt.NDArray[np.int64] = last[events.codes("label")[last] != 0]
        return standing

    def _resolves(self, event: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which events resolved a conflict, knowing the other answers."""
        resolves: npt.NDArray[np.bool_] = self._events.codes("purpose")[event] == self._conflict
        return resolves

    def _sort(self) -> None:
        """Sort the events so far by crop."""
        self._sorted = len(self._events)
        self._by_row = np.argsort(self._events.row, kind="stable")
        self._row_sorted = self._events.row[self._by_row]

    def _about(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return all events about some crops, in the order of the log."""
        begin = np.searchsorted(self._row_sorted, rows, "left")
        end = np.searchsorted(self._row_sorted, rows, "right")
        parts = [self._by_row[b:e] for b, e in zip(begin.tolist(), end.tolist(), strict=True)]
        later = np.flatnonzero(np.isin(self._events.row[self._sorted :], rows)) + self._sorted
        return np.sort(np.concatenate([*parts, later]))

    def _of_row(self, row: int) -> npt.NDArray[np.int64]:
        """Return a crop's standing events, in the order of the log."""
        if (known := self._again.get(row)) is not None:
            return known
        begin, end = np.searchsorted(self._standing_row, [row, row + 1])
        return self._standing[begin:end]

    def _annotations(self, event: npt.NDArray[np.int64]) -> list[Annotation]:
        columns = [self._events.row[event].tolist()]
        for name in ("label", "by", "source", "purpose"):
            texts = self._events.texts(name)
            columns.append([texts[code] for code in self._events.codes(name)[event].tolist()])
        columns.append(self._events.round[event].tolist())
        return [Annotation(*values) for values in zip(*columns, strict=True)]

    def _note_pages(self, event: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Record the pages that events answer or undo; return the events that this takes back."""
        events = self._events
        names = events.texts("commit")
        new = names[len(self._undoes) :]
        self._undoes.add(np.array([name.startswith(UNDO) for name in new], dtype=bool))
        self._is_undone.add(np.zeros(len(new), dtype=bool))
        taken_back = []
        _, first = np.unique(events.codes("commit")[event], return_index=True)
        for number in event[np.sort(first)].tolist():
            name = names[events.codes("commit")[number]]
            if name.startswith(UNDO):
                page = name.removeprefix(UNDO)
                self.undone.add(page)
                code = events.code("commit", page)
                if code == len(self._undoes):
                    self._undoes.add(np.zeros(1, dtype=bool))
                    self._is_undone.add(np.zeros(1, dtype=bool))
                self._is_undone.all()[code] = True
                taken_back.append(code)
                if page in self.pages:
                    self._open[self.pages[page]].pop(page, None)
            elif name and name not in self.pages:
                by, purpose = (
                    events.texts(column)[events.codes(column)[number]]
                    for column in ("by", "purpose")
                )
                self.pages[name] = by, purpose
                if name not in self.undone:
                    self._open[by, purpose][name] = None
        if not taken_back:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.isin(events.codes("commit"), taken_back))

    def _note_shared(self, event: npt.NDArray[np.int64]) -> None:
        """Record the crops with several reviewers, given all events about some crops."""
        events = self._events
        event = event[~self._undoes.all()[events.codes("commit")[event]]]
        row = events.row[event].astype(np.int64)
        _, first = np.unique(
            row * len(events.texts("by")) + events.codes("by")[event], return_index=True
        )
        first = np.sort(first)  # one per reviewer and crop, in the order of the log
        _, begins = np.unique(row[first], return_index=True)
        further = np.delete(first, begins)
        for shared in row[further].tolist():
            self._shared.setdefault(shared, None)

    def _note_agreement(self, standing: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> None:
        """Record who answered some crops independently, and the pairs of labels for the same crop.

        Args:
            standing: Numbers of all events that stand on these crops.
            rows: The crops.
        """
        unseen = standing[~self._resolves(standing)]
        row = self._events.row[unseen]
        by = self._events.codes("by")[unseen]
        self._alone[rows] = _NOBODY
        self._alone[row] = by
        several, count = np.unique(row, return_counts=True)
        several = several[count > 1]
        self._alone[several] = _SEVERAL
        for gone in self._pairs.keys() & set(rows.tolist()):
            del self._pairs[gone]
        for shared in several.tolist():
            first, second, *_ = sorted(self.unseen(shared).items())
            self._pairs[shared] = first[1], second[1]
