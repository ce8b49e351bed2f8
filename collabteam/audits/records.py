"""The records of an audit: ``audit.json``, with which it begins, and ``certificate.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from collabteam.storage.layout import AUDIT_RECORD, CERTIFICATE, CameraFiles
from collabteam.storage.records import Count, Flag, Name, Part, Record, Share, Text, Time

_REMEDY = "restore it from a backup"

Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(strict=True, ge=1)]


class AuditSettings(Part):
    """The settings of an audit, which do not change after its beginning."""

    precision: Share = Field(description="Share of right labels to be certified, per class.")
    confidence: Share = Field(
        description="Confidence of the whole statement, over all classes and audits of the camera."
    )
    expected_error: Share = Field(
        description="Expected share of wrong labels, which decided the sizes of the samples."
    )
    power: Share = Field(
        description="Chance of a class to pass if that is right, which decided the sizes of the "
        "samples."
    )
    reviewer: Literal["person", "oracle"] = Field(description="Who answers: person or oracle.")
    oracle_error: Share = Field(
        description="Share of the simulated reviewer's answers that are wrong."
    )
    seed: Count = Field(description="Seed of the draw of the samples.")


class Release(Part):
    """The labels that are audited, frozen before the sample is drawn."""

    file: Annotated[str, Field(strict=True, pattern=r"^audits/[1-9]\d*/release\.parquet$")] = Field(
        description="Parquet with crop_id, label and confidence, by crop_id; relative to the "
        "camera's folder."
    )
    hash: Sha256 = Field(
        description="SHA-256, in hexadecimal, of a line 'crop_id, tab, label, line feed' per crop, "
        "by crop_id."
    )
    crops: Positive = Field(description="All labels.")
    by_class: dict[str, Count] = Field(description="Labels per class.")


class LabellingTeam(Part):
    """One team with one set of settings."""

    fingerprint: Text = Field(description="Fingerprint of the round that trained it.")
    round: Annotated[int, Field(strict=True, ge=-1)] = Field(
        description="Number of that round; -1 if unknown."
    )
    run: Text = Field(description="Name of the settings of its labelling.")
    crops: Positive = Field(description="Labels that it gave.")


class PlannedClass(Part):
    """The audit of one class as it was planned, before the first answer."""

    released: Count = Field(description="Crops released with this label.")
    confidence: Share = Field(
        description="Of this one test, one-sided: the confidence of the whole, shared out over "
        "classes and audits."
    )
    sample: list[Text] = Field(description="Crops of the simple random sample, in random order.")
    allowed: Count = Field(description="The largest number of errors with which the class passes.")
    chance: Share = Field(description="Chance of passing if the labels are as good as expected.")
    left_out: Text = Field(description="Why the class is not audited; empty if it is.")


class JudgedClass(Part):
    """The findings of an audit for one class."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "if": {"properties": {"left_out": {"const": ""}}},
                    "then": {
                        "properties": {"passed": {"type": "boolean"}, "sample": {"minimum": 1}}
                    },
                    "else": {
                        "properties": {
                            "passed": {"type": "null"},
                            "sample": {"const": 0},
                            "bound": {"type": "null"},
                        }
                    },
                },
                {
                    "if": {"properties": {"stopped": {"const": True}}},
                    "then": {"properties": {"passed": {"const": False}, "bound": {"type": "null"}}},
                },
                {
                    "if": {"properties": {"passed": {"const": True}}},
                    "then": {"properties": {"bound": {"type": "number"}, "further": {"const": 0}}},
                },
            ]
        }
    )

    released: Count = Field(description="Crops released with this label.")
    sample: Count = Field(description="Crops of the simple random sample drawn from them.")
    answered: Count = Field(
        description="Crops of the sample that a reviewer judged; fewer than the sample only if the "
        "audit of the class was stopped or is open."
    )
    errors: Count = Field(
        description="Judged crops that the reviewers labelled otherwise; 'unknown' and 'unusable' "
        "count as wrong as well."
    )
    allowed: Count = Field(
        description="The largest number of errors with which the class passes, planned beforehand."
    )
    precision: Share = Field(description="Requested share of right labels.")
    confidence: Share = Field(
        description="Of this one test, one-sided: the confidence of the whole, shared out over "
        "classes and audits."
    )
    passed: Flag | None = Field(
        description="Whether the requested precision is certified; null if that is open or the "
        "class was not audited."
    )
    stopped: Flag = Field(description="Whether it failed before its whole sample was judged.")
    bound: Share | None = Field(
        description="Certified share of right labels among the released ones, at "
        "'confidence'; null where the sample was not judged in full."
    )
    further: Count = Field(
        description="If it failed: the fewest further crops to verify in the next audit, all "
        "of them right, that would certify the rest; else 0."
    )
    left_out: Text = Field(description="Why the class was not audited; empty if it was.")


class AuditReviewer(Part):
    """One reviewer."""

    name: Text = Field(description="The reviewer's name.")
    source: Literal["person", "import", "oracle"] = Field(
        description="person: on the review page; import: in another tool; oracle: the simulated "
        "reviewer."
    )
    answers: Positive = Field(description="Crops for which this reviewer gave the last answer.")


class AuditRecord(Record):
    """The record of the beginning of an audit: the release and the sample of each class."""

    model_config = ConfigDict(title=AUDIT_RECORD)

    camera: Name = Field(description="The camera's name, also that of its folder.")
    audit: Positive = Field(
        description="Number of the audit among all that were begun for this camera: the attempt "
        "that the confidence is shared out for."
    )
    begun: Time = Field(description="When the sample was drawn, UTC, ISO 8601.")
    log_events: Count = Field(
        description="Events that the label log held when the release was frozen; answers stand "
        "behind these."
    )
    settings: AuditSettings = Field(description="The settings of the audit.")
    release: Release = Field(description="The labels that are audited.")
    teams: Annotated[list[LabellingTeam], Field(min_length=1)] = Field(
        description="Which teams gave the labels."
    )
    classes: dict[str, PlannedClass] = Field(description="The sample of each class of the camera.")

    def sampled(self) -> dict[str, str]:
        """Return the audited label of every sampled crop."""
        return {crop: name for name, row in self.classes.items() for crop in row.sample}


class Certificate(Record):
    """The result of an audit of released labels, written last and atomically.

    Rates are fractions from 0 to 1. Whatever the labels, all certificates of one camera that claim
    at least some confidence are true together with that confidence.
    """

    model_config = ConfigDict(title=CERTIFICATE)

    camera: Name = Field(description="The camera's name, also that of its folder.")
    audit: Positive = Field(
        description="Number of the audit among all that were begun for this camera: the attempt "
        "that the confidence was shared out for."
    )
    created: Time = Field(description="When the audit was judged, UTC, ISO 8601.")
    release: Release = Field(description="The labels that were audited.")
    teams: Annotated[list[LabellingTeam], Field(min_length=1)] = Field(
        description="Which teams gave the labels."
    )
    settings: AuditSettings = Field(description="The settings of the audit.")
    reviewers: Annotated[list[AuditReviewer], Field(min_length=1)] = Field(
        description="The reviewers, and the number of crops for which each gave the last answer."
    )
    simulated: Flag = Field(
        description="Whether a simulated reviewer gave any answer; then nothing is certified by "
        "persons alone."
    )
    answers_hash: Sha256 = Field(
        description="SHA-256, in hexadecimal, of a line 'crop_id, tab, label, tab, reviewer, line "
        "feed' per answer, by crop_id."
    )
    classes: Annotated[dict[str, JudgedClass], Field(min_length=2)] = Field(
        description="The findings for each of the camera's classes."
    )
    passed: Flag = Field(description="Whether every class that was audited passed.")
    statement: Annotated[str, Field(strict=True, min_length=1)] = Field(
        description="The result in words, for people who rely on the labels."
    )

    def classes_that(self, passed: bool) -> list[str]:
        """Return the classes that passed, or those that did not or were not audited."""
        return [name for name, found in self.classes.items() if bool(found.passed) is passed]


def last_audit(files: CameraFiles) -> int:
    """Return the number of the last audit that has begun, from 1; 0 if there is none."""
    numbers = reversed(files.audit_numbers())
    return next((number for number in numbers if files.audit(number).record.exists()), 0)


def open_audit(files: CameraFiles) -> int:
    """Return the number of the audit that has no certificate yet; 0 if there is none.

    This is fast enough to call at every request of a page.
    """
    number = last_audit(files)
    return 0 if files.audit(number).certificate.exists() else number


def read_audit(files: CameraFiles, number: int) -> AuditRecord:
    """Read ``audit.json``.

    Raises:
        UserError: The file is missing or damaged, or a newer version made it.
    """
    return AuditRecord.read(files.audit(number).record, _REMEDY)


def read_certificate(files: CameraFiles, number: int) -> Certificate | None:
    """Read ``certificate.json``; None while the audit is open.

    Raises:
        UserError: The certificate is damaged, or a newer version made it.
    """
    file = files.audit(number).certificate
    return Certificate.read(file, _REMEDY) if file.exists() else None
