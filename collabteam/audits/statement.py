"""Texts about audits: the certificate's statement, later changes, and the next command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from collabteam.audits.records import AuditRecord, AuditReviewer, Certificate, JudgedClass
from collabteam.audits.release import ReleaseCoverage
from collabteam.settings import AuditConfig


def beginning(record: AuditRecord) -> str:
    """Report how many crops an audit asks for."""
    return (
        f"audit {record.audit} of {record.camera} begins: {len(record.sampled())} of "
        f"{record.release.crops} crops to look at"
    )


def command(record: AuditRecord) -> str:
    """Return the command that continues an audit."""
    default = AuditConfig()
    changed = [
        f" {name}={value}"
        for name, value in record.settings.model_dump().items()
        if value != getattr(default, name)
    ]
    return f"python -m collabteam.audit camera={record.camera}{''.join(changed)}"


def statement(
    record: AuditRecord, classes: Mapping[str, JudgedClass], reviewers: Sequence[AuditReviewer]
) -> str:
    """State the result of an audit, for people who rely on the labels.

    Args:
        record: The record of the audit.
        classes: The findings per class.
        reviewers: The reviewers who answered.
    """
    number, settings = record.audit, record.settings
    precision, confidence = percent(settings.precision), percent(settings.confidence)
    who = _who(reviewers)

    def looked(names: Iterable[str], by: str = "") -> str:
        parts = [
            f"{classes[name].answered:,} of {classes[name].released:,} {name} crops looked at"
            f"{by if not place else ''}, {classes[name].errors:,} wrong"
            for place, name in enumerate(names)
        ]
        return "; ".join(parts)

    passed = [name for name, row in classes.items() if row.passed]
    failed = [name for name, row in classes.items() if row.passed is False]
    provided = "provided the reviewers are right"
    parts = []
    if passed:
        named = " labels"
        what = []
        for name in passed:
            what.append(f"of the {classes[name].released:,}{named} called {name}")
            named = ""
        of_all = " for all of them together" if len(passed) > 1 else ""
        parts.append(
            f"At least {precision} {_listed(what)} are right, with {confidence} confidence{of_all} "
            f"(audit {number}: {looked(passed, f' by {who}')}), {provided}"
        )
    if failed:
        why = "; ".join(_shortfall(name, classes[name]) for name in failed)
        beginning = f"Not certified at {precision} with {confidence} confidence"
        source = "" if passed else f" (audit {number}, looked at by {who}, {provided})"
        parts.append(f"{beginning}{source}: {why}")
    return ". ".join(parts) + "."


def _listed(parts: list[str]) -> str:
    """Join names as "one, two and three"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _shortfall(name: str, row: JudgedClass) -> str:
    """Say why a class is not certified, and what would certify it."""
    text = (
        f"the {row.released:,} labels called {name}: {row.errors:,} of "
        f"{row.answered:,} looked at were wrong and {row.allowed:,} allowed, "
    )
    if row.bound is None:
        text += f"which ended it before all {row.sample:,} were looked at"
    else:
        text += f"so that at least {floored(row.bound)} are right at the same confidence"
    if row.further:
        text += (
            f" (with these corrected, {row.further:,} further ones or more in another audit, "
            "all of them right, would certify the rest)"
        )
    return text


def _who(reviewers: Sequence[AuditReviewer]) -> str:
    persons = {one.name for one in reviewers if one.source != "oracle"}
    real = "a person" if len(persons) == 1 else f"{len(persons)} persons"
    if all(one.source != "oracle" for one in reviewers):
        return real
    made_up = "a simulated reviewer, who is no person"
    return f"{made_up}, and {real}" if persons else made_up


def percent(share: float) -> str:
    """Format a requested share, for example ``99.5%``."""
    return f"{round(100 * share, 6):g}%"


def floored(share: float) -> str:
    """Format a bound to a tenth of a percent, rounded down."""
    return percent(math.floor(share * 1000 + 1e-9) / 1000)


def changes(
    certificate: Certificate, coverage: ReleaseCoverage, are_answers_changed: bool
) -> Iterator[str]:
    """Return lines about the changes since a certificate was written.

    Args:
        certificate: The certificate.
        coverage: Its release compared with the current one.
        are_answers_changed: Whether answers were changed or taken back.
    """
    notes = []
    if coverage.covered < coverage.now:
        notes.append(
            f"the certificate covers {coverage.covered:,} of {coverage.now:,} labels released now"
        )
    if coverage.gone:
        notes.append(
            f"{coverage.gone:,} of the {certificate.release.crops:,} labels that it covers "
            "are no longer released as such; it certifies nothing about the others alone"
        )
    if are_answers_changed:
        notes.append("answers were changed or taken back since; it rests on the earlier answers")
    if notes:
        notes[-1] += "; new=true begins another audit"
    yield from notes
