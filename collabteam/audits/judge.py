"""Judge the classes of an audit, and certify it once all are decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from collabteam.audits.answers import answers, answers_hash, labels_of
from collabteam.audits.certificate import Plan, fails, judge, share_out, smallest_sample
from collabteam.audits.records import (
    AuditRecord,
    AuditReviewer,
    Certificate,
    JudgedClass,
    read_certificate,
)
from collabteam.audits.release import read_release
from collabteam.audits.statement import statement
from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.machine import utc_stamp
from collabteam.stages import Stage


def judge_classes(record: AuditRecord, called: Mapping[str, str]) -> dict[str, JudgedClass]:
    """Judge each class by the answers so far.

    A class whose whole sample is answered is judged exactly as planned. A class with too many
    errors fails before that. Its precision then stays unknown, because the number of answers
    depended on the errors (:func:`~collabteam.audits.certificate.fails`).

    Args:
        record: The record of the audit.
        called: The answers, by sampled crop.

    Returns:
        The findings per class.
    """
    attempt, planned = record.audit, record.classes
    precision, confidence = record.settings.precision, record.settings.confidence
    result: dict[str, JudgedClass] = {}
    for name, row in planned.items():
        population, sample = row.released, row.sample
        said = [called[crop] for crop in sample if crop in called]
        errors = sum(label != name for label in said)
        passed: bool | None = None
        bound: float | None = None
        stopped, further = False, 0
        if sample and len(said) == len(sample):
            judged = judge(
                len(sample), errors, population, precision, confidence, len(planned), attempt
            )
            passed, bound, further = judged.passed, judged.bound, judged.further
        elif fails(Plan(len(sample), row.allowed, row.chance), errors):
            following = share_out(confidence, len(planned), attempt + 1)
            rest = population - len(said)
            further = smallest_sample(rest, precision, following, allowed=0)
            passed, stopped = False, True
        result[name] = JudgedClass(
            released=population,
            sample=len(sample),
            answered=len(said),
            errors=errors,
            allowed=row.allowed,
            precision=precision,
            confidence=row.confidence,
            passed=passed,
            stopped=stopped,
            bound=bound,
            further=further,
            left_out=row.left_out,
        )
    return result


def is_open(classes: Mapping[str, JudgedClass]) -> bool:
    """Return whether a class is audited and not decided yet."""
    return any(row.passed is None and not row.left_out for row in classes.values())


@dataclass(frozen=True, eq=False)
class Certify(Stage[Certificate | None]):
    """Certify an audit once every class is decided; saved in ``certificate.json``.

    Attributes:
        catalog: The camera.
        record: The audit.
    """

    catalog: Catalog
    record: AuditRecord
    name = "certify"

    def saved(self, listener: Listener) -> Certificate | None:
        """Return the existing certificate: it is written only once."""
        return read_certificate(self.catalog.workspace, self.record.audit)

    def compute(self, listener: Listener) -> Certificate | None:
        """Judge the answers; None if an answer was just taken back and a class is open again.

        Raises:
            UserError: The frozen release is missing or damaged.
        """
        record = self.record
        heard = answers(self.catalog, record)
        classes = judge_classes(record, labels_of(heard))
        if is_open(classes):
            return None
        read_release(self.catalog.workspace, record)
        by = Counter((answer.by, answer.source) for answer in heard.values())
        reviewers = [
            AuditReviewer.model_validate({"name": name, "source": source, "answers": count})
            for (name, source), count in sorted(by.items())
        ]
        return Certificate(
            camera=record.camera,
            audit=record.audit,
            created=utc_stamp(),
            release=record.release,
            teams=record.teams,
            settings=record.settings,
            reviewers=reviewers,
            simulated=any(source == "oracle" for _, source in by),
            answers_hash=answers_hash(heard),
            classes=classes,
            passed=all(row.passed for row in classes.values() if not row.left_out),
            statement=statement(record, classes, reviewers),
        )

    def save(self, output: Certificate | None) -> None:
        """Write the certificate."""
        if output is not None:
            output.write(self.catalog.workspace.audit(self.record.audit).certificate)
