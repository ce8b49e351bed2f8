"""``python -m collabteam.compact``: fewer and larger files, with the same content."""

from __future__ import annotations

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener
from collabteam.reporting.output import tell
from collabteam.settings import CommandConfig

_LATER = "; files replaced within the last hour are removed by a later compact"


def run(config: CommandConfig, listener: Listener) -> Outcome:
    """Compact the camera's tables, and report the sizes before and after."""
    from collabteam.catalog import Catalog

    catalog = Catalog.open(config.root, config.camera.name)
    with listener.stage(f"merging small files of {catalog.name}", None, "rows") as advance:
        before, after = catalog.compact(advance)
    tell(
        (
            f"{catalog.name}: {before.files:,} files of {before.bytes / 1e6:,.1f} MB are now "
            f"{after.files:,} of {after.bytes / 1e6:,.1f} MB, in {catalog.place}"
            f"{_LATER if catalog.workspace.keeps_replaced_files else ''}",
            "next: nothing has changed for the other commands; again when it has grown",
        )
    )
    return Outcome(note=f"{before.files:,} files are now {after.files:,}")


main = Command(
    "compact",
    CommandConfig,
    run,
    about="Merge the many small files of a camera's catalog, and remove files that are no longer "
    "needed: earlier versions of its tables, and remains of killed commands. Crops keep their "
    "numbers and the log keeps its order.",
    usage=(
        ("camera=NAME", ""),
        ("-m 'camera=glob(*)'", "every registered camera"),
    ),
    notes=(
        "Other commands may read and write meanwhile; writers wait until a table is done. In an "
        "object store no writer waits, and files replaced within the last hour are removed by a "
        "later compact. It needs free space for a second copy of its tables. When to run it: "
        "docs/fleet-plan.md",
    ),
)

if __name__ == "__main__":
    main()
