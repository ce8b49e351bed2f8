"""The stage that begins an audit: freeze the release, plan each class, draw the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collabteam.audits.answers import answers, simulated_answers
from collabteam.audits.certificate import audit_sample, plan, share_out
from collabteam.audits.records import (
    AuditRecord,
    AuditSettings,
    LabellingTeam,
    PlannedClass,
    Release,
    last_audit,
    open_audit,
    read_audit,
)
from collabteam.audits.release import release_coverage, released
from collabteam.audits.statement import beginning, command
from collabteam.catalog import Catalog
from collabteam.catalog.records import labels_hash
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.machine import utc_stamp
from collabteam.settings import AuditConfig
from collabteam.stages import Stage
from collabteam.storage.files import make_folder, write_parquet


@dataclass(frozen=True, eq=False)
class BegunAudit:
    """An audit that has begun.

    Attributes:
        record: Content of ``audit.json``.
        release: The frozen labels; None if the audit was begun by an earlier command.
    """

    record: AuditRecord
    release: pa.Table | None = None


@dataclass(frozen=True, eq=False)
class BeginAudit(Stage[BegunAudit]):
    """Begin an audit, unless one is open; saved in ``release.parquet``, then in ``audit.json``.

    Attributes:
        catalog: The camera.
        config: The camera and the settings of the audit.
    """

    catalog: Catalog
    config: AuditConfig
    name = "begin"

    def saved(self, listener: Listener) -> BegunAudit | None:
        """Return the last audit if the command continues it."""
        catalog, config = self.catalog, self.config
        number = last_audit(catalog.workspace)
        if number == 0:
            return None
        record = read_audit(catalog.workspace, number)
        return None if config.new and self._is_another_due(record) else BegunAudit(record)

    def compute(self, listener: Listener) -> BegunAudit:
        """Freeze the release and draw the sample.

        Raises:
            UserError: There is no release, no audit could be expected to pass, or the oracle lacks
                hidden truth.
        """
        catalog, config = self.catalog, self.config
        # Read before the crops: an answer that comes in between takes its crop out of the release.
        events = len(catalog.annotations())
        index = catalog.index()
        rows = released(index, catalog.classes)
        if not len(rows):
            raise UserError(
                f"camera {catalog.name} has no released labels that are unverified: "
                f"'python -m collabteam.label camera={catalog.name}' releases some"
            )
        number = last_audit(catalog.workspace) + 1
        ids, labels = index.crop_id[rows].astype(str), index.verdict[rows].astype(str)
        batches = {name: ids[labels == name] for name in catalog.classes}
        classes = plan_classes(batches, config, number)
        if not any(row.sample for row in classes.values()):
            raise UserError(
                f"expected_error={config.expected_error:g} is no less than 1 - precision="
                f"{1 - config.precision:g}, so no audit could be expected to pass: expect fewer "
                "errors, or ask for a lower precision"
            )
        file = catalog.workspace.audit(number).release
        rounds = index.verdict_round[rows].tolist()
        teams = Counter(zip(index.verdict_by[rows], rounds, index.verdict_run[rows], strict=True))
        record = AuditRecord(
            camera=catalog.name,
            audit=number,
            begun=utc_stamp(),
            log_events=events,
            settings=AuditSettings.model_validate(_asked_for(config)),
            release=Release(
                file=file.relative_to(catalog.workspace.folder).as_posix(),
                hash=labels_hash(ids.tolist(), labels.tolist()),
                crops=len(rows),
                by_class={name: len(batch) for name, batch in batches.items()},
            ),
            teams=[
                LabellingTeam(fingerprint=by, round=round_, run=run, crops=count)
                for (by, round_, run), count in sorted(teams.items())
            ],
            classes=classes,
        )
        if config.reviewer == "oracle":
            simulated_answers(catalog, index, record, {})  # raises if truth is missing
        confidence = index.verdict_confidence[rows]
        release = pa.table({"crop_id": ids, "label": labels, "confidence": confidence})
        return BegunAudit(record, release)

    def tell(self, output: BegunAudit, listener: Listener) -> None:
        """Report that the audit begins."""
        listener.say(beginning(output.record))

    def save(self, output: BegunAudit) -> None:
        """Write the release, then the record that marks the beginning of the audit."""
        files = self.catalog.workspace.audit(output.record.audit)
        make_folder(files.folder)
        assert output.release is not None
        write_parquet(files.release, output.release)
        output.record.write(files.record)

    def _is_another_due(self, record: AuditRecord) -> bool:
        """Return whether ``new=true`` begins an audit after this one."""
        catalog, config = self.catalog, self.config
        if not open_audit(catalog.workspace) or _differing(record, config):
            return True
        if config.reviewer == "person" and answers(catalog, record):
            return True
        # Killed just after it began: it has no answers yet, so the same command continues it.
        covers = release_coverage(catalog.workspace, record, catalog.index(), catalog.classes)
        return covers.now > covers.covered or covers.gone > 0


def check_audit_settings(record: AuditRecord, config: AuditConfig) -> None:
    """Refuse to continue an audit that was begun with other settings.

    Raises:
        UserError: The settings differ; the message names them and the two possible commands.
    """
    if changed := _differing(record, config):
        raise UserError(
            f"audit {record.audit} of camera {record.camera} was begun with other settings "
            f"({'; '.join(changed)}): keep those ('{command(record)}'), or begin another audit, "
            "which needs a higher confidence for each class, with new=true"
        )


def plan_classes(
    batches: Mapping[str, NDArray[np.str_]], config: AuditConfig, attempt: int
) -> dict[str, PlannedClass]:
    """Plan the audit of every class and draw its sample.

    Args:
        batches: The names of each class's crops, each once; classes without crops included.
        config: Has ``precision``, ``confidence``, ``expected_error``, ``power`` and ``seed``.
        attempt: Number of the audit, from 1.

    Returns:
        The plan and the sample of each class.
    """
    own = share_out(config.confidence, len(batches), attempt)
    classes: dict[str, PlannedClass] = {}
    for number, (name, batch) in enumerate(batches.items()):
        audit, why = None, "no crops"
        if len(batch):
            audit = plan(
                len(batch), config.precision, own, config.expected_error, config.power
            )  # fmt: skip
            why = f"hopeless with expected_error={config.expected_error:g}"
        sample: list[str] = []
        if audit is not None:
            # Each audit and class has its own draw, all from the one seed in the record.
            seed = [config.seed, *b"audit", attempt, number]
            sample = audit_sample(batch, audit.size, seed).tolist()
        classes[name] = PlannedClass(
            released=len(batch),
            confidence=own,
            sample=sample,
            allowed=audit.allowed if audit else 0,
            chance=audit.chance if audit else 0.0,
            left_out="" if audit else why,
        )
    return classes


def _asked_for(config: AuditConfig) -> dict[str, Any]:
    """Return the settings that an audit keeps from its beginning."""
    return {name: getattr(config, name) for name in AuditSettings.model_fields}


def _differing(record: AuditRecord, config: AuditConfig) -> list[str]:
    old, new = record.settings.model_dump(), _asked_for(config)
    return [f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
