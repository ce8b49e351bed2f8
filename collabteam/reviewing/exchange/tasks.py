"""Write crops as tasks of another annotation tool."""

from __future__ import annotations

import datetime
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from collabteam.catalog.catalog import Catalog
from collabteam.errors import UndecodableCrops, UserError, disk_errors
from collabteam.pictures import UndecodablePicture, portable
from collabteam.reviewing.exchange.base import ExchangeFormat, Task, TaskList, WrittenTask
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.storage.staging import staging_folder, write_errors

READ_AT_ONCE = 64
"""The largest number of pictures in memory at a time."""

_UNFINISHED = ".unfinished"
_PICTURE = re.compile(r"[0-9a-f]{24}\.[a-z0-9]+")
_IN_ARCHIVE = "images"


def write_tasks(
    catalog: Catalog,
    tasks: Sequence[Task],
    format: ExchangeFormat,
    to: Path,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write crops as tasks of another annotation tool.

    The pictures, as every program shows them, go to the folder ``NAME-images`` beside the file, or
    into the file if it is an archive. The catalog does not change.

    The file itself appears last and complete. The remains of a killed call are hidden or marked,
    and the next identical call removes them.

    Args:
        catalog: The camera.
        tasks: Each crop once.
        format: The tool's format.
        to: The file, with one of the format's endings.
        advance: Called after each written part with its number of crops.

    Returns:
        Lines for the user: what was written, and how to open it in that tool.

    Raises:
        ValueError: A crop is not in the catalog, or has two tasks.
        UndecodableCrops: Pictures cannot be opened; it names all of them, and nothing has been
            written.
        UserError: There is nothing to write, a target exists or cannot be written, the file's
            ending or a suggestion is invalid, or the disk is full; no target has been written.
    """
    format.check_target(to)
    if not catalog.classes:
        raise UserError(
            f"camera {catalog.name} has no classes yet: name them with 'camera.classes=[a,b]' when "
            "you ingest"
        )
    if not tasks:
        raise UserError(f"no crop of camera {catalog.name} is to be judged: {to} was not written")
    catalog.check_labels(task.suggested for task in tasks)
    tasks = format.arrange(tasks)
    labels = [*catalog.classes, UNKNOWN, UNUSABLE]
    images = to.with_name(f"{to.stem}-images")
    packed = to.suffix.lower() == ".zip"
    companion = format.companion(to, labels)
    about = TaskList(catalog.name, labels, len(tasks), _IN_ARCHIVE if packed else images.name)

    # Named after the stem, because NAME.json and NAME.csv share NAME-images.
    staged = staging_folder(to.with_name(to.stem), alone=True)
    with write_errors(to), disk_errors(), staged as hidden:
        if not packed and _is_unfinished(images, to):
            shutil.rmtree(images)
        taken = [to] if packed else [to, images]
        _check_free(taken, companion)
        (hidden / "images").mkdir()
        (hidden / "images" / _UNFINISHED).write_text(to.name, encoding="utf-8")
        archive = zipfile.ZipFile(hidden / "zip", "w") if packed else None
        with archive or nullcontext():

            def store(name: str, image: bytes) -> None:
                if archive:
                    archive.writestr(f"{_IN_ARCHIVE}/{name}", image)
                else:
                    (hidden / "images" / name).write_bytes(image)

            written = _stored(catalog, tasks, store, advance)
            with (hidden / "text").open("w", encoding="utf-8", newline="") as file:
                format.write(written, file, about)
            if archive:
                archive.write(hidden / "text", format.archive_member, zipfile.ZIP_DEFLATED)

        _check_free(taken, companion)  # another process may have made it meanwhile
        if companion:
            (hidden / "companion").write_text(companion[1], encoding="utf-8")
            (hidden / "companion").rename(companion[0])
        if packed:
            (hidden / "zip").rename(to)
        else:
            (hidden / "images").rename(images)
            (hidden / "text").rename(to)
            (images / _UNFINISHED).unlink()
    return format.instructions(to, images, len(tasks))


def _is_unfinished(images: Path, to: Path) -> bool:
    """Return whether the pictures are the remains of a call that was killed before it ended.

    The folder must be ours, name a target of the same stem that is not there, and hold nothing but
    pictures of crops: everything else is somebody's.
    """
    if images.is_symlink() or not images.is_dir() or images.stat().st_uid != os.geteuid():
        return False
    name = _text(images / _UNFINISHED) or ""
    if Path(name).stem != to.stem or os.path.lexists(images.parent / Path(name).name):
        return False
    with os.scandir(images) as entries:
        return all(
            entry.is_file(follow_symlinks=False)
            and (entry.name == _UNFINISHED or _PICTURE.fullmatch(entry.name))
            for entry in entries
        )


def _check_free(targets: Sequence[Path], companion: tuple[Path, str] | None) -> None:
    taken = [path for path in targets if os.path.lexists(path)]
    # An equal companion file may stay: it would not change.
    if companion and os.path.lexists(companion[0]) and _text(companion[0]) != companion[1]:
        taken.append(companion[0])
    if taken:
        raise UserError(f"{taken[0]} exists already: name another file, or move it away")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _stored(
    catalog: Catalog,
    tasks: Sequence[Task],
    store: Callable[[str, bytes], None],
    advance: Callable[[int], None],
) -> Iterator[WrittenTask]:
    """Write the pictures one by one, with few of them in memory at a time."""
    index = catalog.index()
    rows = index.crop_id.find([task.crop_id for task in tasks]).tolist()
    missing = [task.crop_id for task, row in zip(tasks, rows, strict=True) if row < 0]
    if missing:
        raise ValueError(f"{len(missing)} crops are not in {catalog.folder}: {missing[0]}, ...")
    if len(set(rows)) < len(rows):
        raise ValueError("a crop is there twice")
    faults: dict[str, str] = {}
    for start in range(0, len(tasks), READ_AT_ONCE):
        part = tasks[start : start + READ_AT_ONCE]
        chosen = rows[start : start + READ_AT_ONCE]
        for task, row, image in zip(part, chosen, catalog.images(chosen), strict=True):
            try:
                shown = portable(image)
            except UndecodablePicture as error:
                faults[task.crop_id] = str(error)
            if faults:  # from here on only search for the others
                continue
            file = task.crop_id + shown.extension
            store(file, shown.image)
            yield WrittenTask(
                crop_id=task.crop_id,
                suggested=task.suggested,
                preselect=task.preselect,
                file=file,
                width=shown.width,
                height=shown.height,
                video=index.video[row],
                track="" if index.track[row] == task.crop_id else index.track[row],
                time=_iso(float(index.time[row])),
            )
        if not faults:
            advance(len(part))
    if faults:
        raise UndecodableCrops(faults)


def _iso(time: float) -> str:
    if math.isnan(time):
        return ""
    try:
        return datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(
            timespec="milliseconds"
        )
    except (ValueError, OverflowError, OSError):
        return ""
