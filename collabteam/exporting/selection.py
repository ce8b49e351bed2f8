"""Select the crops of a dataset, and the label of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from collabteam.audits.records import Certificate, read_certificate
from collabteam.audits.release import read_release
from collabteam.catalog.catalog import Catalog
from collabteam.catalog.index import CropIndex
from collabteam.catalog.records import seeded_hash
from collabteam.catalog.texts import Texts
from collabteam.errors import UserError
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.storage.workspace import Workspace

TRAIN, VAL, TEST, HELD_OUT = "train", "val", "test", "held-out"
SPLITS = (TRAIN, VAL, TEST, HELD_OUT)
"""``val`` occurs only in ``yolo``; ``held-out`` are other crops of tracks in the test set."""
SOURCES = ("person", "import", "oracle", "team")
"""The sources of labels; ``oracle`` is a simulated person."""

NO_LABEL = "they have no label"
NOT_KNOWN = 'the team said "I don\'t know"'
IS_UNUSABLE = "'unusable': nobody can judge them"
IS_UNKNOWN = "'unknown': none of the classes (unknown=true includes them)"
FOREIGN = "their label is not a class of the camera"
NOT_SURE = "the team's confidence is below min_confidence"
UNDECODABLE = "their picture cannot be opened"
NOT_COVERED = "the certificate does not cover them"
REASONS = (NOT_COVERED, NO_LABEL, NOT_KNOWN, IS_UNUSABLE, IS_UNKNOWN, FOREIGN, NOT_SURE)
"""Why a crop is not selected; the first reason that applies counts."""


@dataclass(frozen=True)
class Selection:
    """K crops of one camera with a label each, in the order of arrival.

    Attributes:
        index: The camera's crops at the time of the selection.
        classes: The camera's classes in order, and ``unknown`` last if it was asked for.
        rows: Shape ``(K,)``, int64: row numbers of the index.
        label: Shape ``(K,)``: one of ``classes`` each.
        source: Shape ``(K,)``: one of ``SOURCES`` each.
        confidence: Shape ``(K,)``, float64: the team's confidence, 0 to 1; NaN for labels of
            persons.
        round: Shape ``(K,)``, int64: the team's round, -1 for labels of persons.
        team: Shape ``(K,)``: the team's fingerprint, ``""`` for labels of persons.
        split: Shape ``(K,)``: one of ``SPLITS`` each.
        left_out: Number of crops left out, by reason; it has all ``REASONS``, and ``UNDECODABLE``
            once :meth:`without` was called.
        certificate: The certificate that covers these labels, if only certified ones were asked
            for; else None.
        undecodable: Why pictures that were to be written cannot be opened, by crop.
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
    undecodable: Mapping[str, str] = field(default_factory=dict)

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
        """Return a line for every reason that occurs, with the number of crops left out."""
        return [f"{count:,}: {reason}" for reason, count in self.left_out.items() if count]

    def take(self, order: npt.NDArray[np.int64]) -> Selection:
        """Return the crops at some places, in this order.

        Args:
            order: Shape ``(J,)``: places from 0 to K - 1.
        """
        chosen = {
            name: getattr(self, name)[order]
            for name in ("rows", "label", "source", "confidence", "round", "team", "split")
        }
        return replace(self, **chosen)

    def without(self, undecodable: Mapping[str, str]) -> Selection:
        """Return the other crops, if pictures of these cannot be opened.

        Args:
            undecodable: The reason by crop.
        """
        names = self.index.crop_id[self.rows].astype(str)
        rest = self.take(np.flatnonzero(~np.isin(names, list(undecodable))))
        count = len(self) - len(rest) + self.left_out.get(UNDECODABLE, 0)
        return replace(
            rest,
            left_out={**self.left_out, UNDECODABLE: count},
            undecodable={**self.undecodable, **undecodable},
        )

    def count(self, label: str, source: str = "", split: str = "") -> int:
        """Count the crops of a label, and of a source or a split if given."""
        chosen = self.label == label
        if source:
            chosen = chosen & (self.source == source)
        if split:
            chosen = chosen & (self.split == split)
        return int(chosen.sum())


@dataclass(frozen=True)
class _TeamLabels:
    """Shape ``(N,)`` each: a team's label of every crop, with its confidence, round and team."""

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

    A person's label takes precedence over a team's. A team's label is its last verdict or, without
    one, the crop's label in a round's increment.

    Args:
        catalog: The camera.
        certified: Whether to select only crops that the newest certificate covers, each with its
            frozen label, unless a person has given another label since.
        min_confidence: Lowest confidence of the team's labels, 0 to 1; others are left out.
        unknown: Whether to include ``unknown`` crops: objects of none of the classes.

    Returns:
        The crops; there may be none.

    Raises:
        UserError: The camera has no classes; or ``certified`` is set and the certificate is
            missing or damaged, or passed no class.
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
        said = _frozen(catalog, index, certificate)
        covered = said.label != ""
    else:
        said = _current(catalog, index)
    classes = [*catalog.classes, *([UNKNOWN] if unknown else [])]
    is_team = ~index.verified()
    label = np.where(is_team, said.label, index.human)
    reason = _reasons(index, label, said.confidence, covered, classes, min_confidence)
    rows = np.flatnonzero(reason < 0)
    of_team = is_team[rows]
    held_out = np.where(index.held_out[rows], HELD_OUT, TRAIN)
    return Selection(
        index=index,
        classes=classes,
        rows=rows,
        label=label[rows].astype(object),
        source=np.where(of_team, "team", index.human_source[rows]).astype(object),
        confidence=np.where(of_team, said.confidence[rows], np.nan),
        round=np.where(of_team, said.round[rows], -1),
        team=np.where(of_team, said.team[rows], "").astype(object),
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
    """Shape ``(N,)``: number of the first reason to leave a crop out, -1 to include it."""
    nothing = label == ""
    # NaN fails the comparison, so such labels are left out.
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


# -- labels of the team --------------------------------------------------------------------------


def _current(catalog: Catalog, index: CropIndex) -> _TeamLabels:
    """Return the last verdicts, and labels of increments for crops that never had a verdict."""
    judged = index.verdict_round >= 0
    confidence = index.verdict_confidence
    joined = ~judged & (index.increment_round >= 0)
    if joined.any():
        drawn = catalog.annotations().team("increment").confidence[: len(index)]
        confidence = np.where(joined, drawn, confidence)
    return _TeamLabels(
        label=np.where(judged, index.verdict, index.increment_label),
        confidence=confidence,
        round=np.where(judged, index.verdict_round, index.increment_round),
        team=np.where(judged, index.verdict_by, index.increment_by),
    )


def _frozen(catalog: Catalog, index: CropIndex, certificate: Certificate) -> _TeamLabels:
    """Return the labels that a certificate covers, ``""`` elsewhere."""
    release = read_release(catalog.workspace, certificate)
    crops, labels = release["crop_id"].to_pylist(), release["label"].to_pylist()
    passed = np.isin(np.array(labels, dtype=str), certificate.classes_that(passed=True))
    rows = index.crop_id.find(crops)
    if (lost := np.flatnonzero(passed & (rows < 0))).size:
        raise UserError(
            f"crop {crops[lost[0]]} of audit {certificate.audit} is not in the catalog of camera "
            f"{catalog.name}: restore the camera from a backup, or audit again with new=true"
        )
    annotations = catalog.annotations()
    label = np.full(len(annotations.names), "", dtype=object)
    label[rows[passed]] = np.array(labels, dtype=object)[passed]
    said = annotations.team_said(label)
    here = slice(len(index))  # others may have added crops since
    return _TeamLabels(label[here], said.confidence[here], said.round[here], said.text("by")[here])


# -- certificates ------------------------------------------------------------------------------


def newest_certificate(workspace: Workspace) -> Certificate | None:
    """Read the certificate of a camera's last audit that has one; None if no audit has.

    Args:
        workspace: The camera's files.

    Raises:
        UserError: The certificate is damaged.
    """
    numbers = [n for n in workspace.audit_numbers() if workspace.audit(n).certificate.exists()]
    if not numbers:
        return None
    return read_certificate(workspace, max(numbers))


def _certificate(catalog: Catalog) -> Certificate:
    command = f"python -m collabteam.audit camera={catalog.name}"
    certificate = newest_certificate(catalog.workspace)
    if certificate is None:
        raise UserError(
            f"certified=true, but camera {catalog.name} has no certificate: {command} makes one"
        )
    if not certificate.classes_that(passed=True):
        raise UserError(
            f"certified=true, but in audit {certificate.audit} of camera {catalog.name} no class "
            f"passed ({', '.join(certificate.classes)}): {command} new=true audits again"
        )
    return certificate


# -- validation --------------------------------------------------------------------------------


def validation_part(labels: Texts, tracks: Texts, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose about a share of each label's crops, in whole tracks.

    Tracks are taken in the order of a seeded hash of their names while they fit, so most tracks
    stay on their side when others are added. A label with two or more tracks has at least one on
    each side.

    Args:
        labels: Shape ``(K,)``; a track with several labels counts for its most frequent one.
        tracks: Shape ``(K,)``: track of each crop.
        share: Share of the crops, 0 to 1.
        seed: Seed of the hash.

    Returns:
        Shape ``(K,)``, bool: whether each crop is chosen.
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
            # Round to the nearest whole track.
            if taken + sizes[member] / 2 <= wanted:
                chosen[member] = True
                taken += sizes[member]
        if share > 0 and len(members) > 1 and not taken:
            chosen[members[np.argmin(sizes[members])]] = True
        if share < 1 and len(members) > 1 and chosen[members].all():
            chosen[members[np.argmin(sizes[members])]] = False
    part: npt.NDArray[np.bool_] = chosen[track]
    return part
