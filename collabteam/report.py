"""``python -m collabteam.report``: Table 1 of a camera and what stands beside it."""

from __future__ import annotations

from collabteam.cli import Command
from collabteam.config import ReportConfig

HELP = """
Show a camera's Table 1, and per round coverage, "I don't know", increments and label quality.

  python -m collabteam.report camera=NAME [format=table|json]

  camera=NAME    the camera
  format=table   print the tables; table1.csv, table1.json and table1.png go to the camera's folder
  format=json    print JSON on standard output and write nothing
  root=outputs  seed=0 (not used; every command takes it)
"""


def run(config: ReportConfig) -> int:
    """Print the report."""
    import json

    from rich.console import Console as RichConsole

    from collabteam.boards.plots import plot_rounds
    from collabteam.boards.table1 import read_rounds, render, to_csv, to_json
    from collabteam.config import camera_folder, check_report
    from collabteam.errors import UserError

    check_report(config)
    folder = camera_folder(config.root, config.camera.name)
    rounds = read_rounds(folder)
    if not rounds:
        raise UserError(
            f"camera {config.camera.name} has no finished round under {config.root}: "
            f"python -m collabteam.train camera={config.camera.name} round=0"
        )
    if config.format == "json":
        print(json.dumps(to_json(rounds), indent=1))
        return 0
    console = RichConsole(highlight=False)
    render(rounds, console)
    (folder / "table1.csv").write_text(to_csv(rounds))
    (folder / "table1.json").write_text(json.dumps(to_json(rounds), indent=1) + "\n")
    plot_rounds(rounds, folder / "table1.png")
    console.print(
        f"wrote table1.csv, table1.json and table1.png in {folder}\n"
        f"next: python -m collabteam.train camera={config.camera.name} "
        f"round={rounds[-1]['round'] + 1}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0


main = Command("report", ReportConfig, run, HELP)

if __name__ == "__main__":
    main()
