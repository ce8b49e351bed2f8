"""``python -m collabteam.report``: Table 1 of a camera, and the page on several cameras."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.errors import UserError, foreign_owner
from collabteam.events import Listener
from collabteam.reporting.output import console, tell
from collabteam.settings import MOST_SAMPLES, CommandConfig
from collabteam.settings.fields import setting

if TYPE_CHECKING:
    from collabteam.monitoring.drift import Drift
    from collabteam.monitoring.windows import TimeWindows


@dataclass
class ReportConfig(CommandConfig):
    """Settings of ``collabteam.report``."""

    cameras: list[str] = setting(
        [],
        affects="place",
        metavar="[a,b]",
        help="for format=html: several cameras; a pattern or a list in camera= becomes this",
    )
    format: str = setting(
        "table",
        affects="place",
        choices={
            "table": "the terminal, and files in the camera's folder",
            "json": "standard output; no file is written",
            "html": "one self-contained page on any number of cameras",
        },
        help="form of the report",
    )
    to: str = setting(
        "",
        affects="place",
        metavar="FILE",
        is_path=True,
        help="for format=html: the .html file",
    )
    samples: int = setting(
        8,
        ge=0,
        le=MOST_SAMPLES,
        affects="place",
        help="for format=html: crops shown of each kind (sure, unsure, wrong); with 0 the page "
        "holds no pictures",
    )

    def check_together(self) -> None:
        """Raise unless the format of the report suits the cameras and the file.

        Raises:
            UserError: The format does not suit them, or a camera's name is not usable.
        """
        if not self.cameras:
            super().check_together()
        if self.format != "html" and self.cameras:
            raise UserError(
                f"format={self.format} is about one camera, got {len(self.cameras)}: name one, add "
                "-m to have one after the other, or take format=html to=FILE, a page of all"
            )
        if self.format == "html" and not self.to:
            raise UserError("to is not given: expected the file to write, such as to=report.html")
        if self.format == "html" and Path(self.to).suffix.lower() not in (".html", ".htm"):
            # Without this check, any existing file could be replaced.
            raise UserError(f"to={self.to}: expected a file whose name ends in .html")
        if self.format != "html" and self.to:
            raise UserError(f"to={self.to}: only format=html writes there")


def run(config: ReportConfig, listener: Listener) -> Outcome:
    """Print the report, or write the page."""
    return _page(config, listener) if config.format == "html" else _camera(config)


def _page(config: ReportConfig, listener: Listener) -> Outcome:
    from collabteam.monitoring.facts import CameraFacts, camera_facts
    from collabteam.reporting.fleet_page import write_fleet

    to, names = Path(config.to), config.cameras or [config.camera.name]
    if to.is_symlink():
        raise UserError(f"to={to} is a link to {to.readlink()}: name that file itself")
    if to.is_dir():
        raise UserError(f"to={to} is a folder: name a file in it, such as {to / 'report.html'}")
    if not to.parent.is_dir():
        raise UserError(f"to={to}: the folder {to.parent} is not there: make it first")

    def gathered() -> Iterator[CameraFacts]:
        with listener.stage("gathering", len(names), "cameras") as advance:
            for name in names:
                yield camera_facts(config.root, name, config.samples)
                advance(1)

    rows = write_fleet(gathered(), to)
    damaged = [row.facts.name for row in rows if row.facts.problem]
    lines = [
        f"{len(rows)} camera{'' if len(rows) == 1 else 's'}, "
        f"{sum(row.round is not None for row in rows)} with a team"
        + (f", damaged: {', '.join(damaged)}" if damaged else ""),
        f"the page: {to} ({to.stat().st_size / 1e6:.1f} MB); it needs no network",
        "next: open it in a browser; its last column shows what each camera needs next",
    ]
    tell(lines)
    return Outcome(f"a page on {len(rows)} in {to}")


def _camera(config: ReportConfig) -> Outcome:
    from collabteam.catalog import Catalog
    from collabteam.reporting import time_windows
    from collabteam.reporting.table1 import render, to_csv, to_json
    from collabteam.rounds.records import read_rounds
    from collabteam.storage.files import write_json, write_text

    workspace = Catalog.open(config.root, config.camera.name).workspace
    rounds = read_rounds(workspace)
    if not rounds:
        raise UserError(
            f"camera {config.camera.name} has no finished round under {config.root}: "
            f"python -m collabteam.train camera={config.camera.name} round=0"
        )
    found = _windows(config)
    content: dict[str, Any] = to_json(rounds)
    if found is not None:
        content["stretches"] = {
            **time_windows.to_json(found[0]),
            "drift": found[1].to_json(),
        }
    if config.format == "json":
        print(json.dumps(content, indent=1))
        return Outcome()
    # Imports matplotlib, which the JSON does not need.
    from collabteam.reporting import figures

    out = console()
    render(rounds, out)
    names = ["table1.csv", "table1.json", "table1.png"]
    if found is not None:
        names += ["stretches.csv", "stretches.png"]
    files = {name: workspace.report(name) for name in names}
    if not os.access(workspace.folder, os.W_OK):
        whose = foreign_owner(workspace.folder) or f"{workspace.folder} cannot be written"
        if found is not None:
            time_windows.render(found[0], out)
        tell((f"no files are written: {whose}",))
        return Outcome()
    with workspace.publishing(*files.values()):
        write_text(files["table1.csv"], to_csv(rounds))
        write_json(files["table1.json"], content)
        oracle = any(record.reviewer.kind == "oracle" for record in rounds)
        title = f"Camera {rounds[-1].camera}{', simulated reviewer' if oracle else ''}"
        figures.write_png(title, figures.course(rounds), files["table1.png"])
        if found is not None:
            tables, drift = found
            time_windows.render(tables, out)
            tell(("", drift.in_words(config.camera.name)))
            write_text(files["stretches.csv"], time_windows.to_csv(tables))
            newest = None if drift.alarm is None else drift.since
            figures.write_png(
                f"Camera {config.camera.name}, team of round {tables.round}",
                figures.coverage_over_time(tables, newest), files["stretches.png"], columns=1,
            )  # fmt: skip
    tell(
        (
            f"wrote {', '.join(names[:-1])} and {names[-1]} in {workspace.folder}",
            f"next: python -m collabteam.train camera={config.camera.name} "
            f"round={rounds[-1].round + 1}",
        )
    )
    return Outcome()


def _windows(config: ReportConfig) -> tuple[TimeWindows, Drift] | None:
    """The last labelling over time, and its drift; None before the first labelling."""
    from collabteam.catalog import Catalog
    from collabteam.monitoring.drift import find_drift
    from collabteam.monitoring.windows import time_windows

    catalog = Catalog.open(config.root, config.camera.name)
    index = catalog.index()
    tables = time_windows(index, catalog.classes)
    drift = find_drift(catalog.workspace, index)
    return None if tables is None or drift is None else (tables, drift)


main = Command(
    "report",
    ReportConfig,
    run,
    about="Show a camera's Table 1, and per round coverage, \"I don't know\", increments and label "
    "quality; after 'label' also labels by hour and video, and whether the newest time window "
    "differs. Or write one page on all cameras.",
    usage=(
        ("camera=NAME [format=table|json]", ""),
        ("'camera=glob(*)' format=html to=report.html", "one page on all cameras"),
    ),
    cameras="many",
)

if __name__ == "__main__":
    main()
