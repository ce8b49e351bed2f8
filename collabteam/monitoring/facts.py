"""Gathers the facts about each camera of a fleet for one page.

All facts come from the files that the commands left: no network runs, nothing is written, hidden
truth is not opened. A damaged camera is reported as such and does not affect the others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from collabteam.audits.audit import AuditResult, last_audited
from collabteam.audits.records import AuditRecord, Certificate, JudgedClass
from collabteam.audits.statement import command
from collabteam.catalog import Catalog, CropIndex
from collabteam.errors import UserError, file_error
from collabteam.labelling.records import (
    LabelledSample,
    LabelRecord,
    UnsureSample,
    WrongSample,
    read_label,
)
from collabteam.monitoring.drift import find_drift
from collabteam.monitoring.next_step import Audited, Standing, next_step
from collabteam.monitoring.windows import TimeWindows, time_windows
from collabteam.pictures import UndecodablePicture, decode, placeholder
from collabteam.rounds.records import RoundRecord, read_rounds

Crop = TypeVar("Crop", LabelledSample, UnsureSample, WrongSample)

_PREFIX = "python -m collabteam."
_SIDE = 96
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True)
class Sample:
    """A crop to look at.

    Attributes:
        picture: A small WebP.
        label: The team's label, ``""`` for "I don't know".
        confidence: Confidence of the label, 0 to 1; None without one.
        claimed_by: For "I don't know": classes whose branches voted *true*.
        actual: The label that contradicts the team's, ``""`` for none.
        source: Origin of ``actual``, one of ``reporting.fleet_page.SOURCES``, ``""`` for none.
    """

    picture: bytes
    label: str = ""
    confidence: float | None = None
    claimed_by: tuple[str, ...] = ()
    actual: str = ""
    source: str = ""


@dataclass(frozen=True)
class Verified:
    """Number of crops that one reviewer verified for one purpose.

    Attributes:
        source: ``person``, ``import`` or ``oracle``.
        by: The reviewer's name.
        purpose: The queue, ``""`` for none.
        count: Answers in the log, including those withdrawn later.
    """

    source: str
    by: str
    purpose: str
    count: int


@dataclass(frozen=True)
class CameraFacts:
    """All facts about one camera that the page shows.

    Attributes:
        name: The camera.
        problem: Why nothing more is known, and what to do; ``""`` for no problem.
        classes: Its classes.
        crops: Crops in the catalog.
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them.
        label: ``label.json``; None before the first labelling.
        audit: ``audit.json`` of the last audit; None before the first.
        audit_classes: Findings of the last audit so far, per class.
        certificate: Its ``certificate.json``; None while it is open.
        notes: Changes since the certificate.
        verified: Answers by reviewer and purpose.
        windows: The last labelling over time; None without one.
        drift: The message about drift, ``""`` for none.
        alarm: Whether the newest stretch is labelled less confidently; None if unknown.
        newest: Unix seconds from which on crops are new to the team; None if unknown.
        samples: ``sure``, ``unsure`` and ``wrong``: crops to look at.
        next: The command to run next, ``""`` if the problem says what to do.
        why: The reason for that command.
    """

    name: str
    problem: str = ""
    classes: list[str] = field(default_factory=list)
    crops: int = 0
    rounds: list[RoundRecord] = field(default_factory=list)
    label: LabelRecord | None = None
    audit: AuditRecord | None = None
    audit_classes: dict[str, JudgedClass] = field(default_factory=dict)
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()
    verified: list[Verified] = field(default_factory=list)
    windows: TimeWindows | None = None
    drift: str = ""
    alarm: bool | None = None
    newest: float | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    next: str = ""
    why: str = ""

    @property
    def by_persons(self) -> int:
        """Answers of persons, including imported ones."""
        return sum(one.count for one in self.verified if one.source != "oracle")

    @property
    def by_oracle(self) -> int:
        """Answers of the simulated reviewer."""
        return sum(one.count for one in self.verified if one.source == "oracle")


def camera_facts(root: str | Path, name: str, samples: int) -> CameraFacts:
    """Gather all facts about one camera for the fleet's page.

    Args:
        root: Folder under which every camera has its own.
        name: The camera.
        samples: Crops to show of each kind, 0 or more.

    Returns:
        The facts; for a damaged or missing camera, the problem and the remedy.
    """
    try:
        return _gather(Catalog.open(root, name), samples)
    except (UserError, OSError) as error:  # it must not stop the others
        if isinstance(error, OSError):
            error = file_error(Path(error.filename or Path(root, name)), error, "read")
        return CameraFacts(name, problem=str(error))


def _gather(catalog: Catalog, samples: int) -> CameraFacts:
    rounds, label = read_rounds(catalog.workspace), read_label(catalog.workspace)
    index = catalog.index()
    audited = last_audited(catalog, index)
    drift = find_drift(catalog.workspace, index)
    alarm = drift.alarm if drift else None
    following, why = next_step(_standing(catalog, index, rounds, label, audited, alarm))
    return CameraFacts(
        catalog.name,
        classes=catalog.classes,
        crops=len(index),
        rounds=rounds,
        label=label,
        audit=audited.record if audited else None,
        audit_classes=audited.classes if audited else {},
        certificate=audited.certificate if audited else None,
        notes=audited.notes if audited else (),
        verified=_verified(catalog),
        windows=time_windows(index, catalog.classes),
        drift=drift.in_words(catalog.name) if drift else "",
        alarm=alarm,
        newest=drift.since if drift and drift.alarm is not None else None,
        samples=_samples(catalog, index, label, samples) if label and samples else {},
        next=f"{_PREFIX}{following}",
        why=why,
    )


def _standing(
    catalog: Catalog,
    index: CropIndex,
    rounds: list[RoundRecord],
    label: LabelRecord | None,
    audited: AuditResult | None,
    alarm: bool | None,
) -> Standing:
    """How far the camera has come."""
    standing = Standing(
        catalog.name,
        crops=len(index) > 0,
        classes=bool(catalog.classes),
        asked=bool(index.verified().any()),
        round=rounds[-1].round if rounds else -1,
        tested=bool((index.test & index.verified()).any()),
        alarm=bool(alarm),
    )
    if not rounds or label is None:
        return standing
    by_last = label.team == rounds[-1].fingerprint
    standing = replace(
        standing,
        labelled="now" if by_last else "earlier",
        new=int((index.unverified() & (index.verdict_run != label.run)).sum()),
    )
    if audited is None:
        return standing
    rows = audited.classes.values()
    if audited.certificate is not None:
        passed: Audited = "outdated" if audited.notes else "passed"
        return replace(
            standing,
            audited=passed if audited.certificate.passed else "failed",
            refused=tuple(name for name, row in audited.classes.items() if row.passed is False),
        )
    left = sum(row.sample - row.answered for row in rows if row.passed is None)
    judge = command(audited.record).removeprefix(_PREFIX)
    return replace(standing, audited="open" if left else "answered", unanswered=left, judge=judge)


def _verified(catalog: Catalog) -> list[Verified]:
    """Answers by reviewer and purpose, most first."""
    counts = catalog.annotations().count_answers()
    found = [Verified(*said, count) for said, count in counts.items()]
    return sorted(found, key=lambda one: (-one.count, one.source, one.by, one.purpose))


# -- crops to look at ------------------------------------------------------------------------------


def _samples(
    catalog: Catalog, index: CropIndex, label: LabelRecord, count: int
) -> dict[str, list[Sample]]:
    """The crops that a person has since contradicted, then the crops that ``label`` listed."""
    contradicted = [
        WrongSample(
            crop_id=str(index.crop_id[row]),
            label=str(index.verdict[row]),
            confidence=float(index.verdict_confidence[row]),
            actual=str(index.human[row]),
            source=str(index.human_source[row]),
        )
        for row in _contradicted(index, label.run)[:count]
    ]
    later = {crop.crop_id for crop in contradicted}
    wrong = contradicted + [crop for crop in label.samples.wrong if crop.crop_id not in later]
    return {
        "sure": [
            Sample(picture, crop.label, crop.confidence)
            for crop, picture in _pictured(catalog, index, label.samples.sure, count)
        ],
        "unsure": [
            Sample(picture, claimed_by=tuple(crop.claimed_by))
            for crop, picture in _pictured(catalog, index, label.samples.unsure, count)
        ],
        "wrong": [
            Sample(picture, crop.label, crop.confidence, actual=crop.actual, source=crop.source)
            for crop, picture in _pictured(catalog, index, wrong, count)
        ],
    }


def _pictured(
    catalog: Catalog, index: CropIndex, crops: Sequence[Crop], count: int
) -> list[tuple[Crop, bytes]]:
    """The first ``count`` crops that the catalog still has, each with a small picture."""
    rows = index.crop_id.find([crop.crop_id for crop in crops])
    known = [(crop, row) for crop, row in zip(crops, rows.tolist(), strict=True) if row >= 0]
    known = known[:count]
    pictures = catalog.images([row for _, row in known])
    return [(crop, _small(picture)) for (crop, _), picture in zip(known, pictures, strict=True)]


def _contradicted(index: CropIndex, run: str) -> NDArray[np.int64]:
    """Rows whose label a person contradicted later, most confident first."""
    judged = index.judged() & ~index.test
    labelled = (index.verdict_run == run) & (index.verdict != "")
    rows = np.flatnonzero(judged & labelled & (index.human != index.verdict))
    return rows[np.argsort(-index.verdict_confidence[rows], kind="stable")]


def _small(encoded: bytes) -> bytes:
    """A picture scaled down to the page, as WebP."""
    try:
        small = decode(encoded)
    except UndecodablePicture:
        small = placeholder(_SIDE)
    small.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=70)
    return stream.getvalue()
