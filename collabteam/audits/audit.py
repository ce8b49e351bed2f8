"""The audit of the labels that a team released, from frozen labels to a certificate.

    verdicts in the log -> release.parquet -> sample -> answers in the log -> certificate.json

The stages are :class:`~collabteam.audits.begin.BeginAudit`,
:class:`~collabteam.audits.answers.AnswerAsOracle` and :class:`~collabteam.audits.judge.Certify`.
The exact statistics are in :mod:`collabteam.audits.certificate`. They rely on these rules.

- **Audited labels.** An audit covers every crop outside the test set that a team labelled for
  release and that no person, import or oracle has labelled. The labels are written to a file before
  the sample is drawn, so later labels change nothing. A certificate is about that file only.
- **Start.** An audit begins with ``audits/<n>/audit.json``, which holds the sample and is written
  atomically after the release. A command killed before that leaves no audit: when repeated, it
  draws the same sample from the same release. An audit killed after it continues.
- **Answers.** The answers of purpose ``audit`` count that come after the last event in the log when
  the release was frozen. The position decides and not the time, because several machines may write
  and their clocks differ. If several reviewers answered a crop, the last answer counts; answers
  taken back do not. ``unknown`` and ``unusable`` count as wrong.
- **Attempts.** Every audit that began counts as an attempt of every class. The k-th attempt has
  1 / (k (k + 1)) of the error allowed (:func:`~collabteam.audits.certificate.share_out`), divided
  by the number of the camera's classes. Classes without crops are included, because that number is
  fixed beforehand.
- **Other settings do not restart the count.** The k-th audit may ask for another precision or
  confidence, chosen after seeing all earlier results. Given these, its certificate is false with
  probability at most ``(1 - confidence) / (k (k + 1))``. Summed over all audits that claim at least
  some confidence, that is at most 1 minus that confidence: a camera's certificates that claim 95%
  or more are all true with 95% confidence, whatever the others claim. Settings cannot change within
  an audit; a command with other settings is refused.
- **Audited crops leave the next release**, since a person's label takes precedence over the team's.
  The rest is a new batch, frozen before its own sample is drawn, so its bound holds whatever was
  found before. The crops that left are as right as the reviewers are. A failed sample is never
  extended; it is judged once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from collabteam.audits.answers import AnswerAsOracle, answers, answers_hash, labels_of
from collabteam.audits.begin import BeginAudit, check_audit_settings
from collabteam.audits.judge import Certify, is_open, judge_classes
from collabteam.audits.records import (
    AuditRecord,
    Certificate,
    JudgedClass,
    last_audit,
    read_audit,
    read_certificate,
)
from collabteam.audits.release import release_coverage
from collabteam.audits.statement import changes
from collabteam.catalog import Catalog, CropIndex
from collabteam.events import Listener
from collabteam.settings import AuditConfig, check
from collabteam.stages import Runner


@dataclass(frozen=True)
class AuditResult:
    """The state of a camera's last audit.

    Attributes:
        record: Content of ``audit.json``.
        classes: The findings so far, per class.
        certificate: Content of ``certificate.json``; None while the audit is open.
        file: Path of ``certificate.json``, whether or not it exists yet.
        notes: Lines for a person about changes since the certificate.
    """

    record: AuditRecord
    classes: dict[str, JudgedClass]
    certificate: Certificate | None
    file: Path
    notes: tuple[str, ...]


def certify(config: AuditConfig, listener: Listener | None = None) -> AuditResult:
    """Begin an audit, or continue the last one, up to the point where a person must answer.

    Args:
        config: The camera and the settings of the audit.
        listener: Receives progress; None for silence.

    Returns:
        The last audit.

    Raises:
        UserError: A setting cannot work; the camera has no release; the settings differ from those
            of the open audit; ``precision`` is out of reach with that ``expected_error``; the
            oracle lacks hidden truth; another command holds the camera; or a file is damaged. No
            audit has begun in these cases.
    """
    check(config)
    catalog = Catalog.open(config.root, config.camera.name)
    # Only stages that write lock the camera: the state of an audit can be read at any time.
    lock = partial(catalog.workspace.transaction, "audit")
    runner = Runner(listener or Listener(), lock)
    record = runner.run(BeginAudit(catalog, config)).record
    check_audit_settings(record, config)
    if read_certificate(catalog.workspace, record.audit) is None:
        if config.reviewer == "oracle":
            runner.run(AnswerAsOracle(catalog, record))
        if not is_open(judge_classes(record, labels_of(answers(catalog, record)))):
            runner.run(Certify(catalog, record))
    return _result(catalog, record, catalog.index())


def last_audited(catalog: Catalog, index: CropIndex) -> AuditResult | None:
    """Read the state of the last audit, without beginning or writing anything.

    Args:
        catalog: The camera.
        index: Its crops.

    Returns:
        The last audit; None if none was begun.

    Raises:
        UserError: A file is damaged.
    """
    number = last_audit(catalog.workspace)
    return _result(catalog, read_audit(catalog.workspace, number), index) if number else None


def _result(catalog: Catalog, record: AuditRecord, index: CropIndex) -> AuditResult:
    file = catalog.workspace.audit(record.audit).certificate
    heard = answers(catalog, record)
    certificate = read_certificate(catalog.workspace, record.audit)
    if certificate is None:
        return AuditResult(record, judge_classes(record, labels_of(heard)), None, file, ())
    covers = release_coverage(catalog.workspace, record, index, catalog.classes)
    is_changed = answers_hash(heard) != certificate.answers_hash
    notes = tuple(changes(certificate, covers, is_changed))
    return AuditResult(record, certificate.classes, certificate, file, notes)
