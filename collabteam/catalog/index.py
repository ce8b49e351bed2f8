"""What every crop is called now, derived from the log of what was said about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog.records import HUMAN_SOURCES

Texts = npt.NDArray[np.object_]
"""Shape ``(N,)``, of ``str``. Objects, because equal texts then share memory."""

CROP_COLUMNS = ("crop_id", "video", "track", "time")
LOG_COLUMNS = ("crop_id", "label", "source", "purpose", "round", "confidence", "by", "commit")


@dataclass(frozen=True)
class CropIndex:
    """One row per crop, in the order of arrival; everything but the pictures.

    A row's number never changes: later crops are added behind it. Of several events the last in
    the log decides. Team events of a round above K count for nothing once a rollback to K stands
    behind them.

    Attributes:
        crop_id: Shape ``(N,)``: the crops' names.
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

    crop_id: Texts
    track: Texts
    track_code: npt.NDArray[np.int64]
    video: Texts
    time: npt.NDArray[np.float64]
    proposed: Texts
    human: Texts
    human_source: Texts
    test: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    unsure_round: npt.NDArray[np.int64]
    audited: npt.NDArray[np.bool_]
    increment_round: npt.NDArray[np.int64]
    increment_label: Texts
    increment_by: Texts
    verdict: Texts
    verdict_round: npt.NDArray[np.int64]
    verdict_confidence: npt.NDArray[np.float64]
    verdict_by: Texts
    verdict_run: Texts
    current: Texts

    def __len__(self) -> int:
        return len(self.crop_id)


class _Column:
    """A text column as numbers and the few different texts behind them."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        encoded = column.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        self.codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # The empty text stands last: number -1, which "no event" then finds.
        self.texts: Texts = np.array([*encoded.dictionary.to_pylist(), ""], dtype=object)

    def is_any(self, *wanted: str) -> npt.NDArray[np.bool_]:
        """Shape ``(E,)``: where the text is one of these."""
        hit: npt.NDArray[np.bool_] = np.isin(self.texts.astype(str), wanted)[self.codes]
        return hit

    def at(self, event: npt.NDArray[np.int64]) -> Texts:
        """Shape of ``event``: the text of each event, ``""`` for event -1."""
        texts: Texts = self.texts[np.append(self.codes, -1)[event]]
        return texts


def derive(crops: pa.Table, log: pa.Table) -> CropIndex:
    """Derive what every crop is called now.

    Args:
        crops: N rows with ``CROP_COLUMNS``.
        log: E rows with ``LOG_COLUMNS``; events of crops that are not among the N are ignored.
    """
    ids = _one(crops["crop_id"])
    source, purpose = _Column(log["source"]), _Column(log["purpose"])
    label, by, commit = _Column(log["label"]), _Column(log["by"]), _Column(log["commit"])
    rounds = log["round"].to_numpy().astype(np.int64)
    confidences = log["confidence"].to_numpy()
    row = pc.fill_null(pc.index_in(_one(log["crop_id"]), value_set=ids), -1)
    row_E = row.to_numpy(zero_copy_only=False).astype(np.int64)
    known_E = row_E >= 0

    def last(chosen_E: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Shape ``(N,)``: each crop's last event among the chosen, -1 for none."""
        event = np.flatnonzero(chosen_E & known_E)
        found = np.full(len(ids), -1, dtype=np.int64)
        found[row_E[event]] = event  # ascending, and of repeated places the last value stays
        return found

    # The lowest round that any rollback further down the log goes back to.
    lowest_E = np.where(source.is_any("rollback"), rounds, np.iinfo(np.int64).max)
    lowest_E = np.minimum.accumulate(lowest_E[::-1])[::-1]
    team_E = source.is_any("team") & (rounds <= lowest_E)

    human_E = source.is_any(*HUMAN_SOURCES)
    human = last(human_E)
    human_label = label.at(human)
    unsure = last(human_E & purpose.is_any("unsure"))
    unsure[label.at(unsure) == ""] = -1  # withdrawn
    increment = last(team_E & purpose.is_any("increment"))
    verdict = last(team_E & purpose.is_any("verdict"))
    team_label = label.at(last(team_E))
    test = last(purpose.is_any("test")) >= 0

    joined = pc.binary_join_element_wise(_one(crops["video"]), _one(crops["track"]), "/")
    track = pc.if_else(pc.equal(_one(crops["track"]), ""), ids, joined).dictionary_encode()
    track_code = track.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    tainted = np.zeros(int(track_code.max(initial=-1)) + 1, dtype=bool)
    tainted[track_code[test]] = True
    video = _Column(crops["video"])

    return CropIndex(
        crop_id=ids.to_numpy(zero_copy_only=False),
        track=track.dictionary.to_numpy(zero_copy_only=False)[track_code],
        track_code=track_code,
        video=video.texts[video.codes],
        time=crops["time"].to_numpy(),
        proposed=label.at(last(source.is_any("detector"))),
        human=human_label,
        human_source=np.where(human_label == "", "", source.at(human)),
        test=test,
        held_out=tainted[track_code],
        unsure_round=np.where(unsure >= 0, np.append(rounds, -1)[unsure], -1),
        audited=label.at(last(human_E & purpose.is_any("audit"))) != "",
        increment_round=np.where(increment >= 0, np.append(rounds, -1)[increment], -1),
        increment_label=label.at(increment),
        increment_by=by.at(increment),
        verdict=label.at(verdict),
        verdict_round=np.where(verdict >= 0, np.append(rounds, -1)[verdict], -1),
        verdict_confidence=np.append(confidences, np.nan)[verdict],
        verdict_by=by.at(verdict),
        verdict_run=commit.at(verdict),
        current=np.where(human_label == "", team_label, human_label),
    )


def _one(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece."""
    array = column.combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
