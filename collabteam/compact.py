"""``python -m collabteam.compact``: fewer and larger files, with the same content."""

from __future__ import annotations

from collabteam.cli.command import Command, Outcome
from collabteam.settings import CommandConfig

HELP = """
Merge the many small files that a camera's catalog grows by, and remove what nobody needs any more:
earlier versions of its tables, and what a killed command left. Crops keep their numbers and the log
its order. Others may read and write meanwhile; who writes waits for a table to be done. In an
object store nobody waits, and what was replaced within the hour is removed by the next compact.

  python -m collabteam.compact camera=NAME
  python -m collabteam.compact -m 'camera=glob(*)'      every known camera

  camera=NAME          the camera
  root=outputs         folder, or s3://bucket/prefix

It needs space for the camera's tables once more. When to run it: docs/fleet-plan.md
"""

_LATER = "; what this hour replaced is removed by the next compact after it"


def run(config: CommandConfig) -> Outcome:
    """Compact the camera's tables, and say what it saved."""
    from collabteam.catalog import Catalog
    from collabteam.reporting.terminal import Terminal

    catalog = Catalog.open(config.root, config.camera.name)
    with Terminal().stage(f"merging small files of {catalog.name}", None, "rows") as advance:
        before, after = catalog.compact(advance)
    print(
        f"{catalog.name}: {before.files:,} files of {before.bytes / 1e6:,.1f} MB are now "
        f"{after.files:,} of {after.bytes / 1e6:,.1f} MB, in {catalog.place}"
        f"{_LATER if catalog.workspace.keeps_replaced_files else ''}\n"
        "next: nothing has changed for the other commands; again when it has grown"
    )
    return Outcome(note=f"{before.files:,} files are now {after.files:,}")


main = Command("compact", CommandConfig, run, HELP)

if __name__ == "__main__":
    main()
