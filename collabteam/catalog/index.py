"""What every crop is called now, derived from the log of what was said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog.records import HUMAN_SOURCES, NONE, UNLABELLED
from collabteam.catalog.texts import (
    NAME_WORDS,
    Encoder,
    Names,
    Numbers,
    TextColumn,
    Texts,
    words_of,
)
from collabteam.settings import UNUSABLE

CROP_COLUMNS = ("crop_id", "video", "track", "time")
LOG_COLUMNS = ("crop_id", "label", "source", "purpose", "round", "confidence", "by", "commit")


_FEW_CROPS = 65_536
"""New crops that are rather kept as a set than sorted in with the others."""


@dataclass(frozen=True)
class CropIndex:
    """One row per crop, in the order of arrival; everything but the pictures.

    A row's number never changes: later crops are added behind it. Of several events the last in
    the log decides. Team events of a round above K count for nothing once a rollback to K stands
    behind them.

    Attributes:
        crop_id: Shape ``(N,)``: the crops' names; ``crop_id.find`` gives the rows of some.
        track: Shape ``(N,)``: ``video/track``, so that equal numbers in two videos differ; the
            crop's own name where it has no track, so that it stands alone.
        track_code: Shape ``(N,)``, int64: the same as numbers from 0, for grouping.
        video: Shape ``(N,)``: the video, ``""`` for none.
        time: Shape ``(N,)``, float64: Unix seconds, NaN for unknown.
        proposed: Shape ``(N,)``: what the detector proposed last, ``""`` for nothing.
        human: Shape ``(N,)``: what a person, oracle or import said last, ``""`` for nothing.
        human_source: Shape ``(N,)``: which of these it was, ``""`` where ``human`` is.
        test: Shape ``(N,)``, bool: in the frozen test set, for good.
        held_out: Shape ``(N,)``, bool: some crop of the same track is in the test set.
        unsure_round: Shape ``(N,)``, int64: the round whose team did not know what a person then
            said, -1 for none.
        audited: Shape ``(N,)``, bool: a person judged it in an audit of the team's labels.
        increment_round: Shape ``(N,)``, int64: the round whose increment the crop joined last, -1
            for none.
        increment_label: Shape ``(N,)``: the label that it joined with, ``""`` for none.
        increment_by: Shape ``(N,)``: fingerprint of the team that chose it, ``""`` for none.
        verdict: Shape ``(N,)``: what a team labelled the crop for release last, ``""`` for "I don't
            know" or no verdict.
        verdict_round: Shape ``(N,)``, int64: the round of that team, -1 for no verdict.
        verdict_confidence: Shape ``(N,)``, float64: 0 to 1, NaN for no verdict.
        verdict_by: Shape ``(N,)``: fingerprint of that team, ``""`` for no verdict.
        verdict_run: Shape ``(N,)``: name of the settings that it was labelled with, ``""`` for no
            verdict.
        current: Shape ``(N,)``: what the crop is called now: ``human``, else the last word of the
            team, else ``""``.
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
    current: TextColumn

    def __len__(self) -> int:
        return len(self.crop_id)

    def verified(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops on which a person's word stands, ``unusable`` included."""
        return self.human != ""

    def judged(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops of which a person said what they show."""
        return self.verified() & (self.human != UNUSABLE)

    def test_set(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops of the frozen test set that figures are measured on."""
        return self.test & self.judged()

    def trainable(self) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: crops that may train: usable, and of no track of the test set."""
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
        """Shape ``(N,)``: crops whose label a team released: one of these classes, unverified."""
        return self.unverified() & self.verdict.is_any(classes)

    def training_labels(self, rows: npt.NDArray[np.int64]) -> Texts:
        """Labels with which crops train: a person's word, else that of the crop's increment.

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
    """Labels as numbers of classes.

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
    """What crops and log have said so far, at about 80 bytes a crop and 20 an event.

    It takes crops and events in the order of their tables, a batch at a time, so nothing is read
    twice; :meth:`index` derives what every crop is called.
    """

    def __init__(self) -> None:
        self.crops = self.events = 0
        self._words = Numbers(np.uint64, NAME_WORDS)
        self._sorted = Names(self._words.all())
        self._tracks: tuple[TextColumn, npt.NDArray[np.int64]] | None = None
        self._video, self._track = Encoder(), Encoder()
        self._time = Numbers(np.float64)
        self._row, self._round = Numbers(np.int32), Numbers(np.int8)
        self._confidence = Numbers(np.float64)
        self._said = {name: Encoder() for name in ("label", "source", "purpose", "by", "commit")}

    def reserve(self, crops: int, events: int) -> None:
        """Make room for so many in all, which spares memory while they are added."""
        for numbers in (self._words, self._video.codes, self._track.codes, self._time):
            numbers.reserve(crops)
        for numbers in (self._row, self._round, self._confidence):
            numbers.reserve(events)
        for encoder in self._said.values():
            encoder.codes.reserve(events)

    @property
    def names(self) -> Names:
        """The crops' names."""
        if len(self._sorted) < self.crops:
            self._sorted = Names(self._words.all())
        return self._sorted

    def lacking(self, crop_ids: set[str]) -> set[str]:
        """Those of these names that no crop has."""
        known = len(self._sorted)
        if self.crops - known > max(_FEW_CROPS, known // 16):
            parts = [self.names]
        else:
            # Sorting a few apart takes less than sorting them in with the others.
            parts = [self._sorted, Names(self._words.all()[known:])]
        wanted = list(crop_ids)
        found = np.max([part.find(wanted) for part in parts], axis=0)
        return {name for name, row in zip(wanted, found.tolist(), strict=True) if row < 0}

    def add_crops(self, batch: pa.RecordBatch) -> None:
        """Add crops, with ``CROP_COLUMNS``."""
        self._words.add(words_of(batch["crop_id"]))
        self._tracks = None
        self._video.add(batch["video"])
        self._track.add(batch["track"])
        self._time.add(batch["time"])
        self.crops += batch.num_rows

    def add_events(self, batch: pa.RecordBatch) -> None:
        """Add events, with ``LOG_COLUMNS``; those of crops that are not here are ignored."""
        self._row.add(self.names.find(batch["crop_id"]))
        for name, encoder in self._said.items():
            encoder.add(batch[name])
        self._round.add(batch["round"])
        self._confidence.add(batch["confidence"])
        self.events += batch.num_rows

    def index(self) -> CropIndex:
        """Derive what every crop is called now."""
        names = self.names
        row_E, rounds_E = self._row.all(), self._round.all()
        known_E = row_E >= 0

        def is_any(name: str, *wanted: str) -> npt.NDArray[np.bool_]:
            """Shape ``(E,)``: where a text of the events is one of these."""
            return self._said[name].column().is_any(wanted)

        def last(chosen_E: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
            """Shape ``(N,)``: each crop's last event among the chosen, -1 for none."""
            event = np.flatnonzero(chosen_E & known_E)
            found = np.full(len(names), -1, dtype=np.int32)
            found[row_E[event]] = event  # ascending, and of repeated places the last value stays
            return found

        def text(name: str, event: npt.NDArray[np.int32]) -> TextColumn:
            """Shape ``(N,)``: a text of each crop's event, ``""`` where there is none."""
            said = self._said[name].column()
            return TextColumn(_at(said.codes, event, 0, said.codes.dtype), said.texts)

        human_E, team_E = is_any("source", *HUMAN_SOURCES), is_any("source", "team")
        rollback_E = is_any("source", "rollback")
        if rollback_E.any():
            # The lowest round that any rollback further down the log goes back to.
            lowest_E = np.where(rollback_E, rounds_E.astype(np.int64), np.iinfo(np.int64).max)
            team_E &= rounds_E <= np.minimum.accumulate(lowest_E[::-1])[::-1]

        human = last(human_E)
        human_label, human_source = text("label", human), text("source", human)
        human_source.codes[human_label.codes == 0] = 0  # withdrawn
        unsure = last(human_E & is_any("purpose", "unsure"))
        unsure[text("label", unsure) == ""] = -1  # withdrawn
        increment = last(team_E & is_any("purpose", "increment"))
        verdict = last(team_E & is_any("purpose", "verdict"))
        current = text("label", last(team_E))
        spoken = human_label.codes != 0
        current.codes[spoken] = human_label.codes[spoken]
        test = last(is_any("purpose", "test")) >= 0
        track, track_code = self.group()
        tainted = np.zeros(len(track.texts), dtype=bool)
        tainted[track_code[test]] = True

        return CropIndex(
            crop_id=names,
            track=track,
            track_code=track_code,
            video=self._video.column(),
            time=self._time.all(),
            proposed=text("label", last(is_any("source", "detector"))),
            human=human_label,
            human_source=human_source,
            test=test,
            held_out=tainted[track_code],
            unsure_round=_at(rounds_E, unsure, -1, np.int64),
            audited=text("label", last(human_E & is_any("purpose", "audit"))) != "",
            increment_round=_at(rounds_E, increment, -1, np.int64),
            increment_label=text("label", increment),
            increment_by=text("by", increment),
            verdict=text("label", verdict),
            verdict_round=_at(rounds_E, verdict, -1, np.int64),
            verdict_confidence=_at(self._confidence.all(), verdict, np.nan, np.float64),
            verdict_by=text("by", verdict),
            verdict_run=text("commit", verdict),
            current=current,
        )

    def group(self) -> tuple[TextColumn, npt.NDArray[np.int64]]:
        """The tracks, numbered as they first occur, and the numbers."""
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
    """Shape ``(N,)``: numbers for equal values, from 0 as they occur; and where each first does."""
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


def _at(
    values: npt.NDArray[Any], event: npt.NDArray[np.int32], none: float, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Shape ``(N,)``: the value of each crop's event, ``none`` where there is no event."""
    found = np.full(len(event), none, dtype=dtype)
    has = event >= 0
    found[has] = values[event[has]]
    return found


def derive(crops: pa.Table, log: pa.Table) -> CropIndex:
    """Derive what every crop is called now.

    Args:
        crops: N rows with ``CROP_COLUMNS``.
        log: E rows with ``LOG_COLUMNS``; events of crops that are not among the N are ignored.
    """
    derivation = IndexBuilder()
    for batch in crops.to_batches():
        derivation.add_crops(batch)
    for batch in log.to_batches():
        derivation.add_events(batch)
    return derivation.index()
