"""``python -m collabteam.ingest``: put crops into a camera's catalog."""

from __future__ import annotations

from collabteam.cli import Command
from collabteam.config import IngestConfig

HELP = """
Put crops into a camera's catalog; a new camera name is registered.

  python -m collabteam.ingest camera=NAME path=DIR|FILE.parquet [setting=value ...]

  camera=NAME        the camera; letters, digits, '_', '.', '-'
  path=DIR           a folder of images, flat or with a subfolder per class
  path=FILE.parquet  columns: image (bytes); optional label, track, video, time, split
  labels=proposed    what a given label is: proposed (by a detector), person (verified by one),
                     truth (hidden; only a simulated reviewer and the measuring see it)
  source=crops       where crops come from
  root=outputs       folder under which every camera has its own

Ingesting again adds only what is new. Rows with split=test become the frozen test set.
Then: python -m collabteam.train camera=NAME round=0
"""


def run(config: IngestConfig) -> int:
    """Ingest and say what came of it."""
    from pathlib import Path

    from collabteam.boards.progress import Console
    from collabteam.catalog.crops_source import ingest_crops
    from collabteam.config import check_ingest

    check_ingest(config)
    console = Console()
    summary = ingest_crops(config.root, config.camera, Path(config.path), config.labels, console)
    return 0


main = Command("ingest", IngestConfig, run, HELP, registers=True)

if __name__ == "__main__":
    main()
