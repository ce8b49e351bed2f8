"""``python -m collabteam.label``: a team labels every crop that no person has labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener
from collabteam.reporting import percent
from collabteam.reporting.output import console, tell
from collabteam.settings import LabelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console as RichConsole

    from collabteam.labelling.label import LabelResult
    from collabteam.labelling.records import LabelRecord, TestQuality
    from collabteam.storage.workspace import Workspace


def run(config: LabelConfig, listener: Listener) -> Outcome:
    """Label, and show the result."""
    from collabteam.labelling.label import label_pool
    from collabteam.storage.workspace import Workspace

    labelled = label_pool(config, listener)
    name = config.camera.name
    workspace = Workspace.at(config.root, name)
    out = console()
    _table(labelled, out)
    record = labelled.record
    lines = [
        f"{name}: {sum(record.labelled.values())} of {record.pool} crops labelled by the "
        f"team of round {record.round}, {labelled.new} verdicts new in the log",
        f"the record: {workspace.label_record}",
    ]
    if record.test is not None:
        to = _plot(record, record.test, workspace)
        lines.append(f"plot of confidence and accuracy: {to}")
    lines.append(f"next: python -m collabteam.audit camera={name}")
    tell(lines)
    return Outcome(
        f"{sum(record.labelled.values())} of {record.pool} crops labelled by the team of "
        f"round {record.round}, {labelled.new} verdicts new",
        "done" if labelled.new else "skipped",
    )


def _table(labelled: LabelResult, out: RichConsole) -> None:
    from rich import box
    from rich.table import Table

    record = labelled.record
    test, truth = record.test, record.measured
    table = Table(box=box.SIMPLE_HEAD, title=f"{record.camera}, round {record.round}")
    table.add_column("label")
    for column in ("crops", "of the pool", *(["right on the test set"] if test else [])):
        table.add_column(column, justify="right")
    if truth:
        table.add_column("right (truth known)", justify="right")

    def row(label: str, count: int, *more: float | None) -> None:
        share = count / record.pool if record.pool else None
        table.add_row(label, str(count), percent(share), *map(percent, more))

    for name, count in record.labelled.items():
        blocks = [*([test.as_labelled] if test else []), *([truth] if truth else [])]
        row(name, count, *(block.classes[name].precision for block in blocks))
    table.add_section()
    row("I don't know", record.abstained)
    table.add_row("of these tracks in conflict", str(record.conflicts))
    out.print(table)
    if test:
        one, other = test.apart, test.as_labelled
        out.print(
            f"on {test.crops} crops of the frozen test set: single crops "
            f"{percent(one.accuracy)}% right at {percent(one.coverage)}% coverage, as "
            f"labelled {percent(other.accuracy)}% at {percent(other.coverage)}%",
            soft_wrap=True,
        )


def _plot(record: LabelRecord, test: TestQuality, workspace: Workspace) -> Path:
    from collabteam.reporting import figures

    to = workspace.report("label-quality.png")
    with workspace.publishing(to):
        figures.write_png(
            f"Camera {record.camera}, team of round {record.round}, {test.crops} crops of the "
            "frozen test set",
            figures.label_quality(test), to, columns=4,
        )  # fmt: skip
    return to


main = Command(
    "label",
    LabelConfig,
    run,
    about="Let a camera's team label every crop that no person has judged; the second time it "
    "labels only new crops.",
    usage=(("camera=NAME [setting=value ...]", ""),),
    then="python -m collabteam.audit camera=NAME",
)

if __name__ == "__main__":
    main()
