"""``python -m collabteam.export``: a camera's labels as a dataset for others."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.errors import UndecodableCrops, UserError, fault_lines
from collabteam.events import Listener
from collabteam.exporting.base import EXPORT_FORMATS
from collabteam.reporting.output import console, tell
from collabteam.settings import CommandConfig, RuntimeConfig
from collabteam.settings.fields import group, setting

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from collabteam.catalog import Catalog
    from collabteam.exporting.selection import Selection


@dataclass
class ExportConfig(CommandConfig):
    """Settings of ``collabteam.export``."""

    seed: int = setting(0, ge=0, help="seed of yolo's split into train and val")
    format: str = setting(
        "imagefolder",
        choices=EXPORT_FORMATS,
        help="format of the dataset",
    )
    to: str = setting(
        "",
        affects="place",
        metavar="DIR",
        is_path=True,
        help="the folder to make; existing files are never overwritten",
    )
    certified: bool = setting(False, help="only labels that the last certificate covers")
    min_confidence: float = setting(
        0.0,
        ge=0,
        le=1,
        help="leave out the team's labels below this confidence; persons' labels stay",
    )
    unknown: bool = setting(
        False, help="include crops that persons labelled as none of the classes, as 'unknown'"
    )
    licence: str = setting(
        "", metavar="TEXT", help="text in the dataset's README.md on rights to the pictures"
    )
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")

    def check_together(self) -> None:
        """Raise unless there is a folder to make.

        Raises:
            UserError: ``to`` is missing, or the camera's name is not usable.
        """
        super().check_together()
        if not self.to:
            raise UserError("to is not given: expected the folder to make")


def run(config: ExportConfig, listener: Listener) -> Outcome:
    """Export, and report the result."""
    from collabteam.catalog import Catalog
    from collabteam.exporting.folder import export_dataset
    from collabteam.exporting.selection import select_labels

    catalog = Catalog.open(config.root, config.camera.name)
    selection = select_labels(catalog, config.certified, config.min_confidence, config.unknown)
    format = EXPORT_FORMATS.load(config.format)()
    command = shlex.join(["python", "-m", "collabteam.export", *sys.argv[1:]])

    def write(selection: Selection) -> Selection:
        with listener.stage(f"writing {config.to}", len(selection), "crops") as advance:
            return export_dataset(
                catalog, selection, format, Path(config.to), config.seed, config.licence, command,
                advance,
            )  # fmt: skip

    try:
        written = write(selection)
    except UndecodableCrops as error:
        rest = selection.without(error.faults)
        if not len(rest):
            raise
        written = write(rest)  # splits and counts follow from the selection, so from the beginning
    _show(written, catalog, console())
    tell(_lines(written, catalog, config))
    done = f"{len(written)} labelled crops in {config.to}"
    if not written.undecodable:
        return Outcome(done)
    return Outcome(
        f"{done}; left out {len(written.undecodable)} whose picture cannot be opened", "failed", 1
    )


def _show(selection: Selection, catalog: Catalog, out: RichConsole) -> None:
    from rich import box
    from rich.table import Table

    sources, splits = selection.sources_present(), selection.splits_present()
    table = Table(box=box.SIMPLE_HEAD, title=f"{catalog.name}: crops per class")
    table.add_column("class", overflow="fold")
    for column in (*(f"by {source}" for source in sources), *splits, "all"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in selection.classes:
        counts = [selection.count(name, source=source) for source in sources]
        counts += [selection.count(name, split=split) for split in splits]
        table.add_row(name, *map(str, [*counts, selection.count(name)]))
    out.print(table)


def _lines(selection: Selection, catalog: Catalog, config: ExportConfig) -> list[str]:
    from collabteam.exporting.readme import NOT_CERTIFIED, not_certified

    lines = [
        f"{catalog.name}: {len(selection)} labelled crops as {config.format} in {config.to}; "
        f"{config.to}/README.md describes them"
    ]
    lines += [f"left out {line}" for line in selection.left_out_lines()]
    lines += fault_lines(selection.undecodable)
    by_oracle = int((selection.source == "oracle").sum())
    if by_oracle:
        lines.append(f"{by_oracle} labels are those of a simulated reviewer, not of a person")
    audit = f"python -m collabteam.audit camera={catalog.name}"
    if selection.certificate:
        lines.append(f"certified: {' '.join(selection.certificate.statement.split())}")
        lines.append(f"next: read {config.to}/README.md, then hand the folder over")
    elif (selection.source == "team").any():
        why = not_certified(catalog)
        again = "" if why == NOT_CERTIFIED else " new=true"
        lines.append(why)
        lines.append(f"next: {audit}{again}, then export with certified=true")
    else:
        lines.append(f"next: python -m collabteam.train camera={catalog.name} round=0")
    return lines


main = Command(
    "export",
    ExportConfig,
    run,
    about="Export a labelled dataset: every crop with a label; a person's label takes precedence.",
    usage=(
        ("camera=NAME to=DIR [format=imagefolder] [setting=value ...]", ""),
        ("-m 'camera=glob(*)' 'to=datasets/${camera.name}'", "every camera"),
    ),
    notes=("From Python, collabteam.LabelledCrops is the same selection as a torch dataset.",),
    varies="anything",
)

if __name__ == "__main__":
    main()
