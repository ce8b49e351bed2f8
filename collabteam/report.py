"""``python -m collabteam.report``: Table 1 of a camera and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabteam.cli.command import Command, Outcome
from collabteam.errors import UserError
from collabteam.settings import MOST_SAMPLES, CommandConfig, check_camera_name
from collabteam.settings.fields import setting

if TYPE_CHECKING:
    from collabteam.monitoring.drift import Drift
    from collabteam.reporting.time_windows import TimeWindows

HELP = """
Show a camera's Table 1, and per round coverage, "I don't know", increments and label quality.
After 'label' also what was labelled by hour and by video, and whether the newest stretch differs.
Or one page on all cameras, to open without a network and to hand on.

  python -m collabteam.report camera=NAME [format=table|json]
  python -m collabteam.report 'camera=glob(*)' format=html to=report.html

  camera=NAME    the camera; of format=html also several: camera=a,b or 'camera=glob(S10-*)'
  format=table   print the tables; table1.csv, table1.json and table1.png go to the camera's folder,
                 after 'label' also stretches.csv and stretches.png
  format=json    print JSON on standard output and write nothing
  format=html    one page: the fleet's table with what to do next; of each camera curves, Table 1,
                 calibration, crops, drift and provenance
  to=FILE        of format=html: the file to write, .html
  samples=8      of format=html: crops shown of each kind (sure, unsure, wrong), at most 24; 0: the
                 page holds no picture of anybody
  root=outputs
"""


@dataclass
class ReportConfig(CommandConfig):
    """Settings of ``collabteam.report``."""

    cameras: list[str] = setting(
        [],
        affects="place",
        metavar="[a,b]",
        help="of format=html: several cameras; a pattern or a list in camera= becomes this",
    )
    format: str = setting(
        "table",
        affects="place",
        choices={
            "table": "the terminal, and files in the camera's folder",
            "json": "standard output; no file is written",
            "html": "one page on any number of cameras that needs no network",
        },
        help="form of the report",
    )
    to: str = setting("", affects="place", metavar="FILE", help="of format=html: the .html file")
    samples: int = setting(
        8,
        ge=0,
        le=MOST_SAMPLES,
        affects="place",
        help="of format=html: crops shown of each kind (sure, unsure, wrong); with 0 the page "
        "holds no picture of anybody",
    )

    def check_together(self) -> None:
        """Raise unless the form of the report suits the cameras and the file.

        Raises:
            UserError: It does not, or a camera's name is not usable.
        """
        if not self.cameras:
            super().check_together()
        for name in self.cameras:
            check_camera_name(name)
        if self.format != "html" and self.cameras:
            raise UserError(
                f"format={self.format} is about one camera, got {len(self.cameras)}: name one, add "
                "-m to have one after the other, or take format=html to=FILE, a page of all"
            )
        if self.format == "html" and not self.to:
            raise UserError("to is not given: expected the file to write, such as to=report.html")
        if self.format == "html" and Path(self.to).suffix.lower() not in (".html", ".htm"):
            # Any other file that lies there would be replaced.
            raise UserError(f"to={self.to}: expected a file whose name ends in .html")
        if self.format != "html" and self.to:
            raise UserError(f"to={self.to}: only format=html writes there")


def run(config: ReportConfig) -> Outcome:
    """Print the report, or write the page."""
    return _page(config) if config.format == "html" else _camera(config)


def _page(config: ReportConfig) -> Outcome:
    from collections.abc import Iterator

    from rich.console import Console as RichConsole

    from collabteam.monitoring.facts import camera_facts
    from collabteam.reporting.fleet_page import CameraFacts, write_fleet
    from collabteam.reporting.terminal import Terminal

    to, names = Path(config.to), config.cameras or [config.camera.name]
    if to.is_dir():
        raise UserError(f"to={to} is a folder: name a file in it, such as {to / 'report.html'}")
    if not to.parent.is_dir():
        raise UserError(f"to={to}: the folder {to.parent} is not there: make it first")

    def gathered() -> Iterator[CameraFacts]:
        with Terminal().stage("gathering", len(names), "cameras") as advance:
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
        "next: open it in a browser; its last column says what each camera needs",
    ]
    RichConsole(highlight=False).print("\n".join(lines), markup=False, soft_wrap=True)
    return Outcome(f"a page on {len(rows)} in {to}")


def _camera(config: ReportConfig) -> Outcome:
    import json

    from rich.console import Console as RichConsole

    from collabteam.catalog import Catalog
    from collabteam.reporting import time_windows as stretches
    from collabteam.reporting.plots import plot_rounds
    from collabteam.reporting.table1 import read_rounds, render, to_csv, to_json
    from collabteam.storage.files import write_json, write_text

    workspace = Catalog.open(config.root, config.camera.name).workspace
    rounds = read_rounds(workspace)
    if not rounds:
        raise UserError(
            f"camera {config.camera.name} has no finished round under {config.root}: "
            f"python -m collabteam.train camera={config.camera.name} round=0"
        )
    found = _stretches(config)
    content: dict[str, Any] = to_json(rounds)
    if found is not None:
        content["stretches"] = {
            **stretches.to_json(found[0]),
            "drift": found[1].to_json(),
        }
    if config.format == "json":
        print(json.dumps(content, indent=1))
        return Outcome()
    console = RichConsole(highlight=False)
    render(rounds, console)
    names = ["table1.csv", "table1.json", "table1.png"]
    if found is not None:
        names += ["stretches.csv", "stretches.png"]
    files = {name: workspace.report(name) for name in names}
    with workspace.publishing(*files.values()):
        write_text(files["table1.csv"], to_csv(rounds))
        write_json(files["table1.json"], content)
        plot_rounds(rounds, files["table1.png"])
        if found is not None:
            tables, drift = found
            stretches.render(tables, console)
            console.print(f"\n{drift.in_words(config.camera.name)}", markup=False, soft_wrap=True)
            write_text(files["stretches.csv"], stretches.to_csv(tables))
            newest = None if drift.alarm is None else drift.since
            stretches.plot_time_windows(tables, config.camera.name, newest, files["stretches.png"])
    console.print(
        f"wrote {', '.join(names[:-1])} and {names[-1]} in {workspace.folder}\n"
        f"next: python -m collabteam.train camera={config.camera.name} "
        f"round={rounds[-1]['round'] + 1}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return Outcome()


def _stretches(config: ReportConfig) -> tuple[TimeWindows, Drift] | None:
    """What the last labelling said over time, and what its newest stretch tells; None before it."""
    from collabteam.catalog import Catalog
    from collabteam.monitoring.drift import find_drift
    from collabteam.reporting.time_windows import stretches

    catalog = Catalog.open(config.root, config.camera.name)
    index = catalog.index()
    tables = stretches(index, catalog.classes)
    drift = find_drift(catalog.workspace, index)
    return None if tables is None or drift is None else (tables, drift)


main = Command("report", ReportConfig, run, HELP, gathers=True)

if __name__ == "__main__":
    main()
