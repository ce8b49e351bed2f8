"""``python -m collabteam.audit``: certify how right the labels are that a team released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collabteam.cli.command import Command, Outcome
from collabteam.settings import AuditConfig

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from collabteam.audits.audit import AuditResult
    from collabteam.audits.records import Certificate, JudgedClass

HELP = """
Certify the labels that a team released: a random sample of each class is looked at by a person, and
what was wrong there bounds what is wrong in all. The same command begins, shows how far it is, and
ends with a certificate.

  python -m collabteam.audit camera=NAME [setting=value ...]
  python -m collabteam.review camera=NAME queue=audit        in between: the sample, in the browser

  camera=NAME          the camera
  precision=0.95       share of right labels to certify, of each class
  confidence=0.95      of all classes together, and of all audits of the camera
  expected_error=0.01  share of wrong labels that you expect; it decides how many crops to look at
  power=0.8            chance of each class to pass if you expect rightly
  reviewer=person      or oracle: a simulated reviewer who knows the hidden truth
  oracle_error=0       share of the oracle's answers that are wrong
  new=true             begin another audit, of what is released now; every audit that was begun
                       makes the next one look at more crops
  root=outputs  seed=0

Exit code 0: certified, or open, which is no error; 1: not certified; 2: bad input.
Then: python -m collabteam.export camera=NAME certified=true to=FOLDER
"""


def run(config: AuditConfig) -> Outcome:
    """Begin, go on or judge, and show where the audit stands."""
    from rich.console import Console as RichConsole

    from collabteam.audits.audit import certify
    from collabteam.reporting.terminal import Terminal

    audited = certify(config, Terminal())
    out = RichConsole(highlight=False)
    _table(audited, out)
    certificate = audited.certificate
    lines = _open(audited) if certificate is None else _done(audited, certificate)
    out.print("\n".join(lines), markup=False, soft_wrap=True)
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
    table.add_column("class", no_wrap=True)
    for column in ("released", "sample", "answered", "wrong", "allowed"):
        table.add_column(column, justify="right")
    table.add_column("result")
    table.add_column("right", justify="right")
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
    """What is left to do, and that nothing is wrong with that."""
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
        f"{row.sample - row.answered} crops need no answer, but only with them it is said "
        "how right it is"
        for name, row in classes.items()
        if row.stopped
    ]
    lines.append(
        f"next: python -m collabteam.review camera={record.camera} queue=audit\n"
        f"then: {command(record)}"
    )
    return lines


def _done(audited: AuditResult, certificate: Certificate) -> list[str]:
    camera = certificate.camera
    lines = [certificate.statement, *audited.notes, f"the certificate: {audited.file}"]
    if certificate.passed:
        lines.append(f"next: python -m collabteam.export camera={camera} certified=true to=FOLDER")
    else:
        lines.append(
            f"next: python -m collabteam.audit camera={camera} new=true, with the errors found "
            "corrected; or a better team first"
        )
    return lines


main = Command("audit", AuditConfig, run, HELP)

if __name__ == "__main__":
    main()
