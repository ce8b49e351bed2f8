"""The crops of a camera as columns: their origin and their current labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog.annotations import Annotations, Events
from collabteam.catalog.records import NONE, UNLABELLED
from collabteam.catalog.texts import (
    NAME_WORDS,
    Encoder,
    Names,
    Numbers,
    TextColumn,
    Texts,
    words_of,
)
from collabteam.catalog.times import unix_seconds
from collabteam.settings import UNUSABLE

CROP_COLUMNS = ("crop_id", "video", "track", "time")

_FEW_CROPS = 65_536
"""Up to this many new crops are kept as a set instead of being sorted in with the others."""


@dataclass(frozen=True)
class CropIndex:
    """One row per crop, in the order of arrival; everything but the pictures.

    A row's number never changes: later crops are appended. If a crop has several events, the last
    one in the log decides. A rollback to round K cancels earlier team events of rounds above K.

    Attributes:
        crop_id: Shape ``(N,)``: the crops' names; ``crop_id.find`` looks up rows.
        track: Shape ``(N,)``: ``video/track``, so that equal numbers in two videos differ; the
            crop's own name where it has no track, so that it stands alone.
        track_code: Shape ``(N,)``, int64: the same as numbers from 0, for grouping.
        video: Shape ``(N,)``: the video, ``""`` for none.
        time: Shape ``(N,)``, float64: Unix seconds from 1970 until 2100, NaN for unknown. A camera
            may hold times in other units, from earlier versions: they are converted.
        proposed: Shape ``(N,)``: the detector's last proposal, ``""`` for none.
        human: Shape ``(N,)``: the last label of a person, oracle or import, ``""`` for none.
        human_source: Shape ``(N,)``: the source of ``human``, ``""`` for no label.
        test: Shape ``(N,)``, bool: in the frozen test set, permanently.
        held_out: Shape ``(N,)``, bool: some crop of the same track is in the test set, or came with
            the mark that it neither trains nor is measured on.
        unsure_round: Shape ``(N,)``, int64: the round whose team abstained on a crop that a person
            then labelled, -1 for none.
        audited: Shape ``(N,)``, bool: a person verified it in an audit of the team's labels.
        increment_round: Shape ``(N,)``, int64: the last round whose increment has the crop, -1
            for none.
        increment_label: Shape ``(N,)``: its label in that increment, ``""`` for none.
        increment_by: Shape ``(N,)``: fingerprint of the team that chose it, ``""`` for none.
        verdict: Shape ``(N,)``: the last released label of a team, ``""`` for "I don't know" or no
            verdict.
        verdict_round: Shape ``(N,)``, int64: the round of that team, -1 for no verdict.
        verdict_confidence: Shape ``(N,)``, float64: 0 to 1, NaN for no verdict.
        verdict_by: Shape ``(N,)``: fingerprint of that team, ``""`` for no verdict.
        verdict_run: Shape ``(N,)``: name of that labelling's settings, ``""`` for no verdict.
    """

    crop_id: Names
    track: TextColumn
    track_code: npt.NDArray[np.int64]
    video: TextColumn
    time: npt.NDArray[np.float64]
    proposed: TextColumn
    human: TextColumn
    human_source: TextColumn
    test: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    unsure_round: npt.NDArray[np.int64]
    audited: npt.NDArray[np.bool_]
    increment_round: npt.NDArray[np.int64]
    increment_label: TextColumn
    increment_by: TextColumn
    verdict: TextColumn
    verdict_round: npt.NDArray[np.int64]
    verdict_confidence: npt.NDArray[np.float64]
    verdict_by: TextColumn
    verdict_run: TextColumn

    def __len__(self) -> int:
        return len(self.crop_id)

    def verified(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops that a person has labelled, ``unusable`` included."""
        return self.human != ""

    def judged(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops that a person has labelled as something other than ``unusable``."""
        return self.verified() & (self.human != UNUSABLE)

    def test_set(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops of the frozen test set that results are measured on."""
        return self.test & self.judged()

    def trainable(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops that may train: usable, and not of a track of the test set."""
        return ~self.held_out & (self.human != UNUSABLE)

    def pool(self, used: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops from which a round may draw its increment.

        Args:
            used: Shape ``(N,)``: crops that train in that round or trained before.
        """
        return self.trainable() & ~used

    def unverified(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: unverified crops outside the test set, which a team may label."""
        return ~self.verified() & ~self.test

    def released(self, classes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: unverified crops whose released label is one of these classes."""
        return self.unverified() & self.verdict.is_any(classes)

    def training_labels(self, rows: npt.NDArray[np.int64]) -> Texts:
        """Labels with which crops train: a person's label, else the one of the crop's increment.

        Args:
            rows: Shape ``(K,)``.

        Returns:
            Shape ``(K,)``: class, ``unknown``, ``unusable``, or ``""`` for none.
        """
        human = self.human[rows]
        return np.where(human != "", human, self.increment_label[rows])

    def targets(self, rows: npt.NDArray[np.int64], classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """:meth:`training_labels` as numbers, see :func:`class_numbers`.

        Args:
            rows: Shape ``(K,)``.
            classes: The classes, in the order of their numbers.
        """
        return class_numbers(self.training_labels(rows), classes)


def class_numbers(labels: Texts, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Convert labels to class numbers.

    Args:
        labels: Shape ``(K,)``.
        classes: The classes, in the order of their numbers.

    Returns:
        Shape ``(K,)``: 0 to ``len(classes) - 1``; ``NONE`` for ``unknown`` and every label that is
        none of these classes; ``UNLABELLED`` for ``""`` and ``unusable``.
    """
    numbers = np.full(len(labels), NONE, dtype=np.int64)
    numbers[(labels == "") | (labels == UNUSABLE)] = UNLABELLED
    for number, name in enumerate(classes):
        numbers[labels == name] = number
    return numbers


class IndexBuilder:
    """Collects crops and events; takes about 80 bytes per crop and 20 per event.

    It takes crops and events in the order of their tables, a batch at a time, so nothing is read
    twice. :meth:`annotations` and :meth:`index` derive the current state.
    """

    def __init__(self) -> None:
        self.crops = 0
        self._words = Numbers(np.uint64, NAME_WORDS)
        # Names that are sorted, and those added since.
        self._sorted = self._later = Names(self._words.all())
        self._tracks: tuple[TextColumn, npt.NDArray[np.int64]] | None = None
        self._video, self._track = Encoder(), Encoder()
        self._time = Numbers(np.float64)
        self._events = Events()

    @property
    def events(self) -> int:
        """Number of events so far."""
        return len(self._events)

    def reserve(self, crops: int, events: int) -> None:
        """Make room for a total of crops and events, which saves memory while they are added."""
        for numbers in (self._words, self._video.codes, self._track.codes, self._time):
            numbers.reserve(crops)
        self._events.reserve(events)

    @property
    def names(self) -> Names:
        """The crops' names."""
        if len(self._sorted) < self.crops:
            self._sorted = Names(self._words.all())
            self._later = Names(self._words.all()[self.crops :])
        return self._sorted

    def find(self, crop_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Shape ``(K,)``: the row of each of K names, -1 for those that no crop has."""
        known = len(self._sorted)
        if self.crops == known or self.crops - known > max(_FEW_CROPS, known // 16):
            return self.names.find(crop_ids)
        # Sorting a few separately is faster than sorting them in with the others.
        found = self._sorted.find(crop_ids)
        if known + len(self._later) < self.crops:
            self._later = Names(self._words.all()[known:])
        later = self._later.find(crop_ids)
        rows: npt.NDArray[np.int64] = np.where((found < 0) & (later >= 0), known + later, found)
        return rows

    def add_crops(self, batch: pa.RecordBatch) -> None:
        """Add crops, with ``CROP_COLUMNS``."""
        self._words.add(words_of(batch["crop_id"]))
        self._tracks = None
        self._video.add(batch["video"])
        self._track.add(batch["track"])
        self._time.add(unix_seconds(np.asarray(batch["time"], dtype=np.float64)))
        self.crops += batch.num_rows

    def add_events(self, batch: pa.RecordBatch) -> list[str]:
        """Add events, with ``LOG_COLUMNS``.

        Returns:
            Names that no crop has; their events are ignored.
        """
        rows = self.names.find(batch["crop_id"])
        self._events.add(rows, batch)
        named = batch["crop_id"].filter(pa.array(rows < 0))
        return named.filter(pc.not_equal(named, "")).to_pylist()  # type: ignore[no-any-return]

    def annotations(self) -> Annotations:
        """Return the annotations of the crops."""
        return Annotations(self.names, self._events.snapshot())

    def index(self) -> CropIndex:
        """Derive the current label of every crop."""
        said = self.annotations()
        human, verdict, increment = said.human(), said.team("verdict"), said.team("increment")
        test = said.in_test_set()
        track, track_code = self.group()
        tainted = np.zeros(len(track.texts), dtype=bool)
        tainted[track_code[test | said.marked_held_out()]] = True
        return CropIndex(
            crop_id=said.names,
            track=track,
            track_code=track_code,
            video=self._video.column(),
            time=self._time.all(),
            proposed=said.proposal().label,
            human=human.label,
            human_source=human.labelled().text("source"),
            test=test,
            held_out=tainted[track_code],
            unsure_round=said.human("unsure").labelled().round,
            audited=said.human("audit").labelled().said(),
            increment_round=increment.round,
            increment_label=increment.label,
            increment_by=increment.text("by"),
            verdict=verdict.label,
            verdict_round=verdict.round,
            verdict_confidence=verdict.confidence,
            verdict_by=verdict.text("by"),
            verdict_run=verdict.text("commit"),
        )

    def group(self) -> tuple[TextColumn, npt.NDArray[np.int64]]:
        """Return the tracks in order of first occurrence, and each crop's number among them."""
        if self._tracks is None:
            video, track = self._video.column(), self._track.column()
            pair = video.codes.astype(np.int64) * len(track.texts) + track.codes
            alone = track.codes == 0
            pair[alone] = -1 - np.flatnonzero(alone)
            codes, first = _by_first(pair)
            texts = pc.binary_join_element_wise(
                video.texts.take(pa.array(video.codes[first])),
                track.texts.take(pa.array(track.codes[first])),
                "/",
            )
            if alone.any():
                own = self.names.texts.take(pa.array(first))
                texts = pc.if_else(pa.array(alone[first]), own, texts)
            self._tracks = TextColumn(codes, texts), codes
            pa.default_memory_pool().release_unused()
        return self._tracks


def _by_first(
    values: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number equal values from 0 in order of first occurrence, and return those places too."""
    order = np.argsort(values, kind="stable").astype(np.int32)
    begins = np.ones(len(values), dtype=bool)
    ordered = values[order]
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    first = order[begins]
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    codes = np.empty(len(values), dtype=np.int64)
    codes[order] = number[np.cumsum(begins, dtype=np.int32) - 1]
    return codes, np.sort(first).astype(np.int64)
