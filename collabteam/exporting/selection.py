"""Which crops a dataset has, and whose label each carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collabteam.catalog.catalog import Catalog
from collabteam.catalog.index import CropIndex
from collabteam.catalog.records import labels_hash, seeded_hash
from collabteam.catalog.texts import TextColumn, Texts
from collabteam.errors import UserError, first_line
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.storage.workspace import Workspace

TRAIN, VAL, TEST, HELD_OUT = "train", "val", "test", "held-out"
SPLITS = (TRAIN, VAL, TEST, HELD_OUT)
"""``val`` occurs in ``yolo`` alone; ``held-out`` are crops of objects that the test set shows."""
SOURCES = ("person", "import", "oracle", "team")
"""Whose label it may be; ``oracle`` is a simulated person."""

NO_LABEL = "nobody has labelled them"
NOT_KNOWN = 'the team said "I don\'t know"'
IS_UNUSABLE = "'unusable': nobody can judge them"
IS_UNKNOWN = "'unknown': none of the classes (unknown=true takes them in)"
FOREIGN = "a label that is no class of the camera"
NOT_SURE = "the team was less sure than min_confidence"
NOT_COVERED = "the certificate does not cover them"
REASONS = (NOT_COVERED, NO_LABEL, NOT_KNOWN, IS_UNUSABLE, IS_UNKNOWN, FOREIGN, NOT_SURE)
"""Why a crop is left out; the first that holds counts."""

_EVENTS = ("crop_id", "label", "source", "purpose", "round", "confidence", "by")


@dataclass(frozen=True)
class Certificate:
    """What an audit proved about labels of a team that were frozen before.

    Attributes:
        audit: Number of the audit, from 1.
        passed: The classes that passed.
        failed: The classes that did not.
        statement: What may be said, in words.
        file: The frozen labels: Parquet with the columns ``crop_id`` and ``label``.
        hash: Of these, SHA-256 of lines ``crop_id, tab, label, line feed``.
    """

    audit: int
    passed: list[str]
    failed: list[str]
    statement: str
    file: Path
    hash: str


@dataclass(frozen=True)
class Selection:
    """K crops of one camera with a label each, in the order of arrival.

    Attributes:
        index: The camera's crops as they stood.
        classes: The camera's classes, in its order; ``unknown`` behind them if it was asked for.
        rows: Shape ``(K,)``, int64: row numbers of the index.
        label: Shape ``(K,)``: one of ``classes`` each.
        source: Shape ``(K,)``: one of ``SOURCES`` each.
        confidence: Shape ``(K,)``, float64: the team's, 0 to 1; NaN for labels of persons.
        round: Shape ``(K,)``, int64: the team's round, -1 for labels of persons.
        team: Shape ``(K,)``: the team's fingerprint, ``""`` for labels of persons.
        split: Shape ``(K,)``: one of ``SPLITS`` each.
        left_out: How many of the camera's other crops were left out, by reason; all of ``REASONS``.
        certificate: What covers these labels if only such were asked for; None otherwise.
    """

    index: CropIndex
    classes: list[str]
    rows: npt.NDArray[np.int64]
    label: Texts
    source: Texts
    confidence: npt.NDArray[np.float64]
    round: npt.NDArray[np.int64]
    team: Texts
    split: Texts
    left_out: dict[str, int]
    certificate: Certificate | None

    def __len__(self) -> int:
        return len(self.rows)

    def sources_present(self) -> list[str]:
        """The sources that occur, in the order of ``SOURCES``."""
        there = set(self.source.tolist())
        return [source for source in SOURCES if source in there]

    def splits_present(self) -> list[str]:
        """The splits that occur, in the order of ``SPLITS``."""
        there = set(self.split.tolist())
        return [split for split in SPLITS if split in there]

    def left_out_lines(self) -> list[str]:
        """How many crops were left out for each reason, a line for every reason that occurs."""
        return [f"{count:,}: {reason}" for reason, count in self.left_out.items() if count]

    def take(self, order: npt.NDArray[np.int64]) -> Selection:
        """The crops at some places, in this order.

        Args:
            order: Shape ``(J,)``: places from 0 to K - 1.
        """
        chosen = {
            name: getattr(self, name)[order]
            for name in ("rows", "label", "source", "confidence", "round", "team", "split")
        }
        return replace(self, **chosen)

    def count(self, label: str, source: str = "", split: str = "") -> int:
        """Crops of a label, and of a source or a split where one is given."""
        chosen = self.label == label
        if source:
            chosen = chosen & (self.source == source)
        if split:
            chosen = chosen & (self.split == split)
        return int(chosen.sum())


@dataclass(frozen=True)
class _Words:
    """Shape ``(N,)`` each: a team's label of every crop, and how it came about."""

    label: Texts
    confidence: npt.NDArray[np.float64]
    round: npt.NDArray[np.int64]
    team: Texts


def select_labels(
    catalog: Catalog,
    certified: bool = False,
    min_confidence: float = 0.0,
    unknown: bool = False,
) -> Selection:
    """Choose every crop that has a label now.

    A person's word stands above a team's. A team's word is its last verdict, and where it never
    gave one, the label with which the crop joined a round's increment.

    Args:
        catalog: The camera.
        certified: Only crops that the newest certificate covers, each with the label that was
            frozen then, unless a person has said something else since.
        min_confidence: Leave out the team's labels of which it was less sure, 0 to 1.
        unknown: Also crops that are ``unknown``: objects of none of the classes.

    Returns:
        The crops, perhaps none.

    Raises:
        UserError: The camera has no classes; or a certificate is asked for and there is none, it
            passed no class, or it is damaged.
    """
    if not catalog.classes:
        raise UserError(
            f"camera {catalog.name} has no classes yet: name them when you ingest, "
            "'camera.classes=[a,b]'"
        )
    certificate = _certificate(catalog) if certified else None
    index = catalog.index()
    covered = np.ones(len(index), dtype=bool)
    if certificate:
        words = _frozen(catalog, index, certificate)
        covered = words.label != ""
    else:
        words = _current(catalog, index)
    classes = [*catalog.classes, *([UNKNOWN] if unknown else [])]
    is_team = ~index.verified()
    label = np.where(is_team, words.label, index.human)
    reason = _reasons(index, label, words.confidence, covered, classes, min_confidence)
    rows = np.flatnonzero(reason < 0)
    of_team = is_team[rows]
    held_out = np.where(index.held_out[rows], HELD_OUT, TRAIN)
    return Selection(
        index=index,
        classes=classes,
        rows=rows,
        label=label[rows].astype(object),
        source=np.where(of_team, "team", index.human_source[rows]).astype(object),
        confidence=np.where(of_team, words.confidence[rows], np.nan),
        round=np.where(of_team, words.round[rows], -1),
        team=np.where(of_team, words.team[rows], "").astype(object),
        split=np.where(index.test[rows], TEST, held_out).astype(object),
        left_out={text: int((reason == number).sum()) for number, text in enumerate(REASONS)},
        certificate=certificate,
    )


def _reasons(
    index: CropIndex,
    label: Texts,
    confidence: npt.NDArray[np.float64],
    covered: npt.NDArray[np.bool_],
    classes: Sequence[str],
    least: float,
) -> npt.NDArray[np.int64]:
    """Shape ``(N,)``: number of the first reason to leave a crop out, -1 for none."""
    nothing = label == ""
    # NaN is not sure of anything.
    unsure = ~index.verified() & ~(confidence >= least) if least > 0 else np.zeros_like(covered)
    holds = {
        NOT_COVERED: ~covered,
        NO_LABEL: nothing & (index.verdict_round < 0),
        NOT_KNOWN: nothing,
        IS_UNUSABLE: label == UNUSABLE,
        IS_UNKNOWN: (label == UNKNOWN) & (UNKNOWN not in classes),
        FOREIGN: ~np.isin(label.astype(str), classes),
        NOT_SURE: unsure,
    }
    reason = np.full(len(index), -1, dtype=np.int64)
    for number in reversed(range(len(REASONS))):
        reason[holds[REASONS[number]]] = number
    return reason


# -- what a team said --------------------------------------------------------------------------


def _current(catalog: Catalog, index: CropIndex) -> _Words:
    """The last verdicts, and the labels of increments where there was never one."""
    judged = index.verdict_round >= 0
    confidence = index.verdict_confidence
    label = np.where(judged, index.verdict, index.increment_label)
    joined = ~judged & (index.increment_round >= 0)
    if joined.any():
        _, found, _, _ = _said(
            catalog, index, np.where(joined, label, ""), index.increment_round, index.increment_by
        )
        confidence = np.where(joined, found, confidence)
    return _Words(
        label=label,
        confidence=confidence,
        round=np.where(judged, index.verdict_round, index.increment_round),
        team=np.where(judged, index.verdict_by, index.increment_by),
    )


def _frozen(catalog: Catalog, index: CropIndex, certificate: Certificate) -> _Words:
    """The labels that a certificate covers, ``""`` elsewhere."""
    file = certificate.file
    try:
        table = pq.read_table(file, columns=["crop_id", "label"])
        columns = [
            pc.cast(table[name], pa.string()).combine_chunks() for name in ("crop_id", "label")
        ]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _damaged(file, first_line(error)) from error
    crops, labels = (column.to_pylist() for column in columns)
    if labels_hash(crops, labels) != certificate.hash:
        raise _damaged(file, f"it is not what was frozen for audit {certificate.audit}")
    label = np.full(len(index), "", dtype=object)
    rows = index.crop_id.find(crops).tolist()
    for crop_id, row, frozen in zip(crops, rows, labels, strict=True):
        if frozen in certificate.passed:
            if row < 0:
                raise _damaged(file, f"crop {crop_id} is not in the catalog")
            label[row] = frozen
    confidence, round_, team = _said(catalog, index, label)[1:]
    return _Words(label, confidence, round_, team)


def _said(
    catalog: Catalog,
    index: CropIndex,
    label: Texts,
    round_: npt.NDArray[np.int64] | None = None,
    team: TextColumn | None = None,
) -> tuple[Texts, npt.NDArray[np.float64], npt.NDArray[np.int64], Texts]:
    """Find the last event in which a team called a crop so.

    Args:
        catalog: The camera.
        index: Its N crops.
        label: Shape ``(N,)``: what the team said, ``""`` where nothing is looked for.
        round_: Shape ``(N,)``: in which round, if only that one counts.
        team: Shape ``(N,)``: which team, if only that one counts.

    Returns:
        Label, confidence, round and fingerprint, shape ``(N,)`` each; "", NaN, -1 and "" where
        there is no such event.
    """
    log = catalog.log(_EVENTS)
    log = log.filter(pc.equal(log["source"], "team"))
    row_E = index.crop_id.find(log["crop_id"].combine_chunks())
    event = np.flatnonzero(row_E >= 0)
    row_E = row_E[event]
    texts = {name: log[name].to_numpy()[event] for name in ("label", "by")}
    confidence_E = log["confidence"].to_numpy()[event]
    round_E = log["round"].to_numpy()[event].astype(np.int64)
    match = (texts["label"] == label[row_E]) & (texts["label"] != "")
    if round_ is not None:
        match &= round_E == round_[row_E]
    if team is not None:
        match &= texts["by"] == team[row_E]
    count = len(index)
    said, by = np.full(count, "", dtype=object), np.full(count, "", dtype=object)
    confidence, rounds = np.full(count, np.nan), np.full(count, -1, dtype=np.int64)
    place = row_E[match]  # of repeated places the last value stays
    said[place], by[place] = texts["label"][match], texts["by"][match]
    confidence[place], rounds[place] = confidence_E[match], round_E[match]
    return said, confidence, rounds, by


# -- certificates ------------------------------------------------------------------------------


def newest_certificate(workspace: Workspace) -> Certificate | None:
    """The certificate of a camera's last audit that has one; None if no audit has.

    Args:
        workspace: The camera's files.

    Raises:
        UserError: It is damaged.
    """
    numbers = [n for n in workspace.audit_numbers() if workspace.audit(n).certificate.exists()]
    if not numbers:
        return None
    file = workspace.audit(max(numbers)).certificate
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        results = {str(name): bool(result["passed"]) for name, result in content["classes"].items()}
        release, statement = content["release"], content["statement"]
        texts = (statement, release["file"], release["hash"])
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("expected texts as 'statement', 'release.file' and 'release.hash'")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, f"{type(error).__name__} {first_line(error)}") from error
    return Certificate(
        audit=max(numbers),
        passed=[name for name, passed in results.items() if passed],
        failed=[name for name, passed in results.items() if not passed],
        statement=statement,
        # Beside it, whatever it is relative to.
        file=file.with_name(Path(release["file"]).name),
        hash=release["hash"],
    )


def _certificate(catalog: Catalog) -> Certificate:
    command = f"python -m collabteam.audit camera={catalog.name}"
    certificate = newest_certificate(catalog.workspace)
    if certificate is None:
        raise UserError(
            f"certified=true, but camera {catalog.name} has no certificate: {command} makes one"
        )
    if not certificate.passed:
        raise UserError(
            f"certified=true, but in audit {certificate.audit} of camera {catalog.name} no class "
            f"passed ({', '.join(certificate.failed) or 'it has none'}): {command} new=true audits "
            "again"
        )
    return certificate


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} is damaged ({reason[:200]}): restore it from a backup, or audit again with "
        "new=true"
    )


# -- validation --------------------------------------------------------------------------------


def validation_part(labels: Texts, tracks: Texts, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose about a share of each label's crops, whole tracks only.

    Tracks are taken in the order of a seeded hash of their names while they fit, so most keep
    their part when others join. A label of two tracks or more has at least one on either side.

    Args:
        labels: Shape ``(K,)``; a track whose crops have several counts for its most frequent one.
        tracks: Shape ``(K,)``.
        share: 0 to 1.
        seed: Of the hash.

    Returns:
        Shape ``(K,)``, bool.
    """
    names, track = np.unique(tracks.astype(str), return_inverse=True)
    kinds, kind = np.unique(labels.astype(str), return_inverse=True)
    counts = np.zeros((len(names), len(kinds)), dtype=np.int64)
    np.add.at(counts, (track, kind), 1)
    sizes = counts.sum(axis=1)
    kind_of = counts.argmax(axis=1) if len(kinds) else np.zeros(0, dtype=np.int64)
    ranks = np.array([seeded_hash(str(name), seed) for name in names], dtype=np.uint64)
    chosen = np.zeros(len(names), dtype=bool)
    for number in range(len(kinds)):
        members = np.flatnonzero(kind_of == number)
        members = members[np.argsort(ranks[members], kind="stable")]
        wanted, taken = share * sizes[members].sum(), 0
        for member in members:
            # To the nearest whole track: half a track too many is as far off as half too few.
            if taken + sizes[member] / 2 <= wanted:
                chosen[member] = True
                taken += sizes[member]
        if share > 0 and len(members) > 1 and not taken:
            chosen[members[np.argmin(sizes[members])]] = True
        if share < 1 and len(members) > 1 and chosen[members].all():
            chosen[members[np.argmin(sizes[members])]] = False
    part: npt.NDArray[np.bool_] = chosen[track]
    return part
