"""What is known about each camera of a fleet, gathered for one page.

Everything is read from what the commands left: no network runs, nothing is written, hidden truth is
not opened. One damaged camera says so and leaves the others alone.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from collabteam.audits.audit import AuditResult, command, last_audited
from collabteam.catalog import Catalog, CropIndex
from collabteam.catalog.records import HUMAN_SOURCES, UNDO
from collabteam.errors import UserError
from collabteam.monitoring.drift import find_drift
from collabteam.reporting.fleet_page import CameraFacts, Sample, Verified, unlike
from collabteam.reporting.table1 import Round, read_rounds
from collabteam.reporting.time_windows import stretches
from collabteam.storage.files import read_json

_SIDE = 96
"""Longest side of a picture on the page, in pixels."""


def camera_facts(root: str | Path, name: str, samples: int) -> CameraFacts:
    """All that the fleet's page says about one camera.

    Args:
        root: Folder under which every camera has its own.
        name: The camera.
        samples: Crops to show of each kind, 0 or more.

    Returns:
        What is known; of a camera that is damaged or not there, why and what to do.
    """
    try:
        return _gather(Catalog.open(root, name), samples)
    except UserError as error:
        return CameraFacts(name, problem=str(error))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Records that were edited, or that a later version wrote.
        return CameraFacts(name, problem=unlike(name, error))


def _gather(catalog: Catalog, samples: int) -> CameraFacts:
    rounds, label = read_rounds(catalog.workspace), _label_record(catalog)
    index = catalog.index()
    audited = last_audited(catalog, index)
    drift = find_drift(catalog.workspace, index)
    alarm = drift.alarm if drift else None
    following, why = next_step(catalog, index, rounds, label, audited, alarm)
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
        stretches=stretches(index, catalog.classes),
        drift=drift.in_words(catalog.name) if drift else "",
        alarm=alarm,
        newest=drift.since if drift and drift.alarm is not None else None,
        samples=_samples(catalog, index, label, samples) if label and samples else {},
        next=following,
        why=why,
    )


def _label_record(catalog: Catalog) -> dict[str, Any] | None:
    """``label.json``; None before the first labelling.

    Raises:
        UserError: It is broken.
    """
    file = catalog.workspace.label_record
    remedy = f"'python -m collabteam.label camera={catalog.name}' writes it again"
    return read_json(file, remedy) if file.exists() else None


def next_step(
    catalog: Catalog,
    index: CropIndex,
    rounds: list[Round],
    label: dict[str, Any] | None,
    audited: AuditResult | None,
    alarm: bool | None,
) -> tuple[str, str]:
    """The command that brings a camera on, and why that one.

    Args:
        catalog: The camera.
        index: Its crops.
        rounds: Its complete rounds.
        label: ``label.json``; None before the first labelling.
        audited: Its last audit; None before the first.
        alarm: Whether its newest stretch is labelled less surely.
    """
    camera = f"camera={catalog.name}"

    def do(name: str, settings: str = "") -> str:
        return f"python -m collabteam.{name} {camera}{' ' if settings else ''}{settings}"

    if not len(index):
        return do("ingest", "path=..."), "no crops yet"
    if not catalog.classes:
        return do("ingest", "path=... 'camera.classes=[a,b]'"), "no classes are registered"
    if not rounds:
        if not index.verified().any():
            return do("review"), "nobody has verified anything yet"
        return do("train", "round=0"), "verified, and not trained yet"
    if not (index.test & index.verified()).any():
        return do("review", "queue=test"), "no frozen test set says how good the team is"
    if alarm:
        return do("review", "queue=unsure"), "the newest crops are labelled less surely than before"
    fingerprint = rounds[-1]["fingerprint"]
    if label is None or label["team"] != fingerprint:
        team = f"the team of round {rounds[-1]['round']} has not labelled yet"
        return do("label"), team if label is None else f"{team}, an earlier one has"
    new = int((index.unverified() & (index.verdict_run != label["run"])).sum())
    if new:
        return do("label"), f"{new:,} crops came since the last labelling"
    if audited is None:
        return do("audit"), "nobody has audited the labels"
    if audited.certificate is None:
        rows = audited.classes.values()
        left = sum(row["sample"] - row["answered"] for row in rows if row["passed"] is None)
        if left:
            return do("review", "queue=audit"), f"the audit is open, {left:,} crops are unanswered"
        return command(audited.record), "the audit is answered, and not judged yet"
    if not audited.certificate["passed"]:
        failed = [name for name, row in audited.classes.items() if row["passed"] is False]
        why = f"the audit refused {', '.join(failed)}: verify more, then train, label, audit anew"
        return do("review", "queue=unsure"), why
    if audited.notes:
        return do("audit", "new=true"), "the certificate is of an earlier labelling"
    return do("export", "certified=true to=FOLDER"), "certified"


def _verified(catalog: Catalog) -> list[Verified]:
    """Who verified how much for what, the most first; what an undo says again was said before."""
    log = catalog.log(("label", "source", "by", "purpose", "commit"))
    human = pc.is_in(log["source"], value_set=pa.array(HUMAN_SOURCES))
    said = pc.and_(human, pc.not_equal(log["label"], ""))
    said = pc.and_(said, pc.invert(pc.starts_with(log["commit"], UNDO)))
    counts = log.filter(said).group_by(["source", "by", "purpose"]).aggregate([("label", "count")])
    found = [
        Verified(row["source"], row["by"], row["purpose"], row["label_count"])
        for row in counts.to_pylist()
    ]
    return sorted(found, key=lambda one: (-one.count, one.source, one.by, one.purpose))


# -- crops to look at ------------------------------------------------------------------------------


def _samples(
    catalog: Catalog, index: CropIndex, label: dict[str, Any], count: int
) -> dict[str, list[Sample]]:
    """What ``label`` named, and before it what a person called otherwise since then."""
    row_of = {str(crop_id): row for row, crop_id in enumerate(index.crop_id)}
    named: dict[str, list[dict[str, Any]]] = {"sure": [], "unsure": [], "wrong": []}
    named |= label.get("samples", {})
    contradicted = [
        {
            "crop_id": str(index.crop_id[row]),
            "label": str(index.verdict[row]),
            "confidence": float(index.verdict_confidence[row]),
            "actual": str(index.human[row]),
            "source": str(index.human_source[row]),
        }
        for row in _contradicted(index, label["run"])[:count]
    ]
    later = {crop["crop_id"] for crop in contradicted}
    named["wrong"] = contradicted + [c for c in named["wrong"] if c["crop_id"] not in later]
    found = {}
    for kind, crops in named.items():
        crops = [crop for crop in crops if crop["crop_id"] in row_of][:count]
        pictures = catalog.images([row_of[crop["crop_id"]] for crop in crops])
        found[kind] = [
            Sample(
                _small(picture), crop.get("label", ""), crop.get("confidence"),
                tuple(crop.get("claimed_by", ())), crop.get("actual", ""), crop.get("source", ""),
            )
            for crop, picture in zip(crops, pictures, strict=True)
        ]  # fmt: skip
    return found


def _contradicted(index: CropIndex, run: str) -> NDArray[np.int64]:
    """Rows that a person called otherwise after they were labelled, the surest first."""
    judged = index.judged() & ~index.test
    labelled = (index.verdict_run == run) & (index.verdict != "")
    rows = np.flatnonzero(judged & labelled & (index.human != index.verdict))
    return rows[np.argsort(-index.verdict_confidence[rows], kind="stable")]


def _small(encoded: bytes) -> bytes:
    """A picture scaled down to the page, as WebP."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=70)
    return stream.getvalue()
