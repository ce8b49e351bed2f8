"""``python -m collabteam.audit``: certify the precision of a team's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener
from collabteam.reporting.output import console, tell
from collabteam.settings import AuditConfig

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from collabteam.audits.audit import AuditResult
    from collabteam.audits.records import Certificate, JudgedClass


def run(config: AuditConfig, listener: Listener) -> Outcome:
    """Begin, continue or judge the audit, and show its state."""
    from collabteam.audits.audit import certify

    audited = certify(config, listener)
    _table(audited, console())
    certificate = audited.certificate
    lines = _open(audited) if certificate is None else _done(audited, certificate)
    tell(lines)
    if certificate is None:
        return Outcome("waits for answers in the queue audit of the review page")
    statement = " ".join(certificate.statement.split())
    passed = certificate.passed
    return Outcome(statement, "done" if passed else "failed", 0 if passed else 1)


def _table(audited: AuditResult, out: RichConsole) -> None:
    from rich import box
    from rich.table import Table

    from collabteam.audits.statement import floored

    record = audited.record
    title = f"Camera {record.camera}, audit {record.audit}"
    if record.settings.reviewer == "oracle":
        title += ", simulated reviewer"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("class", overflow="fold")
    for column in ("released", "sample", "answered", "wrong", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("right", justify="right", no_wrap=True)
    for name, row in audited.classes.items():
        counts = (row.released, row.sample, row.answered, row.errors, row.allowed)
        bound = "-" if row.bound is None else f"≥ {floored(row.bound)}"
        table.add_row(name, *map(str, counts), _result(row), bound)
    out.print(table)


def _result(row: JudgedClass) -> str:
    if row.left_out:
        return row.left_out
    if row.passed is None:
        return "open"
    return "certified" if row.passed else "stopped: failed" if row.stopped else "failed"


def _open(audited: AuditResult) -> list[str]:
    """The lines on an open audit: its state and the next step."""
    from collabteam.audits.statement import command

    record, classes = audited.record, audited.classes
    answered = sum(row.answered for row in classes.values())
    asked = sum(row.sample for row in classes.values())
    lines = [
        f"{record.camera}: audit {record.audit} is open, {answered} of {asked} crops are "
        "answered; nothing is certified yet"
    ]
    lines += [
        f"{name} has failed: {row.errors} were wrong and {row.allowed} allowed; its other "
        f"{row.sample - row.answered} crops need no answer, but only answers to them show how "
        "precise the labels are"
        for name, row in classes.items()
        if row.stopped
    ]
    return [
        *lines,
        f"next: python -m collabteam.review camera={record.camera} queue=audit",
        f"then: {command(record)}",
    ]


def _done(audited: AuditResult, certificate: Certificate) -> list[str]:
    camera = certificate.camera
    lines = [
        *certificate.statement.splitlines(),
        *audited.notes,
        f"the certificate: {audited.file}",
    ]
    if certificate.passed:
        lines.append(f"next: python -m collabteam.export camera={camera} certified=true to=FOLDER")
    else:
        lines.append(
            f"next: python -m collabteam.audit camera={camera} new=true, with the errors found "
            "corrected; or a better team first"
        )
    return lines


main = Command(
    "audit",
    AuditConfig,
    run,
    about="Certify a team's labels: a person verifies a random sample of each class, and the "
    "errors in the sample bound the errors in all labels. The same command begins the audit, "
    "shows its progress, and issues the certificate.",
    usage=(
        ("camera=NAME [setting=value ...]", ""),
        ("camera=NAME new=true", "another audit, of the present labels"),
    ),
    notes=(
        "In between: python -m collabteam.review camera=NAME queue=audit",
        "Exit code 0: certified, or still open; 1: not certified; 2: bad input; 70: a fault of "
        "collabteam, with the file that describes it.",
    ),
    then="python -m collabteam.export camera=NAME certified=true to=FOLDER",
)

if __name__ == "__main__":
    main()
