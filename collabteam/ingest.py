"""``python -m collabteam.ingest``: put crops into a camera's catalog."""

from __future__ import annotations

from collabteam.cli import Command
from collabteam.config import IngestConfig

HELP = """
Put crops into a camera's catalog; a new camera name is registered.

  python -m collabteam.ingest camera=NAME path=DIR|FILE.parquet [setting=value ...]

  camera=NAME        the camera; letters, digits, '_', '.', '-'
  path=DIR           a folder of images, flat or with a subfolder per class
  path=FILE.parquet  columns: image (bytes); optional label, track, video, time, split;
                     or crop_id and label, for crops that are in the catalog already
  labels=proposed    what a given label is: proposed (by a detector), person (verified by one),
                     truth (hidden; only a simulated reviewer and the measuring see it)
  source=crops       where crops come from
  root=outputs       folder under which every camera has its own
  seed=0             not used; every command takes it

Ingesting again adds only what is new. Rows with split=test become the frozen test set.
Then: python -m collabteam.train camera=NAME round=0
"""


def run(config: IngestConfig) -> int:
    """Ingest and say what came of it."""
    from typing import cast

    from rich.console import Console as RichConsole

    from collabteam.boards.progress import Console
    from collabteam.catalog import Catalog
    from collabteam.catalog.crops_source import Labels, ingest_source, open_source
    from collabteam.config import UNKNOWN, UNUSABLE, camera_folder, check_classes, check_ingest

    check_ingest(config)
    name = config.camera.name
    # Before the camera is registered: what is refused leaves nothing behind.
    source = open_source(config.path, cast(Labels, config.labels))
    seen = sorted(source.labels - {UNKNOWN, UNUSABLE})
    if seen and not config.camera.classes and not camera_folder(config.root, name).exists():
        check_classes(seen)
    catalog = Catalog.register(config.root, name, config.camera.classes)
    console = Console()
    with console.stage(f"reading {config.path}", source.total, "crops") as advance:
        summary = ingest_source(catalog, source, console.counting(advance))
    rate = (summary.added + summary.known) / max(summary.seconds, 1e-9)
    lines = [
        f"{name}: {summary.added} new crops, {summary.known} known before, "
        f"{summary.duplicates} twice in the source; {summary.total} in all, in {catalog.folder} "
        f"({summary.seconds:.1f} s, {rate:.0f} crops/s)"
    ]
    if summary.labelled:
        labelled = ", ".join(f"{count} {label}" for label, count in summary.labelled.items())
        lines.append(f"new labels ({config.labels}): {labelled}")
    if summary.test:
        lines.append(f"new in the frozen test set: {summary.test}")
    if summary.ignored:
        lines.append(f"passed over, no pictures by their names: {summary.ignored} files")
    for title, cases in (
        ("labels that contradict an earlier one, which stands", summary.conflicts),
        (f"unusable, kept aside in {catalog.folder / 'quarantine.jsonl'}", summary.quarantined),
    ):
        if cases:
            lines.append(f"{title}: {len(cases)}")
            lines += [f"  {where}: {reason}" for where, reason in cases[:10]]
            if len(cases) > 10:
                lines.append(f"  ... and {len(cases) - 10} more")
    lines.append(f"next: python -m collabteam.train camera={name} round=0")
    RichConsole(highlight=False).print("\n".join(lines), markup=False, soft_wrap=True)
    return 0


main = Command("ingest", IngestConfig, run, HELP, registers=True)

if __name__ == "__main__":
    main()
