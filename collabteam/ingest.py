"""``python -m collabteam.ingest``: put crops into a camera's catalog."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener, counting
from collabteam.reporting.output import console, tell
from collabteam.settings import IngestConfig

if TYPE_CHECKING:
    from collabteam.sources.base import Aside, Labels


def run(config: IngestConfig, listener: Listener) -> Outcome:
    """Ingest, and report the result."""
    return (
        _run_video(config, listener) if config.source == "video" else _run_crops(config, listener)
    )


def _run_video(config: IngestConfig, listener: Listener) -> Outcome:
    from collabteam.storage.workspace import Workspace
    from collabteam.video.pipeline import ingest_footage
    from collabteam.video.summary import footage_table

    summary = ingest_footage(config, listener)
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
    lines += _told_aside(summary.aside)
    lines += _cases("not readable for this user, left out", summary.aside.unreadable)
    if summary.previews:
        lines.append(
            f"a look at them: {len(summary.previews)} clips and sheets in "
            f"{workspace.place_of(workspace.videos)}"
        )
    lines.append(f"next: python -m collabteam.review camera={name}")
    if summary.read:
        console().print(footage_table(summary.read))
    tell(lines)
    if not_read := [*summary.failed, *summary.aside.unreadable]:
        return Outcome(_not_read(not_read), "failed", 1)
    return Outcome(
        f"{objects} objects, {crops} crops from {len(summary.read)} videos",
        "done" if summary.read else "skipped",
    )


def _run_crops(config: IngestConfig, listener: Listener) -> Outcome:
    from collabteam.catalog import Catalog
    from collabteam.sources.crops import check_new_camera, ingest_source, open_source
    from collabteam.storage.workspace import registered

    name, classes = config.camera.name, config.camera.classes
    is_new = name not in registered(config.root)
    if not is_new:
        classes = Catalog.open(config.root, name).classes or classes
    source = open_source(config.path, cast("Labels", config.labels), classes, config.follow_links)
    if is_new:  # checked before it is registered, so that a refused command leaves nothing behind
        check_new_camera(name, classes, source)
    catalog = Catalog.register(config.root, name, config.camera.classes)
    with listener.stage(f"reading {config.path}", source.total, "crops") as advance:
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
    for meaning, count in summary.others.items():
        lines.append(f"new labels ({meaning}): {count}")
    if summary.test:
        lines.append(f"new in the frozen test set: {summary.test}")
    lines += _told_aside(summary.aside)
    aside = catalog.workspace.place_of(catalog.workspace.quarantine)
    lines += _cases("labels that contradict an earlier one, which stands", summary.conflicts)
    lines += _cases(f"unusable, kept aside in {aside}", summary.quarantined)
    unreadable = summary.aside.unreadable
    lines += _cases("not readable for this user, left out", unreadable)
    then = "review" if config.labels == "proposed" else "train"
    round_ = " round=0" if then == "train" else ""
    lines.append(f"next: python -m collabteam.{then} camera={name}{round_}")
    tell(lines)
    if unreadable:
        return Outcome(_not_read(unreadable), "failed", 1)
    new = summary.added + sum(summary.labelled.values()) + summary.test
    return Outcome(
        f"{summary.added} new crops, {sum(summary.labelled.values())} new labels, "
        f"{summary.total} crops in all", "done" if new else "skipped",
    )  # fmt: skip


def _told_aside(aside: Aside) -> list[str]:
    """Say what a source left aside, besides what cannot be read."""
    lines = [*aside.remarks]
    if aside.ignored:
        lines.append(f"passed over, no pictures by their names: {aside.ignored} files")
    if aside.passed_over:
        lines.append(f"passed over, hidden or of a file server: {_counted(aside.passed_over)}")
    if aside.links:
        lines.append(
            f"links that lead out of the folder, not followed: {len(aside.links)} "
            f"({', '.join(aside.links[:5])}{', ...' if len(aside.links) > 5 else ''}); "
            "follow_links=true follows them"
        )
    if aside.unlabelled:
        lines.append(f"without a label, by what stands for it: {_counted(aside.unlabelled)}")
    return lines


def _counted(names: Counter[str]) -> str:
    """Count names, the most frequent ones by name: ``14 (8 x @eaDir, 6 x #recycle)``."""
    listed = ", ".join(f"{count} x {name[:40]}" for name, count in names.most_common(8))
    return f"{names.total()} ({listed}{', ...' if len(names) > 8 else ''})"


def _cases(title: str, cases: list[tuple[str, str]]) -> list[str]:
    if not cases:
        return []
    lines = [f"{title}: {len(cases)}", *(f"  {where}: {reason}" for where, reason in cases[:10])]
    return [*lines, f"  ... and {len(cases) - 10} more"] if len(cases) > 10 else lines


def _not_read(cases: list[tuple[str, str]]) -> str:
    """Describe the first of several failures."""
    where, reason = cases[0]
    return f"{where}: {reason}" + (f", and {len(cases) - 1} more" if len(cases) > 1 else "")


main = Command(
    "ingest",
    IngestConfig,
    run,
    about="Put crops into a camera's catalog; a new camera is registered, and only new crops are "
    "added.",
    usage=(
        ("camera=NAME path=DIR|FILE.parquet [setting=value ...]", ""),
        ("camera=NAME source=video path=FILE|DIR|'*.mp4'|URL [...]", ""),
        ("-m camera=A,B,C 'path=footage/${camera.name}' [...]", "many cameras"),
    ),
    notes=(
        "Footage needs the extra 'video' (pip install 'collabteam[video]'), or 'footage' without "
        "AGPL packages. Rows with split=test become the frozen test set. A path with "
        "commas in it needs two pairs of quotes: path=\"'a,b.mp4'\"",
    ),
    then="python -m collabteam.review camera=NAME",
    cameras="new",
    varies="anything",
)

if __name__ == "__main__":
    main()
