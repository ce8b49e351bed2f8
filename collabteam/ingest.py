"""``python -m collabteam.ingest``: put crops into a camera's catalog."""

from __future__ import annotations

from collabteam.cli.command import Command, Outcome
from collabteam.settings import IngestConfig

HELP = """
Put crops into a camera's catalog; a new camera name is registered.

  python -m collabteam.ingest camera=NAME path=DIR|FILE.parquet [setting=value ...]
  python -m collabteam.ingest camera=NAME source=video path=FILE|DIR|'*.mp4'|URL [...]
  python -m collabteam.ingest -m camera=A,B,C 'path=footage/${camera.name}' [...]   many cameras

  camera=NAME        the camera; letters, digits, '_', '.', '-'
  path=DIR           a folder of images, flat or with a subfolder per class
  path=FILE.parquet  columns: image (bytes); optional label, track, video, time, split;
                     or crop_id and label, for crops that are in the catalog already
  labels=proposed    what a given label is: proposed (by a detector), person (verified by one),
                     truth (hidden; only a simulated reviewer and the measuring see it)
  root=outputs       folder, or s3://bucket/prefix, under which every camera has its own

Of footage (pip install 'collabteam[video]'):
  path=              a video, a folder, a pattern in quotes, or a stream (rtsp://, http://);
                     what has '=', brackets or such in it, in two pairs: path="'rtsp://h/1?a=b'"
  fps=10             frames a second that are analysed; 0: all
  limit=0            seconds after which to stop with a stream
  detector.weights=yolov8n.pt   YOLO weights: .pt, .onnx, .tflite
  detector.kind=yolo            or torchvision (no AGPL), with detector.model=NAME
  detector.image_size=768  detector.confidence=0.3
  tracker=strongsort            any tracker of boxmot's, or sort (no AGPL)
  reid=FILE                     re-identification weights for the tracker
  keep_unknown=[bicycle]        what is kept as 'unknown' though the camera has no class for it
  crops_per_track=3             the best pictures of each object
  cut.margin=0.1  cut.min_size=32  cut.min_frames=5  cut.jpeg_quality=92
  camera.footage.start=%Y%m%d_%H%M%S   how a file's name tells when it began
  camera.footage.region=[[0,0.4],[1,0.4],[1,1],[0,1]]   the part that is looked at
  camera.footage.mask=FILE      black where objects do not count
  workers=1                     videos at the same time
  preview=true                  a clip with the objects drawn in, and contact sheets

Ingesting again adds only what is new. Rows with split=test become the frozen test set.
Then: python -m collabteam.review camera=NAME
"""


def run(config: IngestConfig) -> Outcome:
    """Ingest and say what came of it."""
    return _run_video(config) if config.source == "video" else _run_crops(config)


def _run_video(config: IngestConfig) -> Outcome:
    from rich.console import Console as RichConsole

    from collabteam.reporting.terminal import Terminal
    from collabteam.storage.workspace import Workspace
    from collabteam.video.pipeline import ingest_footage
    from collabteam.video.summary import footage_table

    summary = ingest_footage(config, Terminal())
    name, workspace = config.camera.name, Workspace.at(config.root, config.camera.name)
    crops = sum(record.crops for record in summary.read)
    objects = sum(sum(record.objects.values()) for record in summary.read)
    lines = [
        f"{name}: {objects} objects, {crops} crops from {len(summary.read)} videos, "
        f"{len(summary.known)} videos known before; {summary.total} crops in all, "
        f"in {workspace.place} ({summary.seconds:.1f} s)"
    ]
    for title, cases in (
        ("left to others who read them", summary.busy),
        ("not finished, tried again the next time", summary.failed),
    ):
        if cases:
            lines.append(f"{title}: {len(cases)}")
            lines += [f"  {where}: {reason}" for where, reason in cases]
    if summary.previews:
        lines.append(
            f"a look at them: {len(summary.previews)} clips and sheets in "
            f"{workspace.place_of(workspace.videos)}"
        )
    lines.append(f"next: python -m collabteam.review camera={name}")
    out = RichConsole(highlight=False)
    if summary.read:
        out.print(footage_table(summary.read))
    out.print("\n".join(lines), markup=False, soft_wrap=True)
    if summary.failed:
        where, reason = summary.failed[0]
        more = f", and {len(summary.failed) - 1} more" if len(summary.failed) > 1 else ""
        return Outcome(f"{where}: {reason}{more}", "failed", 1)
    return Outcome(
        f"{objects} objects, {crops} crops from {len(summary.read)} videos",
        "done" if summary.read else "skipped",
    )


def _run_crops(config: IngestConfig) -> Outcome:
    from typing import cast

    from rich.console import Console as RichConsole

    from collabteam.catalog import Catalog
    from collabteam.events import counting
    from collabteam.reporting.terminal import Terminal
    from collabteam.settings import UNKNOWN, UNUSABLE, check_classes
    from collabteam.sources.crops import Labels, ingest_source, open_source
    from collabteam.storage.workspace import registered

    name = config.camera.name
    # Before the camera is registered: what is refused leaves nothing behind.
    source = open_source(config.path, cast(Labels, config.labels))
    seen = sorted(source.labels - {UNKNOWN, UNUSABLE})
    if seen and not config.camera.classes and name not in registered(config.root):
        check_classes(seen)
    catalog = Catalog.register(config.root, name, config.camera.classes)
    console = Terminal()
    with console.stage(f"reading {config.path}", source.total, "crops") as advance:
        summary = ingest_source(catalog, source, counting(advance))
    rate = (summary.added + summary.known) / max(summary.seconds, 1e-9)
    lines = [
        f"{name}: {summary.added} new crops, {summary.known} known before, "
        f"{summary.duplicates} twice in the source; {summary.total} in all, in {catalog.place} "
        f"({summary.seconds:.1f} s, {rate:.0f} crops/s)"
    ]
    if summary.labelled:
        labelled = ", ".join(f"{count} {label}" for label, count in summary.labelled.items())
        lines.append(f"new labels ({config.labels}): {labelled}")
    if summary.test:
        lines.append(f"new in the frozen test set: {summary.test}")
    if summary.ignored:
        lines.append(f"passed over, no pictures by their names: {summary.ignored} files")
    aside = catalog.workspace.place_of(catalog.workspace.quarantine)
    for title, cases in (
        ("labels that contradict an earlier one, which stands", summary.conflicts),
        (f"unusable, kept aside in {aside}", summary.quarantined),
    ):
        if cases:
            lines.append(f"{title}: {len(cases)}")
            lines += [f"  {where}: {reason}" for where, reason in cases[:10]]
            if len(cases) > 10:
                lines.append(f"  ... and {len(cases) - 10} more")
    then = "review" if config.labels == "proposed" else "train"
    round_ = " round=0" if then == "train" else ""
    lines.append(f"next: python -m collabteam.{then} camera={name}{round_}")
    RichConsole(highlight=False).print("\n".join(lines), markup=False, soft_wrap=True)
    new = summary.added + sum(summary.labelled.values()) + summary.test
    return Outcome(
        f"{summary.added} new crops, {sum(summary.labelled.values())} new labels, "
        f"{summary.total} crops in all", "done" if new else "skipped",
    )  # fmt: skip


main = Command("ingest", IngestConfig, run, HELP, registers=True, varies="anything")

if __name__ == "__main__":
    main()
