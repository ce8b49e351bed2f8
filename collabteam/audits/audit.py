"""The audit of the labels that a team released, from frozen labels to a certificate.

    verdicts in the log -> release.parquet -> sample -> answers in the log -> certificate.json

The stages are :class:`~collabteam.audits.begin.BeginAudit`,
:class:`~collabteam.audits.answers.AnswerAsOracle` and :class:`~collabteam.audits.judge.Certify`.
The exact statistics are in :mod:`collabteam.audits.certificate`; this is what they rest on.

- **What is audited.** Every crop that a team labelled for release, outside the test set, on which
  no person (import, oracle) has a word. It is written down before the sample is drawn, so labels
  that come later change nothing; a certificate speaks of that file and of no other labels.
- **When an audit begins.** With ``audits/<n>/audit.json``, which is written after the release, in
  one piece, and holds the sample. What was killed before that has never been: the same command
  draws the same sample from the same release. What was killed after it goes on.
- **Which answers count.** A person's words of purpose ``audit`` that stand in the log behind the
  place where it was when the release was frozen. The place and not the time, because several
  machines may write and their clocks differ. Of several reviewers of a crop the last one's word
  counts; what was taken back counts for nothing. ``unknown`` and ``unusable`` count as wrong.
- **Every audit that began counts as an attempt**, of every class: the k-th has 1 / (k (k + 1)) of
  the error allowed (:func:`~collabteam.audits.certificate.share_out`), divided by the number of the
  camera's classes, also of those without a crop, because that number is fixed beforehand.
- **Other settings do not begin a new count.** The k-th audit may ask for another precision or
  confidence, chosen after all that was seen before. Given that past, its certificate is false with
  a chance of at most ``(1 - confidence) / (k (k + 1))``. Summed over all audits that claim some
  confidence or more, that is at most 1 minus that confidence: of a camera's certificates those that
  claim 95% or more are all true with 95% confidence, whatever the others claimed. Within an audit
  nothing may change; a command with other settings is refused.
- **Crops that were audited leave the next release**, since a person's word stands above the
  team's. The rest is a batch of its own, frozen before its own sample is drawn, so its bound holds
  whatever was found before. Those that left are right as far as the reviewers are. A failed sample
  is never added to; it is judged once.
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
    """How far the last audit of a camera is.

    Attributes:
        record: What it was begun with: ``audit.json``.
        classes: Per class what was found so far.
        certificate: What came of it: ``certificate.json``; None while it is open.
        file: Where that is, or will be.
        notes: What has changed since, line by line, for a person to read.
    """

    record: AuditRecord
    classes: dict[str, JudgedClass]
    certificate: Certificate | None
    file: Path
    notes: tuple[str, ...]


def certify(config: AuditConfig, listener: Listener | None = None) -> AuditResult:
    """Begin an audit, or go on with the last one, as far as it goes without a person.

    Args:
        config: The camera and what is asked for.
        listener: Where it is said what begins; None for silence.

    Returns:
        The last audit.

    Raises:
        UserError: A setting cannot work; the camera has no release; the settings differ from those
            of the audit that was begun; ``precision`` is out of reach with that
            ``expected_error``; the oracle lacks hidden truth; another command holds the camera; or
            something that was written is broken. No audit was begun then.
    """
    check(config)
    catalog = Catalog.open(config.root, config.camera.name)
    # Only stages that write hold the camera: an open audit can be asked about at any time.
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
    """Tell how far the last audit is; begins nothing and writes nothing.

    Args:
        catalog: The camera.
        index: Its crops.

    Returns:
        The last audit; None if none was begun.

    Raises:
        UserError: Something that was written is broken.
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
