"""Crops that a person shall judge, to other labelling tools and their answers back.

Three formats: ``labelstudio`` (Label Studio's JSON), ``cvat`` ('CVAT for images 1.1') and ``csv``.
Nothing here changes the catalog.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import lzma
import math
import os
import shlex
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from collabteam.annotation_tools.cvat import annotations_head, labels_json
from collabteam.annotation_tools.labelstudio import (
    CHOICE,
    IMAGE,
    choice_result,
    interface,
    picture_url,
)
from collabteam.annotation_tools.pictures import read_header
from collabteam.annotation_tools.spreadsheet import no_formula
from collabteam.annotation_tools.staging import staging_folder, write_errors
from collabteam.catalog.catalog import Catalog
from collabteam.errors import UserError, disk_errors, first_line
from collabteam.settings import UNKNOWN, UNUSABLE

_SUFFIXES = {"labelstudio": (".json",), "cvat": (".zip", ".xml"), "csv": (".csv",)}
FORMATS = tuple(_SUFFIXES)
"""The formats that :func:`write_tasks` knows."""

LARGEST_TEXT = 256 * 2**20
"""Bytes of a file of answers, unpacked, beyond which it is refused."""

_CHUNK = 64  # pictures in memory
_UNFINISHED = ".unfinished"
_DEEPEST = 32  # XML elements within each other; CVAT's are 8
_CSV_COLUMNS = (
    *("crop_id", "image", "suggested", "label", "reviewer"),
    *("camera", "video", "track", "time"),
)


@dataclass(frozen=True)
class Task:
    """One crop that a person shall judge.

    Attributes:
        crop_id: The crop.
        suggested: What is proposed: a class, ``unknown``, ``unusable``, or ``""`` for nothing.
    """

    crop_id: str
    suggested: str = ""


@dataclass(frozen=True)
class Answer:
    """What one person said about one crop.

    Attributes:
        crop_id: The crop, one of the catalog.
        label: A class of the camera, ``unknown`` or ``unusable``.
        reviewer: Who said it, as far as the tool tells; ``""`` if it does not.
        where: Its place in the file, such as ``line 3`` or ``task 17``.
    """

    crop_id: str
    label: str
    reviewer: str
    where: str


@dataclass(frozen=True)
class Answers:
    """What a file says.

    Attributes:
        accepted: In the order of the file; each reviewer has at most one word on a crop.
        problems: What was passed over, one line each: where, what was expected, what came.
    """

    accepted: list[Answer]
    problems: list[str]


# --- out -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    """A task whose picture has been stored, and what a tool may show of it."""

    crop_id: str
    suggested: str
    file: str  # of the picture, without its folder
    width: int
    height: int
    video: str
    track: str
    time: str


def write_tasks(
    catalog: Catalog,
    tasks: Sequence[Task],
    format: str,
    to: Path,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write crops as tasks of another labelling tool.

    Beside ``NAME.json``, ``NAME.csv`` or ``NAME.xml`` stands the folder ``NAME-images`` with the
    pictures exactly as the catalog has them; ``NAME.zip`` holds them. Label Studio's interface goes
    to ``NAME-interface.xml``, CVAT's labels to ``NAME-labels.json``. The order is that of the
    tasks; CVAT, which sorts pictures by name, gets them so.

    The file itself appears last and whole. What a killed call leaves is hidden or marked, and the
    same call again clears it away.

    Args:
        catalog: The camera.
        tasks: Each crop once.
        format: One of ``FORMATS``.
        to: The file; ``.json`` for Label Studio, ``.zip`` (pictures inside) or ``.xml`` (pictures
            beside it) for CVAT, ``.csv``.
        advance: Called with the number of crops of each part that is written.

    Returns:
        Lines for the user: what was written, and how to open it in that tool.

    Raises:
        ValueError: A task is about a crop that the catalog does not have, or about one twice.
        UserError: There is nothing to write, a target exists or cannot be written, the format, the
            file's extension or a suggestion is none of those expected, a picture cannot be opened,
            or the disk is full; no target has been written.
    """
    check_target(format, to)
    if not catalog.classes:
        raise UserError(
            f"camera {catalog.name} has no classes yet: name them with 'camera.classes=[a,b]' when "
            "you ingest"
        )
    if not tasks:
        raise UserError(f"no crop of camera {catalog.name} is to be judged: {to} was not written")
    catalog.check_labels(task.suggested for task in tasks)
    if format == "cvat":
        # CVAT numbers the pictures of an archive by name, and falls back on the number.
        tasks = sorted(tasks, key=lambda task: task.crop_id)
    labels = [*catalog.classes, UNKNOWN, UNUSABLE]
    images = to.with_name(f"{to.stem}-images")
    packed = to.suffix.lower() == ".zip"
    extra, content = _extra(format, to, labels)

    # Of the stem, because NAME.json and NAME.csv share NAME-images.
    part = to.with_name(f".{to.stem}.part")
    with write_errors(to), disk_errors(), staging_folder(part, to) as hidden:
        if not packed and _is_unfinished(images):
            shutil.rmtree(images)
        taken = [to] if packed else [to, images]
        _check_free(taken, extra, content)
        (hidden / "images").mkdir()
        (hidden / "images" / _UNFINISHED).write_text(to.name, encoding="utf-8")
        archive = zipfile.ZipFile(hidden / "zip", "w") if packed else None
        with archive or nullcontext():

            def store(name: str, image: bytes) -> None:
                if archive:
                    archive.writestr(f"images/{name}", image)
                else:
                    (hidden / "images" / name).write_bytes(image)

            items = _items(catalog, tasks, store, advance)
            with (hidden / "text").open("w", encoding="utf-8", newline="") as file:
                if format == "labelstudio":
                    _write_labelstudio(items, file, catalog.name, images.name)
                elif format == "cvat":
                    _write_cvat(items, file, catalog.name, labels, len(tasks))
                else:
                    _write_csv(items, file, catalog.name, images.name)
            if archive:
                archive.write(hidden / "text", "annotations.xml", zipfile.ZIP_DEFLATED)

        _check_free(taken, extra, content)  # it may have taken a while
        if content:
            (hidden / "extra").write_text(content, encoding="utf-8")
            (hidden / "extra").rename(extra)
        if packed:
            (hidden / "zip").rename(to)
        else:
            (hidden / "images").rename(images)
            (hidden / "text").rename(to)
            (images / _UNFINISHED).unlink()
    return _instructions(format, to, images, extra, len(tasks))


def check_target(format: str, to: Path) -> None:
    """Raise unless tasks of a format can go into a file of this name.

    Raises:
        UserError: No such format, another ending, or no such folder.
    """
    if format not in _SUFFIXES:
        raise UserError(f"format={format}: expected one of {', '.join(FORMATS)}")
    if to.suffix.lower() not in _SUFFIXES[format]:
        raise UserError(
            f"{to}: format={format} needs a file name that ends with "
            f"{' or '.join(_SUFFIXES[format])}"
        )
    if not to.parent.is_dir():
        raise UserError(f"{to} cannot be written: there is no folder {to.parent}; make it first")


def _is_unfinished(images: Path) -> bool:
    """Whether the pictures are those of a call that was killed before it put its file there."""
    name = _text(images / _UNFINISHED)
    return bool(name) and not images.is_symlink() and not os.path.lexists(images.parent / str(name))


def _check_free(targets: Sequence[Path], extra: Path, content: str) -> None:
    taken = [path for path in targets if os.path.lexists(path)]
    # The same interface or labels may stay: nothing of it would change.
    if content and os.path.lexists(extra) and _text(extra) != content:
        taken.append(extra)
    if taken:
        raise UserError(f"{taken[0]} exists already: name another file, or move it away")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _items(
    catalog: Catalog,
    tasks: Sequence[Task],
    store: Callable[[str, bytes], None],
    advance: Callable[[int], None],
) -> Iterator[_Item]:
    """Store the pictures one after the other, few of them in memory at a time."""
    index = catalog.index()
    rows = index.crop_id.find([task.crop_id for task in tasks]).tolist()
    missing = [task.crop_id for task, row in zip(tasks, rows, strict=True) if row < 0]
    if missing:
        raise ValueError(f"{len(missing)} crops are not in {catalog.folder}: {missing[0]}, ...")
    if len({task.crop_id for task in tasks}) < len(tasks):
        raise ValueError("a crop is there twice")
    for start in range(0, len(tasks), _CHUNK):
        part = tasks[start : start + _CHUNK]
        chosen = rows[start : start + _CHUNK]
        for task, row, image in zip(part, chosen, catalog.images(chosen), strict=True):
            header = read_header(task.crop_id, image)
            file = task.crop_id + header.extension
            store(file, image)
            yield _Item(
                crop_id=task.crop_id,
                suggested=task.suggested,
                file=file,
                width=header.width,
                height=header.height,
                video=index.video[row],
                track="" if index.track[row] == task.crop_id else index.track[row],
                time=_iso(float(index.time[row])),
            )
        advance(len(part))


def _iso(time: float) -> str:
    if math.isnan(time):
        return ""
    try:
        return datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(
            timespec="milliseconds"
        )
    except (ValueError, OverflowError, OSError):
        return ""


def _write_labelstudio(items: Iterable[_Item], file: io.TextIOBase, camera: str, to: str) -> None:
    separator = "[\n"
    for item in items:
        task: dict[str, Any] = {
            "data": {
                IMAGE: picture_url(to, item.file),
                "crop_id": item.crop_id,
                "camera": camera,
                "video": item.video,
                "track": item.track,
                "time": item.time,
            }
        }
        if item.suggested:
            result = choice_result(item.crop_id, item.suggested)
            task["predictions"] = [{"model_version": "collabteam", "result": [result]}]
        file.write(separator + json.dumps(task))
        separator = ",\n"
    file.write("\n]\n")


def _write_cvat(
    items: Iterable[_Item], file: io.TextIOBase, camera: str, labels: Sequence[str], size: int
) -> None:
    file.write(annotations_head(camera, labels, size))
    for number, item in enumerate(items):
        file.write(
            f'  <image id="{number}" name={quoteattr(item.file)} width="{item.width}" '
            f'height="{item.height}">\n'
        )
        if item.suggested:
            file.write(f'    <tag label={quoteattr(item.suggested)} source="auto"></tag>\n')
        file.write("  </image>\n")
    file.write("</annotations>\n")


def _write_csv(items: Iterable[_Item], file: io.TextIOBase, camera: str, to: str) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(_CSV_COLUMNS)
    for item in items:
        picture = no_formula(f"{to}/{item.file}")
        video, track = no_formula(item.video), no_formula(item.track)
        rows.writerow(
            (item.crop_id, picture, item.suggested, "", "", camera, video, track, item.time)
        )


def _extra(format: str, to: Path, labels: Sequence[str]) -> tuple[Path, str]:
    """The small file that stands beside the tasks, and what is in it; ``""`` for none."""
    if format == "labelstudio":
        return to.with_name(f"{to.stem}-interface.xml"), interface(labels)
    if format == "cvat":
        return to.with_name(f"{to.stem}-labels.json"), labels_json(labels)
    return to, ""


def _instructions(format: str, to: Path, images: Path, extra: Path, count: int) -> list[str]:
    crops = f"{count} crop{'s' * (count != 1)}"
    if format == "labelstudio":
        root = shlex.quote(str(to.parent.resolve()))
        return [
            f"{crops} in {to}, the pictures in {images}, the labelling interface in {extra}",
            "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}",
            f"in a new project: Settings > Labeling Interface > Code: paste {extra.name}",
            "Settings > Cloud Storage > Add Source Storage > Local files: "
            f"{images.resolve()}, and do not sync it",
            f"Import {to.name}; Settings > Annotation > 'Use predictions to prelabel tasks' shows "
            "what is suggested",
            "when it is done: Export > JSON",
        ]
    if format == "cvat":
        packed = to.suffix.lower() == ".zip"
        told = f"the labels in {extra}" if packed else f"pictures in {images}, labels in {extra}"
        opened = (
            f"in the project: Actions > Import dataset > CVAT 1.1: {to.name}"
            if packed
            else f"in the project: a new task with all files of {images.name}; then in the task: "
            f"Actions > Upload annotations > CVAT 1.1: {to.name}"
        )
        return [
            f"{crops} in {to}, {told}",
            f"in CVAT: a new project, Raw: paste {extra.name}",
            opened,
            "one tag a picture; a suggestion that stays counts as confirmed, so take away those "
            "that nobody has looked at",
            "when it is done: Actions > Export task dataset > CVAT for images 1.1",
        ]
    return [
        f"{crops} in {to}, the pictures in {images}",
        "fill in the column 'label', and 'reviewer' if you like; what stays empty is not answered",
        "when it is done: save it as CSV, in UTF-8",
    ]


# --- back ------------------------------------------------------------------------------------


class _Reading:
    """What was accepted and passed over so far."""

    def __init__(self, catalog: Catalog) -> None:
        self._camera = catalog.name
        self._known = set(catalog.index().crop_id.tolist())
        self._labels = (*catalog.classes, UNKNOWN, UNUSABLE)
        self._said: dict[tuple[str, str], Answer] = {}
        self.problems: list[str] = []

    def result(self) -> Answers:
        return Answers(list(self._said.values()), self.problems)

    def problem(self, where: str, expected: str, came: str) -> None:
        self.problems.append(f"{where}: expected {expected}, got {came}")

    def answer(self, where: str, crop_id: object, label: object, reviewer: object = "") -> None:
        """Accept a person's word, or say why not."""
        if reviewer is None:
            reviewer = ""
        elif isinstance(reviewer, int) and not isinstance(reviewer, bool):
            reviewer = str(reviewer)
        if not isinstance(crop_id, str) or crop_id not in self._known:
            self.problem(where, f"the name of a crop of camera {self._camera}", _shown(crop_id))
        elif not isinstance(label, str) or label not in self._labels:
            expected = f"one of {', '.join(self._labels)} for crop {crop_id}"
            self.problem(where, expected, _shown(label))
        elif not isinstance(reviewer, str) or not reviewer.isprintable():
            self.problem(where, f"the name of who judged crop {crop_id}", _shown(reviewer))
        elif before := self._said.get((crop_id, reviewer)):
            whose = f"of {reviewer!r} " if reviewer else ""
            self.problems.append(
                f"{where}: expected one answer {whose}for crop {crop_id}, got another, {label!r}; "
                f"{before.label!r} in {before.where} stands"
            )
        else:
            self._said[crop_id, reviewer] = Answer(crop_id, label, reviewer, where)


def _shown(value: object) -> str:
    """What came, on one short line, however long or strange it is."""
    if value is None:
        return "nothing"
    shown = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."


class _NoAnswers(Exception):
    """Why a file is no list of answers."""


def read_answers(catalog: Catalog, file: Path) -> Answers:
    """Read the answers that another labelling tool, or a spreadsheet, gives back.

    The format shows in the content: Label Studio's export as JSON or JSON-MIN, CVAT's
    ``annotations.xml`` or the zip with it, or CSV with the columns ``crop_id`` and ``label``
    (``reviewer`` if there is one; separated by commas, semicolons or tabs). What nobody answered is
    passed over silently, a skipped annotation of Label Studio among it. In CVAT, which does not
    tell a tag that was uploaded from one that was confirmed, every tag is an answer.

    Nothing is read but the file itself: no path and no address in it is followed.

    Args:
        catalog: The camera.
        file: What the tool exported.

    Returns:
        What was accepted, and what was not. Of two words of one reviewer on the same crop the
        first stands; of an image with two tags, or a choice of two, none.

    Raises:
        UserError: The file cannot be read, or is no such list.
    """
    reading = _Reading(catalog)
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe would never end
            raise _NoAnswers("it is a folder" if file.is_dir() else "it is no regular file")
        with file.open("rb") as stream:
            if stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
                _read_zip(file, reading)
                return reading.result()
            stream.seek(0)
            data = stream.read(LARGEST_TEXT + 1)
        _check_size(len(data))
        start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if not start:
            raise _NoAnswers("it is empty")
        if start == b"<":
            _read_cvat([data], reading)
        elif start in (b"[", b"{"):
            _read_labelstudio(_decoded(data), reading)
        else:
            _read_csv(_decoded(data), reading)
    except _NoAnswers as error:
        raise UserError(
            f"{file} is no list of answers: {error}; expected Label Studio's export as JSON, "
            "CVAT's annotations.xml or the zip with it, or CSV with the columns crop_id and label: "
            "export it again"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: name the file that the tool exported") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"{file} cannot be read: {reason}; expected a file of answers") from error
    return reading.result()


def _check_size(size: int) -> None:
    if size > LARGEST_TEXT:
        raise _NoAnswers(f"it is larger than {LARGEST_TEXT // 2**20} MB")


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _NoAnswers(f"byte {error.start} is no UTF-8 text") from error
    if "\0" in text:
        raise _NoAnswers("it is binary")
    return text


def _read_zip(file: Path, reading: _Reading) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            found = [
                entry
                for entry in archive.infolist()
                if entry.filename.rsplit("/", 1)[-1] == "annotations.xml"
            ]
            if len(found) != 1:
                raise _NoAnswers(f"the zip holds {len(found) or 'no'} annotations.xml")
            # Of no entry more is unpacked than it says here.
            _check_size(found[0].file_size)
            with archive.open(found[0]) as stream:
                _read_cvat(iter(lambda: stream.read(2**16), b""), reading)
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
        *(RuntimeError, NotImplementedError, ValueError),  # encrypted, or packed in another way
    ) as error:
        raise _NoAnswers(f"the zip cannot be unpacked ({first_line(error)})") from error


def _read_cvat(chunks: Iterable[bytes], reading: _Reading) -> None:
    """Answers of ``<image name="..."><tag label="..."/></image>``, as they pass by."""
    parser = expat.ParserCreate()
    above: list[str] = []
    tags: list[str | None] = []
    name = ""
    images = 0

    def refuse(*declared: object) -> None:
        raise _NoAnswers("it declares a document type or entities, which CVAT never does")

    def start(element: str, attributes: dict[str, str]) -> None:
        nonlocal name, images
        if not above and element != "annotations":
            raise _NoAnswers(f"it begins with <{element[:40]}>, CVAT's with <annotations>")
        if len(above) > _DEEPEST:
            raise _NoAnswers("it is nested deeper than CVAT's")
        if above == ["annotations"] and element == "image":
            images += 1
            name = attributes.get("name", "")
            tags.clear()
        elif above == ["annotations", "image"] and element == "tag":
            tags.append(attributes.get("label"))
        above.append(element)

    def end(element: str) -> None:
        above.pop()
        if above != ["annotations"] or element != "image" or not tags:
            return
        where = f"line {parser.CurrentLineNumber}"
        crop_id = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if len(tags) > 1:
            both = " and ".join(map(_shown, tags[:2]))
            reading.problem(where, f"one tag for image {_shown(name)}", both)
        else:
            reading.answer(where, crop_id, tags[0])

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of the encoding
        raise _NoAnswers(f"it is broken XML ({first_line(error)})") from error
    if not images:
        raise _NoAnswers("it has no <image>: export it as 'CVAT for images 1.1'")


def _read_labelstudio(text: str, reading: _Reading) -> None:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _NoAnswers(f"it is broken JSON ({first_line(error)})") from error
    if not isinstance(tasks, list):
        raise _NoAnswers("it is one JSON object, Label Studio's export is a list")
    if tasks and not any(isinstance(t, dict) and ("data" in t or "crop_id" in t) for t in tasks):
        raise _NoAnswers("none of its entries has 'data' or 'crop_id'")
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict):
            reading.problem(f"entry {number}", "a task", _shown(task))
            continue
        known = isinstance(task.get("id"), int)
        where = f"task {str(task['id'])[:40]}" if known else f"entry {number}"
        if "data" not in task:  # JSON-MIN
            if task.get(CHOICE) is not None:
                reading.answer(where, task.get("crop_id"), task[CHOICE], task.get("annotator"))
            continue
        data, annotations = task["data"], task.get("annotations", [])
        if not isinstance(data, dict) or not isinstance(annotations, list):
            wrong = annotations if isinstance(data, dict) else data
            expected = "'data' with crop_id, and a list of 'annotations'"
            reading.problem(where, expected, _shown(wrong))
            continue
        for annotation in annotations:
            _read_annotation(where, data.get("crop_id"), annotation, reading)


def _read_annotation(where: str, crop_id: object, annotation: object, reading: _Reading) -> None:
    """What one annotator said of one task in Label Studio."""
    if not isinstance(annotation, dict):
        reading.problem(where, "an annotation", _shown(annotation))
        return
    if annotation.get("was_cancelled"):
        return
    results = annotation.get("result", [])
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        reading.problem(where, "a list of results in the annotation", _shown(results))
        return
    results = [result for result in results if result.get("type") == "choices"]
    # Somebody may have named the interface's tags anew, or added others.
    results = [result for result in results if result.get("from_name") == CHOICE] or results
    if not results:
        return
    value = results[0].get("value")
    choices = value.get("choices") if isinstance(value, dict) else None
    if len(results) > 1 or not isinstance(choices, list) or len(choices) != 1:
        came = f"{len(choices)} choices" if isinstance(choices, list) else _shown(choices)
        came = came if len(results) == 1 else f"{len(results)} results"
        reading.problem(where, f"one choice for crop {_shown(crop_id)}", came)
        return
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    reading.answer(where, crop_id, choices[0], by)


def _read_csv(text: str, reading: _Reading) -> None:
    first = text.lstrip().splitlines()[0]
    header: list[str] = []
    try:
        for delimiter in (",", ";", "\t"):
            cells = next(csv.reader([first], delimiter=delimiter))
            header = [cell.strip().lower() for cell in cells]
            if "crop_id" in header:
                break
        if header.count("crop_id") != 1 or header.count("label") != 1:
            raise _NoAnswers(f"its first line is {_shown(first)}")
        # Strict, because a quote that is never closed would swallow the lines behind it.
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while not any(map(str.strip, next(rows))):
            pass  # empty lines before the header
        for cells in rows:
            where = f"line {rows.line_num}"
            row = dict(zip(header, map(str.strip, cells), strict=False))
            if any(map(str.strip, cells[len(header) :])):
                reading.problem(where, f"{len(header)} cells", f"{len(cells)} cells")
            elif row.get("label"):
                reading.answer(where, row.get("crop_id"), row["label"], row.get("reviewer"))
    except csv.Error as error:
        raise _NoAnswers(f"it is broken CSV ({first_line(error)})") from error
