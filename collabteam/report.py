"""``python -m collabteam.report``: Table 1 of a camera and what stands beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collabteam.cli import Command, Outcome
from collabteam.config import ReportConfig

if TYPE_CHECKING:
    from collabteam.boards.stretches import Stretches
    from collabteam.rounds.drift import Drift

HELP = """
Show a camera's Table 1, and per round coverage, "I don't know", increments and label quality.
After 'label' also what was labelled by hour and by video, and whether the newest stretch differs.

  python -m collabteam.report camera=NAME [format=table|json]

  camera=NAME    the camera
  format=table   print the tables; table1.csv, table1.json and table1.png go to the camera's folder,
                 after 'label' also stretches.csv and stretches.png
  format=json    print JSON on standard output and write nothing
  root=outputs  seed=0 (not used; every command takes it)
"""


def run(config: ReportConfig) -> Outcome:
    """Print the report."""
    import json
    import re

    from rich.console import Console as RichConsole

    from collabteam.boards import stretches
    from collabteam.boards.plots import plot_rounds
    from collabteam.boards.table1 import read_rounds, render, to_csv, to_json
    from collabteam.catalog import Catalog
    from collabteam.catalog.mirror import publish
    from collabteam.config import check_report
    from collabteam.errors import UserError

    check_report(config)
    folder = Catalog.open(config.root, config.camera.name).folder
    rounds = read_rounds(folder)
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
    (folder / "table1.csv").write_text(to_csv(rounds))
    (folder / "table1.json").write_text(json.dumps(content, indent=1) + "\n")
    plot_rounds(rounds, folder / "table1.png")
    wrote = "table1.csv, table1.json and table1.png"
    if found is not None:
        tables, drift = found
        stretches.render(tables, console)
        console.print(f"\n{drift.in_words(config.camera.name)}", markup=False, soft_wrap=True)
        (folder / "stretches.csv").write_text(stretches.to_csv(tables))
        newest = None if drift.alarm is None else drift.since
        stretches.plot_stretches(tables, config.camera.name, newest, folder / "stretches.png")
        wrote = "table1.csv, table1.json, table1.png, stretches.csv and stretches.png"
    publish(*(folder / name for name in re.split(", | and ", wrote)))
    console.print(
        f"wrote {wrote} in {folder}\n"
        f"next: python -m collabteam.train camera={config.camera.name} "
        f"round={rounds[-1]['round'] + 1}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return Outcome()


def _stretches(config: ReportConfig) -> tuple[Stretches, Drift] | None:
    """What the last labelling said over time, and what its newest stretch tells; None before it."""
    from collabteam.boards.stretches import stretches
    from collabteam.catalog import Catalog
    from collabteam.rounds.drift import find_drift

    catalog = Catalog.open(config.root, config.camera.name)
    index = catalog.index()
    tables = stretches(index, catalog.classes)
    drift = find_drift(catalog.folder, index)
    return None if tables is None or drift is None else (tables, drift)


main = Command("report", ReportConfig, run, HELP)

if __name__ == "__main__":
    main()
